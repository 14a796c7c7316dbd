//! Memory of stacks: mapped with a guard below, and what is known of each.
//!
//! Invariant M1: a [`Record`] owns its mapping until its [`StackMemory`] drops. The lowest [`GUARD`] bytes can be neither read nor
//! written, the rest is the stack's.
#![allow(unsafe_code, reason = "maps memory")]

use crate::StackError;
use crate::list::Owner;
use corosensei::stack::{Stack, StackPointer};
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap,
};
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::null_mut;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Stack of a ULT that says nothing of its size. Four times DAOS's: pages that are not touched cost nothing.
pub(crate) const DEFAULT_SIZE: usize = 64 << 10;
/// What the engine's own functions may use on top of it: a log line with its formatting, mainly.
pub(crate) const ENGINE_SIZE: usize = 64 << 10;
/// The largest stack.
pub(crate) const MAX_SIZE: usize = 64 << 20;
/// Below each stack. Larger than a page: a large frame shall not step over it.
pub(crate) const GUARD: usize = 64 << 10;
/// By how much the tops of neighbouring stacks differ within a page, and how many do: with all tops at the same place the first
/// frames of many ULTs would share a few lines of the first-level cache.
const COLOUR: usize = 128;
const COLOURS: usize = 32;
/// From this size on the kernel would put a huge page under a stack.
const HUGE: usize = 2 << 20;

/// Stacks mapped in the process: each is two of the kernel's `vm.max_map_count` mappings.
static MAPPED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Stacks that this OS thread has mapped so far.
    static COUNT: Cell<usize> = const { Cell::new(0) };
    /// Those that it has mapped now, in use or kept.
    static ALL: RefCell<Vec<Rc<Record>>> = const { RefCell::new(Vec::new()) };
}

/// What is known of a stack. The handler of overflows reads it, on its own OS thread.
pub(crate) struct Record {
    start: *mut c_void,
    /// With the guard.
    len: usize,
    /// Bytes above the stack's top that nobody uses.
    colour: usize,
    /// In [`ALL`].
    place: Cell<usize>,
    /// Of the ULT on it; none: it is kept.
    pub(crate) name: Cell<&'static str>,
    pub(crate) owner: Cell<Option<Owner>>,
}

impl Record {
    /// Where the guard begins.
    pub(crate) fn guard(&self) -> usize {
        self.start.addr()
    }

    /// Bytes that can be used.
    pub(crate) fn size(&self) -> usize {
        self.len - GUARD
    }

    /// Bytes from the top down to the lowest page with memory behind it. Asks the kernel.
    pub(crate) fn touched(&self) -> usize {
        let page = rustix::param::page_size();
        let mut pages = vec![0_u8; self.size().div_ceil(page)];
        let usable = self.start.wrapping_byte_add(GUARD);
        // SAFETY: M1, and a byte for each of its pages.
        let answered = unsafe { libc::mincore(usable, self.size(), pages.as_mut_ptr()) } == 0;
        let lowest = pages.iter().position(|page| page & 1 != 0);
        match lowest {
            Some(lowest) if answered => self.size() - lowest * page,
            _ => 0,
        }
    }
}

/// A stack that nobody runs on, or that a coroutine has.
pub(crate) struct StackMemory(Rc<Record>);

/// Bytes of the mapping that suits a ULT which asks for `size`.
pub(crate) fn mapping_len(size: usize) -> Result<usize, StackError> {
    let wanted = if size == 0 { DEFAULT_SIZE } else { size };
    if wanted > MAX_SIZE {
        return Err(StackError::TooLarge(size));
    }
    Ok(GUARD + (wanted + ENGINE_SIZE).next_multiple_of(DEFAULT_SIZE))
}

/// The most stacks of a process: a quarter of the mappings that the kernel allows it, so half of these.
pub(crate) fn limit() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count");
        let maps = text.ok().and_then(|text| text.trim().parse::<usize>().ok());
        maps.unwrap_or(65_530) / 4 // the kernel's default
    })
}

