//! Memory of stacks: mapped with a guard below, kept for the next ULT of the size.
//!
//! Invariant M1: a [`StackMemory`] owns its mapping, of which the lowest [`GUARD`] bytes can be neither read nor written and the
//! rest is the stack's.
#![allow(unsafe_code, reason = "maps memory")]

use corosensei::stack::{Stack, StackPointer};
use daos_errno::Der;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::null_mut;

/// Stack of a ULT that says nothing of its size. Four times DAOS's: pages that are not touched cost nothing.
const DEFAULT_SIZE: usize = 64 << 10;
/// What the engine's own functions may use on top of it: a log line with its formatting, mainly.
const ENGINE_SIZE: usize = 64 << 10;
/// The largest stack.
const MAX_SIZE: usize = 64 << 20;
/// Below each stack. Larger than a page: a large frame shall not step over it.
pub(crate) const GUARD: usize = 64 << 10;
/// Stacks of one size that an OS thread keeps; beyond, they are unmapped.
const KEPT_MAX: usize = 64;
/// By how much the tops of neighbouring stacks differ within a page, and how many do: with all tops at the same place the first
/// frames of many ULTs would share a few lines of the first-level cache.
const COLOUR: usize = 128;
const COLOURS: usize = 32;
/// Sizes of which stacks are kept, the first ones that come.
const SIZES_MAX: usize = 8;

thread_local! {
    /// Stacks that this OS thread has mapped.
    static MAPPED: Cell<usize> = const { Cell::new(0) };
    static KEPT: RefCell<Vec<(usize, Vec<StackMemory>)>> = const { RefCell::new(Vec::new()) };
}

pub(crate) struct StackMemory {
    start: *mut c_void,
    /// With the guard.
    len: usize,
    /// Bytes above the stack's top that nobody uses.
    colour: usize,
}

impl StackMemory {
    /// One of this OS thread's kept ones, or a new one.
    ///
    /// # Errors
    /// `DER_NOMEM` when the system has no more; `DER_INVAL` past the largest size.
    pub(crate) fn take(size: usize) -> Result<StackMemory, Der> {
        let wanted = if size == 0 { DEFAULT_SIZE } else { size };
        if wanted > MAX_SIZE {
            return Err(Der::INVAL);
        }
        let len = GUARD + (wanted + ENGINE_SIZE).next_multiple_of(DEFAULT_SIZE);
        let kept = KEPT.with_borrow_mut(|kept| {
            let of_size = kept.iter_mut().find(|(size, _)| *size == len);
            of_size.and_then(|(_, stacks)| stacks.pop())
        });
        match kept {
            Some(stack) => Ok(stack),
            None => StackMemory::map(len),
        }
    }

    fn map(len: usize) -> Result<StackMemory, Der> {
        let (none, flags) = (ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: M1: a new mapping, wherever the system likes.
        let start = unsafe { mmap_anonymous(null_mut(), len, none, flags) };
        let stack = StackMemory {
            start: start.map_err(|_| Der::NOMEM)?,
            len,
            colour: MAPPED.replace(MAPPED.get().wrapping_add(1)) % COLOURS * COLOUR,
        };
        let usable = stack.start.wrapping_byte_add(GUARD);
        // SAFETY: M1: the upper part of our mapping, which nobody uses yet.
        let opened = unsafe {
            mprotect(
                usable,
                len - GUARD,
                MprotectFlags::READ | MprotectFlags::WRITE,
            )
        };
        opened.map_err(|_| Der::NOMEM)?;
        Ok(stack)
    }

    /// For the next ULT of this OS thread.
    pub(crate) fn give_back(self) {
        let too_many = KEPT.with_borrow_mut(|kept| {
            let len = self.len;
            if kept.iter().all(|(size, _)| *size != len) {
                if kept.len() == SIZES_MAX {
                    return Some(self);
                }
                kept.push((len, Vec::new()));
            }
            let of_size = kept.iter_mut().find(|(size, _)| *size == len);
            match of_size {
                Some((_, stacks)) if stacks.len() < KEPT_MAX => {
                    stacks.push(self);
                    None
                }
                _ => Some(self),
            }
        });
        drop(too_many);
    }
}

impl Drop for StackMemory {
    fn drop(&mut self) {
        // SAFETY: M1: ours, and no stack any more.
        if unsafe { munmap(self.start, self.len) }.is_err() {
            tracing::error!("a stack could not be unmapped");
        }
    }
}

// SAFETY: M1: a guard below, at least 124 KiB above it; the guard at page boundaries, the top at a multiple of 128.
unsafe impl Stack for StackMemory {
    fn base(&self) -> StackPointer {
        let top = self.start.addr() + self.len - self.colour;
        NonZeroUsize::new(top).unwrap_or(NonZeroUsize::MIN)
    }

    fn limit(&self) -> StackPointer {
        NonZeroUsize::new(self.start.addr()).unwrap_or(NonZeroUsize::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Vec<(usize, usize)> {
        KEPT.with_borrow(|kept| kept.iter().map(|(size, all)| (*size, all.len())).collect())
    }

    #[test]
    fn stacks_are_kept_by_size_up_to_a_bound() {
        let first = StackMemory::take(0).unwrap();
        let (size, start) = (first.len, first.start);
        assert_eq!(size, GUARD + DEFAULT_SIZE + ENGINE_SIZE);
        first.give_back();
        assert_eq!(kept(), [(size, 1)]);
        let again = StackMemory::take(1).unwrap();
        assert_eq!(
            (again.start, kept()),
            (start, vec![(size, 0)]),
            "rounded up to the same size"
        );
        again.give_back();
        let many: Vec<_> = (0..KEPT_MAX + 5)
            .map(|_| StackMemory::take(0).unwrap())
            .collect();
        many.into_iter().for_each(StackMemory::give_back);
        assert_eq!(kept(), [(size, KEPT_MAX)]);
        for size in 2..20 {
            StackMemory::take(size * DEFAULT_SIZE).unwrap().give_back();
        }
        assert_eq!(kept().len(), SIZES_MAX);
        assert_eq!(StackMemory::take(MAX_SIZE + 1).err(), Some(Der::INVAL));
    }
}
