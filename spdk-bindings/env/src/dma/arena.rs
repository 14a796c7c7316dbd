#![allow(
    unsafe_code,
    reason = "zeroes ranges that come back and are given out again (H2 of huge.rs)"
)]
//! [`Arena`]: huge pages of one NUMA node that mappings for devices are cut from.

use core::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::PAGE;
use super::huge::{HugeFailure, HugeMapping, HugePage};
use super::ranges::Ranges;

/// Pieces of at least this size begin at a multiple of it, so that an IOMMU can map them with large pages.
pub(crate) const LARGE: usize = 2 << 20;

/// Memory set aside. Any thread; taking and giving back lock, and are for the control path.
pub(super) struct Arena {
    memory: HugeMapping,
    node: Option<u32>,
    ranges: Mutex<Ranges>,
}

impl Arena {
    /// At least `len` bytes.
    pub(super) fn new(len: usize, page: HugePage, node: Option<u32>) -> Result<Arena, HugeFailure> {
        let whole = len.max(1).checked_next_multiple_of(page.bytes());
        let memory = HugeMapping::new(whole.ok_or(HugeFailure::TooFew)?, page, node)?;
        let ranges = Mutex::new(Ranges::new(memory.len()));
        Ok(Arena {
            memory,
            node,
            ranges,
        })
    }

    pub(super) fn node(&self) -> Option<u32> {
        self.node
    }

    pub(super) fn len(&self) -> usize {
        self.memory.len()
    }

    pub(super) fn as_ptr(&self) -> NonNull<u8> {
        self.memory.as_ptr()
    }

    fn ranges(&self) -> MutexGuard<'_, Ranges> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Zeroed memory; `None` when there is no room.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> Option<Piece> {
        let align = if len >= LARGE { LARGE } else { PAGE };
        let taken = self.ranges().take(len, align)?;
        // SAFETY: the range is ours alone until the piece exists.
        unsafe { self.memory.zero(taken.offset, taken.dirty) };
        Some(Piece {
            arena: Arc::clone(self),
            offset: taken.offset,
            len,
        })
    }

    #[cfg(test)]
    fn free(&self) -> usize {
        self.ranges().free()
    }
}

/// A range of an arena, which it goes back to.
pub(super) struct Piece {
    arena: Arc<Arena>,
    offset: usize,
    len: usize,
}

impl Piece {
    pub(super) fn as_ptr(&self) -> NonNull<u8> {
        // SAFETY: `Ranges` gives out offsets inside the mapping only.
        unsafe { self.arena.memory.as_ptr().add(self.offset) }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.arena.ranges().give_back(self.offset, self.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An arena of one page of 2 MiB, if this machine has one to give.
    fn arena() -> Option<Arc<Arena>> {
        match Arena::new(1, HugePage::TwoMiB, None) {
            Ok(arena) => Some(Arc::new(arena)),
            Err(_) => {
                #[expect(clippy::print_stderr, reason = "why a test shows nothing")]
                {
                    eprintln!(
                        "skipped: no huge page of 2 MiB is free on this machine (vm.nr_hugepages)"
                    );
                }
                None
            }
        }
    }

    #[test]
    fn pieces_are_zeroed_lie_apart_and_come_back() {
        let Some(arena) = arena() else { return };
        let (first, second) = (arena.take(PAGE).unwrap(), arena.take(3 * PAGE).unwrap());
        for (piece, byte) in [(&first, 1), (&second, 2)] {
            // SAFETY: the piece is ours.
            unsafe { piece.as_ptr().write_bytes(byte, piece.len()) };
        }
        let first_at = first.as_ptr();
        // SAFETY: as above.
        assert_eq!(unsafe { (first_at.read(), second.as_ptr().read()) }, (1, 2));
        assert!(arena.take(LARGE).is_none());
        drop((first, second));
        assert_eq!(arena.free(), LARGE);
        let all = arena.take(LARGE).unwrap();
        assert_eq!(all.as_ptr(), first_at);
        // SAFETY: as above.
        let bytes = unsafe { core::slice::from_raw_parts(all.as_ptr().as_ptr(), LARGE) };
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_node_that_is_not_there_has_no_pages() {
        let Some(_) = arena() else { return };
        for node in [1023, 1024, u32::MAX] {
            let refused = Arena::new(1, HugePage::TwoMiB, Some(node));
            assert!(matches!(refused, Err(HugeFailure::TooFew)));
        }
    }
}
