//! "What runs here now": one word that the running core writes and any other may read.

#![allow(
    unsafe_code,
    reason = "packs a static text into one word and unpacks it on another core"
)]

// Invariants (cited by the SAFETY comments below).
// M1. A word that is not 0 was packed from a `&'static str`: its bytes live as long as the process (modules are never
//     unloaded), and a text's first bytes are initialised memory whatever its length is cut to.
// M2. User addresses have at most 48 significant bits: Linux gives higher ones only to who asks mmap(2) for them
//     (x86 five-level paging, arm64 LVA), and program images are not mapped that way.

use std::sync::atomic::{AtomicU64, Ordering};

/// What kind of unit runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum UnitKind {
    /// A message.
    Message = 0,
    /// A poller.
    Poller = 1,
    /// A task (ULT).
    Task = 2,
}

impl UnitKind {
    /// As operators read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            UnitKind::Message => "message",
            UnitKind::Poller => "poller",
            UnitKind::Task => "ULT",
        }
    }
}

/// What a [`Marker`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    /// What kind of unit.
    pub kind: UnitKind,
    /// Its name, at most 255 bytes of it.
    pub name: &'static str,
    /// Tells units of one turn apart; 6 bits, so it comes round.
    pub sequence: u8,
}

/// A static text in one word, at most 255 bytes of it: its address (48 bits) and its length (8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedStr(u64);

impl PackedStr {
    /// Packs it.
    #[must_use]
    #[inline]
    pub fn new(text: &'static str) -> PackedStr {
        let address = text.as_ptr().expose_provenance() as u64;
        debug_assert!(address >> LENGTH == 0, "M2");
        let length = (text.len() as u64).min(255);
        PackedStr(address | length << LENGTH)
    }

    /// The text.
    #[must_use]
    pub fn get(self) -> &'static str {
        let length = ((self.0 >> LENGTH) & 255) as usize;
        let address = (self.0 & ((1 << LENGTH) - 1)) as usize;
        let start = std::ptr::with_exposed_provenance::<u8>(address);
        // SAFETY: M1, M2: the address of a static text that is at least `length` bytes long.
        let bytes = unsafe { std::slice::from_raw_parts(start, length) };
        // A long text may be cut inside of a character.
        match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(cut) => std::str::from_utf8(&bytes[..cut.valid_up_to()]).unwrap_or(""),
        }
    }
}

/// Kind and name of a unit in one word, made once: the name (56 bits), kind (2), and room for a sequence number (6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitName(u64);

impl UnitName {
    /// Packs them.
    #[must_use]
    #[inline]
    pub fn new(kind: UnitKind, name: &'static str) -> UnitName {
        UnitName(PackedStr::new(name).0 | (kind as u64) << KIND)
    }
}

/// One word that the owner writes with a relaxed store, which is all that it costs; a reader gets what ran a moment ago.
#[derive(Debug, Default)]
pub struct Marker(AtomicU64);

const LENGTH: u32 = 48;
const KIND: u32 = 56;
const SEQUENCE: u32 = 58;

impl Marker {
    /// Nothing runs.
    #[must_use]
    pub const fn new() -> Marker {
        Marker(AtomicU64::new(0))
    }

    /// "This runs now." Owner only.
    #[inline(always)]
    pub fn set(&self, unit: UnitName, sequence: usize) {
        let word = unit.0 | (sequence as u64) << SEQUENCE;
        self.0.store(word, Ordering::Relaxed);
    }

    /// "What runs now is called so": the unit that was set last, under a better name. Owner only.
    #[inline]
    pub fn rename(&self, unit: UnitName) {
        let sequence = self.0.load(Ordering::Relaxed) >> SEQUENCE;
        self.set(unit, sequence as usize);
    }

    /// "Nothing runs." Owner only.
    #[inline(always)]
    pub fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// What ran when this was read. Any OS thread.
    #[must_use]
    pub fn get(&self) -> Option<Unit> {
        let word = self.0.load(Ordering::Relaxed);
        if word == 0 {
            return None;
        }
        let kind = match (word >> KIND) & 3 {
            0 => UnitKind::Message,
            1 => UnitKind::Poller,
            _ => UnitKind::Task,
        };
        Some(Unit {
            kind,
            name: PackedStr(word).get(),
            sequence: (word >> SEQUENCE) as u8,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Marker, Unit, UnitKind, UnitName};

    #[test]
    fn says_what_was_set_last() {
        let marker = Marker::new();
        assert_eq!(marker.get(), None);
        for (kind, name, sequence) in [
            (UnitKind::Message, "message", 0),
            (UnitKind::Poller, "obj:flush", 63),
            (UnitKind::Task, "", 5),
        ] {
            marker.set(UnitName::new(kind, name), sequence);
            let sequence = sequence as u8;
            assert_eq!(
                marker.get(),
                Some(Unit {
                    kind,
                    name,
                    sequence
                })
            );
        }
        marker.set(UnitName::new(UnitKind::Task, "a"), 64 + 7);
        assert_eq!(marker.get().unwrap().sequence, 7, "it comes round");
        marker.rename(UnitName::new(UnitKind::Message, "b"));
        let unit = marker.get().unwrap();
        assert_eq!(
            (unit.kind, unit.name, unit.sequence),
            (UnitKind::Message, "b", 7)
        );
        marker.clear();
        assert_eq!(marker.get(), None);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        const LONG: &str = concat!(
            "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
            "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
            "012345678901234567890123456789012345678901234567890123",
            "ü and more"
        );
        let marker = Marker::new();
        marker.set(UnitName::new(UnitKind::Task, LONG), 0);
        let name = marker.get().unwrap().name;
        assert_eq!(name, &LONG[..254], "the two bytes of ü are 254 and 255");
    }
}
