//! What a rank keeps of one variable.

use crate::options::Nanos;
use crate::{Value, Version};

/// A value that a rank has, for inspection and for readers that do not ask others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached<'a> {
    /// The newest version that this rank has heard of.
    pub version: Version,
    /// The value of that version; `None`: invalidated, or known to be newer elsewhere.
    pub value: Option<&'a Value>,
    /// Whether it may be served now.
    pub valid: bool,
    /// Until when it may be, unless it changes; the greatest number: for as long as this rank is the root.
    pub fresh_until: Nanos,
}

/// The newest version heard of, and its value if that is known. Never goes back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) version: Version,
    pub(crate) value: Option<Value>,
    /// Confirmed by the present root, as far as this rank knows.
    pub(crate) confirmed: bool,
    /// Until when it may be served; the root serves what it confirmed for ever.
    pub(crate) fresh_until: Nanos,
}

impl Entry {
    /// Takes a version if it is newer, or the same seen again. Says whether it did.
    pub(crate) fn take(
        &mut self,
        version: Version,
        value: Option<Value>,
        fresh_until: Nanos,
    ) -> bool {
        if version < self.version {
            return false;
        }
        let known = version == self.version && self.confirmed;
        self.fresh_until = match known {
            true => self.fresh_until.max(fresh_until),
            false => fresh_until,
        };
        self.confirmed = value.is_some();
        (self.version, self.value) = (version, value);
        true
    }

    /// A newer version exists, its value is not known here. Says whether that was news.
    pub(crate) fn outdate(&mut self, version: Version) -> bool {
        if version <= self.version {
            return false;
        }
        (self.version, self.value, self.confirmed) = (version, None, false);
        true
    }
}
