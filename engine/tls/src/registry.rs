//! Keys: who has a value, how it is made, how it ends.

use std::any::Any;
use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{KEYS, Slots, Tags, TlsError, XsInfo};

/// A key's slot. Valid from registration until unregistration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyIndex(pub(crate) u8);

impl KeyIndex {
    /// The slot's number, 0 to 63: C's `dmk_index`.
    #[inline]
    pub fn slot(self) -> usize {
        usize::from(self.0)
    }

    /// The key in slot `slot`, for an index that came back over the C ABI.
    #[inline]
    pub fn from_slot(slot: usize) -> Option<KeyIndex> {
        (slot < KEYS).then_some(KeyIndex(slot as u8))
    }
}

type RawInit = Arc<dyn Fn(&XsInfo) -> Option<NonNull<c_void>> + Send + Sync>;
type RawFini = Arc<dyn Fn(&XsInfo, NonNull<c_void>) + Send + Sync>;
type TypedInit = Arc<dyn Fn(&XsInfo) -> Option<Box<dyn Any>> + Send + Sync>;

/// A key whose values are opaque pointers: a module's, behind the C ABI.
#[derive(Clone)]
pub struct RawKey {
    /// For messages: the module's name.
    pub name: String,
    /// Which xstreams have a value.
    pub tags: Tags,
    /// Makes the value on the xstream that will own it; `None` fails that xstream's start.
    pub init: RawInit,
    /// Ends the value on the same xstream.
    pub fini: RawFini,
}

impl fmt::Debug for RawKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawKey")
            .field("name", &self.name)
            .field("tags", &self.tags)
            .finish_non_exhaustive()
    }
}

pub(crate) enum Make {
    Raw { init: RawInit, fini: RawFini },
    Typed(TypedInit),
}

/// A registered key. Xstreams with a value hold a clone: the count tells who still uses it.
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) tags: Tags,
    pub(crate) make: Make,
}

/// A key of engine code whose values are `T`. Copy it freely; it grants nothing without an xstream's [`Slots`].
pub struct TypedKey<T> {
    index: KeyIndex,
    value: PhantomData<fn() -> T>,
}

impl<T: 'static> TypedKey<T> {
    /// This xstream's value; `None` where the tags do not match or the key came after the xstream's start.
    #[inline]
    pub fn get(self, slots: &Slots) -> Option<&T> {
        slots.typed(self.index)
    }

    /// Its slot.
    #[inline]
    pub fn index(self) -> KeyIndex {
        self.index
    }
}

impl<T> Clone for TypedKey<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for TypedKey<T> {}

impl<T> fmt::Debug for TypedKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TypedKey({})", self.index.0)
    }
}

/// The engine's keys. Clones share one table; any thread.
#[derive(Clone, Default)]
pub struct KeyRegistry {
    table: Arc<Mutex<Table>>,
}

struct Table([Option<Arc<Key>>; KEYS]);

impl Default for Table {
    fn default() -> Table {
        Table([const { None }; KEYS])
    }
}

impl KeyRegistry {
    /// An empty table of [`KEYS`] slots.
    pub fn new() -> KeyRegistry {
        KeyRegistry::default()
    }

    /// Registers a module's key in the first free slot. Xstreams that run already do not get a value.
    pub fn register(&self, key: RawKey) -> Result<KeyIndex, TlsError> {
        self.insert(Key {
            name: key.name,
            tags: key.tags,
            make: Make::Raw {
                init: key.init,
                fini: key.fini,
            },
        })
    }

    /// Registers a key of engine code. Its destructor is `T`'s `Drop`.
    pub fn register_typed<T: 'static>(
        &self,
        name: &str,
        tags: Tags,
        init: impl Fn(&XsInfo) -> Option<T> + Send + Sync + 'static,
    ) -> Result<TypedKey<T>, TlsError> {
        let init: TypedInit =
            Arc::new(move |info| init(info).map(|value| Box::new(value) as Box<dyn Any>));
        let index = self.insert(Key {
            name: name.to_owned(),
            tags,
            make: Make::Typed(init),
        })?;
        Ok(TypedKey {
            index,
            value: PhantomData,
        })
    }

    /// Frees the slot. Refused while an xstream holds a value: its destructor would have nowhere to come from, and a
    /// new key in the slot would read the old key's value.
    pub fn unregister(&self, index: KeyIndex) -> Result<(), TlsError> {
        let mut table = self.lock();
        let slot = &mut table.0[index.slot()];
        let Some(key) = slot else {
            return Err(TlsError::NotRegistered {
                index: index.slot(),
            });
        };
        let holders = Arc::strong_count(key) - 1;
        if holders > 0 {
            return Err(TlsError::InUse {
                name: key.name.clone(),
                holders,
            });
        }
        *slot = None;
        Ok(())
    }

    /// Registered keys: slot, name, tags.
    pub fn list(&self) -> Vec<(KeyIndex, String, Tags)> {
        let keys = self.snapshot();
        keys.into_iter()
            .map(|(index, key)| (index, key.name.clone(), key.tags))
            .collect()
    }

    /// The keys in slot order. Constructors run without the table's lock, so they may look at it.
    pub(crate) fn snapshot(&self) -> Vec<(KeyIndex, Arc<Key>)> {
        let table = self.lock();
        let filled = table
            .0
            .iter()
            .enumerate()
            .filter_map(|(slot, key)| Some((slot, key.as_ref()?)));
        filled
            .map(|(slot, key)| (KeyIndex(slot as u8), Arc::clone(key)))
            .collect()
    }

    fn insert(&self, key: Key) -> Result<KeyIndex, TlsError> {
        if key.tags.is_empty() {
            return Err(TlsError::NoTags { name: key.name });
        }
        let mut table = self.lock();
        let Some(slot) = table.0.iter().position(Option::is_none) else {
            return Err(TlsError::TableFull { name: key.name });
        };
        table.0[slot] = Some(Arc::new(key));
        Ok(KeyIndex(slot as u8))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change to the table is one assignment: a panic elsewhere leaves it whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KeyRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}
