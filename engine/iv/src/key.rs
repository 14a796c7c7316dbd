//! Names of namespaces and variables, values, versions.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use daos_errno::Der;

/// Most bytes of a key (DAOS: `key_buf[48]`).
pub const MAX_KEY: usize = 48;

/// A namespace: a pool's uuid.
pub type NsId = u128;

/// A value; shared, never changed.
pub type Value = Arc<[u8]>;

/// A variable of a class: up to [`MAX_KEY`] bytes whose meaning is the class's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    class: u32,
    len: u8,
    bytes: [u8; MAX_KEY],
}

impl Hash for Key {
    /// What is behind the key's end is always zero: most keys are short.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.class) << 8 | u64::from(self.len));
        state.write(self.bytes());
    }
}

impl Key {
    /// A key of `class`.
    ///
    /// # Errors
    /// `OVERFLOW` if there are more than [`MAX_KEY`] bytes.
    pub fn new(class: u32, bytes: &[u8]) -> Result<Key, Der> {
        let mut key = Key {
            class,
            len: bytes.len() as u8,
            bytes: [0; MAX_KEY],
        };
        let room = key.bytes.get_mut(..bytes.len()).ok_or(Der::OVERFLOW)?;
        room.copy_from_slice(bytes);
        Ok(key)
    }

    /// Its class.
    pub fn class(&self) -> u32 {
        self.class
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// When the root accepted a value: its term as leader, and a number that grows within the term. The default is older than every other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Term of the leader that stamped it.
    pub term: u64,
    /// Counts within the term, over all keys of the namespace.
    pub sequence: u64,
}
