//! Entries of queued requests, by index, in chunks: growing moves nothing.

use crate::{Class, Flags};
use std::ops::{Index, IndexMut};

pub(crate) const NONE: u32 = u32::MAX;
const CHUNK: usize = 1024;

/// Which list an entry is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Free,
    Fifo,
    Resent,
    Urgent,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub token: u64,
    pub id: u64,
    pub arrived_ns: u64,
    /// From then on it is kicked whatever the limits, milliseconds.
    pub fires_ms: u64,
    pub pool: u32,
    pub generation: u32,
    pub prev: u32,
    pub next: u32,
    pub timer_prev: u32,
    pub timer_next: u32,
    /// Slot of the deadline wheel; `NONE`: in none.
    pub timer_slot: u32,
    pub class: Class,
    pub flags: Flags,
    pub place: Place,
    pub slice: bool,
}

impl Entry {
    const EMPTY: Entry = Entry {
        token: 0,
        id: 0,
        arrived_ns: 0,
        fires_ms: 0,
        pool: NONE,
        generation: 0,
        prev: NONE,
        next: NONE,
        timer_prev: NONE,
        timer_next: NONE,
        timer_slot: NONE,
        class: Class::Update,
        flags: Flags::NONE,
        place: Place::Free,
        slice: false,
    };
}

#[derive(Debug)]
pub(crate) struct Slab {
    chunks: Vec<Box<[Entry]>>,
    free: u32,
    used: u32,
    limit: u32,
}

impl Slab {
    pub(crate) fn new(prepared: u32, limit: u32) -> Slab {
        let most = (limit as usize).div_ceil(CHUNK);
        let mut slab = Slab {
            chunks: Vec::with_capacity(most),
            free: NONE,
            used: 0,
            limit,
        };
        while slab.chunks.len() * CHUNK < prepared.min(limit) as usize {
            slab.grow();
        }
        slab
    }

    fn grow(&mut self) {
        let first = self.chunks.len() * CHUNK;
        let mut chunk = vec![Entry::EMPTY; CHUNK].into_boxed_slice();
        for (at, entry) in chunk.iter_mut().enumerate() {
            entry.next = if at + 1 < CHUNK {
                (first + at + 1) as u32
            } else {
                self.free
            };
        }
        self.chunks.push(chunk);
        self.free = first as u32;
    }

    /// An entry for the caller to fill; `None` at the limit.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if self.used >= self.limit {
            return None;
        }
        if self.free == NONE {
            self.grow();
        }
        let index = self.free;
        self.free = self[index].next;
        self.used += 1;
        Some(index)
    }

    /// Back to the free ones; its generation moves on, so that old tickets miss it.
    pub(crate) fn give(&mut self, index: u32) {
        let free = self.free;
        let entry = &mut self[index];
        entry.place = Place::Free;
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = free;
        self.free = index;
        self.used -= 1;
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    pub(crate) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<Entry>()
    }

    pub(crate) fn get(&self, index: u32) -> Option<&Entry> {
        self.chunks
            .get(index as usize / CHUNK)?
            .get(index as usize % CHUNK)
    }
}

impl Index<u32> for Slab {
    type Output = Entry;

    #[inline]
    fn index(&self, index: u32) -> &Entry {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

impl IndexMut<u32> for Slab {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut Entry {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_by_chunks_to_its_limit_and_reuses() {
        let mut slab = Slab::new(1, 1500);
        let (few, taken) = (slab.bytes(), (0..1500).map(|_| slab.take().unwrap()));
        let taken: Vec<u32> = taken.collect();
        let mut sorted = taken.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 1500, "no index twice");
        assert_eq!((slab.take(), slab.bytes()), (None, 2 * few));
        let before = slab[taken[7]].generation;
        slab.give(taken[7]);
        assert_eq!(slab.take(), Some(taken[7]));
        assert_ne!(slab[taken[7]].generation, before);
        assert_eq!(slab.bytes(), 2 * few);
    }
}