impl StackMemory {
    /// A new one, of `len` bytes with its guard; at most `limit` in the process.
    pub(crate) fn map(len: usize, limit: usize) -> Result<StackMemory, StackError> {
        if MAPPED.fetch_add(1, Ordering::Relaxed) >= limit {
            MAPPED.fetch_sub(1, Ordering::Relaxed);
            return Err(StackError::TooMany(limit));
        }
        let (none, flags) = (
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK,
        );
        // SAFETY: M1: a new mapping, wherever the system likes.
        let start = unsafe { mmap_anonymous(null_mut(), len, none, flags) }.map_err(|errno| {
            MAPPED.fetch_sub(1, Ordering::Relaxed);
            StackError::NoMemory(len - GUARD, errno.raw_os_error())
        })?;
        let stack = StackMemory(Rc::new(Record {
            start,
            len,
            colour: COUNT.replace(COUNT.get().wrapping_add(1)) % COLOURS * COLOUR,
            place: Cell::new(0),
            name: Cell::new(""),
            owner: Cell::new(None),
        }));
        ALL.with_borrow_mut(|all| {
            stack.0.place.set(all.len());
            all.push(Rc::clone(&stack.0));
        });
        let usable = start.wrapping_byte_add(GUARD);
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: M1: the upper part of our mapping, which nobody uses yet.
        let opened = unsafe { mprotect(usable, len - GUARD, access) };
        opened.map_err(|errno| StackError::NoMemory(len - GUARD, errno.raw_os_error()))?;
        if len - GUARD >= HUGE {
            // What is touched shall cost pages, not huge ones. A kernel without them refuses, and is right.
            // SAFETY: M1: changes nothing that can be seen.
            let _ = unsafe { madvise(usable, len - GUARD, Advice::LinuxNoHugepage) };
        }
        Ok(stack)
    }

    /// With the guard.
    pub(crate) fn len(&self) -> usize {
        self.0.len
    }

    /// It lives until this drops.
    pub(crate) fn record(&self) -> &Record {
        &self.0
    }

    /// Gives the memory behind it back to the system; the stack stays.
    pub(crate) fn forget_contents(&mut self) {
        let usable = self.0.start.wrapping_byte_add(GUARD);
        // SAFETY: M1: nobody runs on it while it is ours alone, and a coroutine writes before it reads.
        let forgotten = unsafe { madvise(usable, self.0.size(), Advice::LinuxDontNeed) };
        if let Err(error) = forgotten {
            tracing::debug!(%error, "a stack keeps its memory");
        }
    }
}

impl Drop for StackMemory {
    fn drop(&mut self) {
        // Not there while the OS thread ends: nobody can list it any more.
        let _ = ALL.try_with(|all| {
            let mut all = all.borrow_mut();
            let place = self.0.place.get();
            all.swap_remove(place);
            if let Some(moved) = all.get(place) {
                moved.place.set(place);
            }
        });
        // SAFETY: M1: ours, and no stack any more.
        if unsafe { munmap(self.0.start, self.0.len) }.is_err() {
            tracing::error!("a stack could not be unmapped");
        }
        MAPPED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Calls `f` for each stack of this OS thread.
pub(crate) fn for_all(mut f: impl FnMut(&Record)) {
    ALL.with_borrow(|all| all.iter().for_each(|record| f(record)));
}

// SAFETY: M1: a guard below, at least 124 KiB above it; the guard at page boundaries, the top at a multiple of 128.
unsafe impl Stack for StackMemory {
    fn base(&self) -> StackPointer {
        let top = self.0.start.addr() + self.0.len - self.0.colour;
        NonZeroUsize::new(top).unwrap_or(NonZeroUsize::MIN)
    }

    fn limit(&self) -> StackPointer {
        NonZeroUsize::new(self.0.start.addr()).unwrap_or(NonZeroUsize::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_is_measured_and_given_back() {
        let mut stack = StackMemory::map(mapping_len(0).unwrap(), limit()).unwrap();
        assert_eq!(stack.record().touched(), 0);
        let top = stack.0.start.wrapping_byte_add(stack.len());
        for depth in [100, 20_000] {
            // SAFETY: M1; nobody uses it.
            unsafe { top.wrapping_byte_sub(depth).cast::<u8>().write(1) };
        }
        let page = rustix::param::page_size();
        assert_eq!(
            stack.record().touched(),
            20_000_usize.next_multiple_of(page)
        );
        stack.forget_contents();
        assert_eq!(stack.record().touched(), 0);
    }

    #[test]
    fn the_bounds_say_what_was_asked_what_there_is_and_what_helps() {
        let too_large = mapping_len(MAX_SIZE + 1).err().unwrap().to_string();
        assert!(
            too_large.contains("67108865") && too_large.contains("67108864"),
            "{too_large}"
        );
        let len = mapping_len(0).unwrap();
        let refused = StackMemory::map(len, 0).err().unwrap();
        assert!(matches!(refused, StackError::TooMany(0)), "{refused}");
        assert!(
            refused.to_string().contains("vm.max_map_count"),
            "{refused}"
        );
        for _ in 0..=limit() {
            let impossible = StackMemory::map(usize::MAX / 2, limit()).err().unwrap();
            assert!(
                matches!(impossible, StackError::NoMemory(..)),
                "{impossible}"
            );
        }
        assert!(
            StackMemory::map(len, limit()).is_ok(),
            "failures are not counted"
        );
    }
}
