//! Who an xstream is, as keys see it.

use std::fmt;
use std::ops::{BitOr, Sub};

/// Roles of xstreams and of keys, with DAOS's bit values (`src/include/daos_srv/daos_engine.h`). A key has a value on
/// an xstream when the two share a bit.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Tags(pub u32);

impl Tags {
    /// The system xstream.
    pub const SYS: Tags = Tags(0x01);
    /// Main xstreams.
    pub const TGT: Tags = Tags(0x02);
    /// Xstreams that run the replicated database.
    pub const RDB: Tags = Tags(0x04);
    /// Offload xstreams.
    pub const OFF: Tags = Tags(0x08);
    /// Client threads.
    pub const CLI: Tags = Tags(0x10);
    /// Every xstream of an engine.
    pub const SERVER: Tags = Tags(0xff);

    /// Whether the two share a bit.
    pub const fn matches(self, other: Tags) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether no bit is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Tags {
    type Output = Tags;

    fn bitor(self, other: Tags) -> Tags {
        Tags(self.0 | other.0)
    }
}

impl Sub for Tags {
    type Output = Tags;

    /// The bits of `self` that `other` does not have.
    fn sub(self, other: Tags) -> Tags {
        Tags(self.0 & !other.0)
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

/// The xstream (or other thread with storage) that a value is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XsInfo {
    /// Its tags.
    pub tags: Tags,
    /// Its id, from 0 (system); -1 for a thread that is no xstream.
    pub xs_id: i32,
    /// Its target; -1 where it has none.
    pub tgt_id: i32,
}
