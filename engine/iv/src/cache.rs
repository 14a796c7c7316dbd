//! What one xstream has of the variables of its rank.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::hash::QuickBuild;
use crate::options::Nanos;
use crate::{Key, NsId, Value, Version};

/// What a rank tells a cache below it. Messages between two xstreams keep their order, so what comes last is newest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// This is the value, for so long.
    Keep {
        /// Its namespace.
        ns: NsId,
        /// Its canonical key.
        key: Key,
        /// Its version.
        version: Version,
        /// Its bytes.
        value: Value,
        /// Until when it may be served, unless something else is said before.
        fresh_until: Nanos,
    },
    /// There is a newer one, or none.
    Drop {
        /// Its namespace.
        ns: NsId,
        /// Its canonical key.
        key: Key,
    },
    /// Nothing of this namespace may be served.
    DropSpace(NsId),
    /// Nothing at all: what happened is not known in full.
    DropAll,
}

struct Kept {
    version: Version,
    bytes: Rc<[u8]>,
    /// The bytes as the type that was asked for last.
    typed: Option<Rc<dyn Any>>,
    fresh_until: u64,
}

/// Own xstream only. At its bound it takes no new variable: those are fetched each time.
pub struct Cache {
    kept: RefCell<HashMap<(NsId, Key), Kept, QuickBuild>>,
    most: usize,
}

impl Cache {
    /// For this many variables.
    pub fn new(most: usize) -> Cache {
        Cache {
            kept: RefCell::default(),
            most,
        }
    }

    /// What the rank said.
    pub fn apply(&self, item: Item) {
        let mut kept = self.kept.borrow_mut();
        match item {
            Item::Keep {
                ns,
                key,
                version,
                value,
                fresh_until,
            } => {
                if kept.len() >= self.most && !kept.contains_key(&(ns, key)) {
                    return;
                }
                // A copy of its own: a shared count would be a line of memory that xstreams fight for.
                let bytes = Rc::from(&*value);
                let new = Kept {
                    version,
                    bytes,
                    typed: None,
                    fresh_until,
                };
                kept.insert((ns, key), new);
            }
            Item::Drop { ns, key } => {
                kept.remove(&(ns, key));
            }
            Item::DropSpace(ns) => kept.retain(|(of, _), _| *of != ns),
            Item::DropAll => kept.clear(),
        }
    }

    /// What may be served now.
    #[inline]
    pub fn get(&self, now: Nanos, ns: NsId, key: &Key) -> Option<(Version, Rc<[u8]>)> {
        let kept = self.kept.borrow();
        let found = kept
            .get(&(ns, *key))
            .filter(|kept| now < kept.fresh_until)?;
        Some((found.version, Rc::clone(&found.bytes)))
    }

    /// The value as a `T`, read from its bytes by the first who asks.
    pub fn typed<T: 'static>(
        &self,
        now: Nanos,
        ns: NsId,
        key: &Key,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Option<Rc<T>> {
        let mut kept = self.kept.borrow_mut();
        let key = (ns, *key);
        let found = kept.get_mut(&key).filter(|kept| now < kept.fresh_until)?;
        if let Some(typed) = &found.typed
            && let Ok(value) = Rc::clone(typed).downcast::<T>()
        {
            return Some(value);
        }
        let value = Rc::new(read(&found.bytes)?);
        found.typed = Some(Rc::clone(&value) as Rc<dyn Any>);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Key {
        Key::new(1, &[number]).unwrap()
    }

    fn keep(ns: NsId, number: u8, sequence: u64, text: &str, fresh_until: u64) -> Item {
        let version = Version { term: 1, sequence };
        let (key, value) = (key(number), text.as_bytes().into());
        Item::Keep {
            ns,
            key,
            version,
            value,
            fresh_until,
        }
    }

    fn read(cache: &Cache, now: u64, ns: NsId, number: u8) -> Option<String> {
        let (_, bytes) = cache.get(now, ns, &key(number))?;
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn values_come_go_and_expire() {
        let cache = Cache::new(8);
        cache.apply(keep(7, 1, 1, "one", 100));
        cache.apply(keep(7, 2, 2, "two", 50));
        cache.apply(keep(8, 1, 3, "other", u64::MAX));
        assert_eq!(read(&cache, 99, 7, 1).as_deref(), Some("one"));
        assert_eq!(read(&cache, 50, 7, 2), None, "its time is up");
        cache.apply(Item::Drop { ns: 7, key: key(1) });
        assert_eq!(read(&cache, 0, 7, 1), None);
        cache.apply(Item::DropSpace(7));
        assert_eq!(read(&cache, 0, 7, 2), None);
        assert_eq!(read(&cache, 0, 8, 1).as_deref(), Some("other"));
        cache.apply(Item::DropAll);
        assert_eq!(read(&cache, 0, 8, 1), None);
    }

    #[test]
    fn a_full_cache_takes_what_it_knows_and_nothing_new() {
        let cache = Cache::new(1);
        cache.apply(keep(7, 1, 1, "old", u64::MAX));
        cache.apply(keep(7, 2, 2, "new", u64::MAX));
        cache.apply(keep(7, 1, 3, "newer", u64::MAX));
        assert_eq!(read(&cache, 0, 7, 1).as_deref(), Some("newer"));
        assert_eq!(read(&cache, 0, 7, 2), None);
    }

    #[test]
    fn a_typed_value_is_read_from_its_bytes_once() {
        let cache = Cache::new(8);
        cache.apply(keep(7, 1, 1, "41", u64::MAX));
        let parse = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u32>().ok();
        assert_eq!(cache.typed(0, 7, &key(1), parse).as_deref(), Some(&41));
        let again = cache.typed(0, 7, &key(1), |_| -> Option<u32> { panic!("read again") });
        assert_eq!(again.as_deref(), Some(&41));
        let text = cache.typed(0, 7, &key(1), |bytes| Some(bytes.to_vec()));
        assert_eq!(text.as_deref(), Some(&b"41".to_vec()), "as another type");
        cache.apply(keep(7, 1, 2, "42", u64::MAX));
        assert_eq!(cache.typed(0, 7, &key(1), parse).as_deref(), Some(&42));
        cache.apply(keep(7, 1, 3, "many", u64::MAX));
        assert_eq!(cache.typed(0, 7, &key(1), parse), None);
    }
}
