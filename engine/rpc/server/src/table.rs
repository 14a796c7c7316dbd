//! A slab whose keys name one tenancy of a slot: a late answer never reaches the slot's next tenant.

use slab::Slab;

/// Names one entry for its whole life and nothing afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    generation: u32,
}

impl Key {
    /// For request ids on the wire.
    pub(crate) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn from_u64(id: u64) -> Key {
        Key {
            index: id as u32,
            generation: (id >> 32) as u32,
        }
    }
}

/// A bounded table.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slab: Slab<(u32, T)>,
    next_generation: u32,
    max: usize,
}

impl<T> Table<T> {
    pub(crate) fn new(max: usize) -> Table<T> {
        Table {
            slab: Slab::new(),
            next_generation: 0,
            max,
        }
    }

    /// The value comes back if the table is full.
    pub(crate) fn insert(&mut self, value: T) -> Result<Key, T> {
        if self.slab.len() >= self.max {
            return Err(value);
        }
        let generation = self.next_generation;
        self.next_generation = self.next_generation.wrapping_add(1);
        let index = self.slab.insert((generation, value));
        Ok(Key {
            index: index as u32,
            generation,
        })
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.slab
            .get(key.index as usize)
            .filter(|(generation, _)| *generation == key.generation)
            .map(|(_, v)| v)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slab
            .get_mut(key.index as usize)
            .filter(|(generation, _)| *generation == key.generation)
            .map(|(_, v)| v)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        Some(self.slab.remove(key.index as usize).1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slab.iter().map(|(_, (_, value))| value)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slab.iter_mut().map(|(_, (_, value))| value)
    }

    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.slab.len() >= self.max
    }

    pub(crate) fn into_values(self) -> impl Iterator<Item = T> {
        self.slab.into_iter().map(|(_, (_, value))| value)
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_reaches_the_next_tenant() {
        let mut table = Table::new(2);
        let first = table.insert("first").unwrap();
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second").unwrap();
        assert_eq!(
            (first.index, table.get(first).copied(), table.remove(first)),
            (second.index, None, None)
        );
        assert_eq!(table.get(second), Some(&"second"));
        table.insert("third").unwrap();
        assert_eq!(table.insert("fourth"), Err("fourth"));
        assert_eq!(table.len(), 2);
    }
}
