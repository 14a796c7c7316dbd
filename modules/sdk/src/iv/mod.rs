//! Incast variables: values that all engines of a group share, stamped by the root, cached by each engine and each of its xstreams.
//!
//! A module registers a class ([`register_class`], in `init`), uses namespaces ([`create`], [`destroy`], [`system_namespace`]) and reads and
//! changes variables ([`IvVar`]). Values are protobuf messages; numbers, strings and byte vectors are, too. DAOS: `ds_iv_*`;
//! docs/internals/iv.md says what happens to a fetch and an update.

mod call;
mod class;
mod var;

pub use call::{IvFailure, NsId, create, destroy, system_namespace};
pub use class::{IvChange, IvClass, IvPlace, IvRequest, register_class};
pub use var::IvVar;

use daos_errno::Der;
use module_abi::{
    DSS_IV_KEY_MAX, DSS_IV_SYNC_BIDIRECTIONAL, DSS_IV_SYNC_EAGER, DSS_IV_SYNC_LAZY,
    DSS_IV_SYNC_NONE, dss_iv_key, dss_iv_version,
};
use std::fmt;
use std::time::Duration;

/// A variable's name within a namespace: its class, and up to 48 bytes that mean what the class says.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IvKey {
    class: u32,
    len: u32,
    bytes: [u8; DSS_IV_KEY_MAX as usize],
}

impl IvKey {
    /// A key of a class.
    ///
    /// # Errors
    /// `DER_OVERFLOW`: more than 48 bytes.
    pub fn new(class: u32, bytes: &[u8]) -> Result<IvKey, Der> {
        let mut key = IvKey {
            class,
            len: bytes.len() as u32,
            bytes: [0; DSS_IV_KEY_MAX as usize],
        };
        let room = key.bytes.get_mut(..bytes.len()).ok_or(Der::OVERFLOW)?;
        room.copy_from_slice(bytes);
        Ok(key)
    }

    /// Id of its class.
    pub fn class(&self) -> u32 {
        self.class
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    fn raw(&self) -> dss_iv_key {
        dss_iv_key {
            class_id: self.class,
            len: self.len,
            bytes: self.bytes,
        }
    }

    fn from_raw(raw: &dss_iv_key) -> IvKey {
        IvKey {
            class: raw.class_id,
            len: raw.len.min(DSS_IV_KEY_MAX),
            bytes: raw.bytes,
        }
    }
}

impl fmt::Debug for IvKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IvKey({}, {:02x?})", self.class, self.bytes())
    }
}

/// When the root accepted a value: its term as leader, and a number that grows within the term. Never goes back anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IvVersion {
    /// Of the leader.
    pub term: u64,
    /// Within the term.
    pub sequence: u64,
}

impl From<dss_iv_version> for IvVersion {
    fn from(raw: dss_iv_version) -> IvVersion {
        IvVersion {
            term: raw.term,
            sequence: raw.sequence,
        }
    }
}

/// How a change comes down from the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum IvSync {
    /// Not at all: done when the root has it.
    None = DSS_IV_SYNC_NONE,
    /// To all: done when all have it, in the caches of their xstreams, too.
    Eager = DSS_IV_SYNC_EAGER,
    /// To all: done when the root has it.
    Lazy = DSS_IV_SYNC_LAZY,
    /// What the root makes of it comes back the way that the change went up. Updates only.
    Bidirectional = DSS_IV_SYNC_BIDIRECTIONAL,
}

/// How a change travels, and how long it is tried.
#[derive(Debug, Clone, Copy)]
pub struct IvHow {
    /// Down.
    pub sync: IvSync,
    /// Up: straight to the root instead of from parent to parent.
    pub to_root: bool,
    /// Its deadline, from now; at least a millisecond.
    pub timeout: Duration,
}

impl IvHow {
    /// From parent to parent, for at most `timeout`.
    pub const fn new(sync: IvSync, timeout: Duration) -> IvHow {
        IvHow {
            sync,
            to_root: false,
            timeout,
        }
    }

    /// The same, straight to the root.
    #[must_use]
    pub const fn to_root(self) -> IvHow {
        IvHow {
            to_root: true,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_to_the_engine_and_back() {
        let key = IvKey::new(300, b"pool").unwrap();
        assert_eq!(IvKey::from_raw(&key.raw()), key);
        assert_eq!((key.class(), key.bytes()), (300, &b"pool"[..]));
        assert_eq!(IvKey::new(1, &[0; 49]), Err(Der::OVERFLOW));
    }
}
