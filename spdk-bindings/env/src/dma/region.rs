#![allow(
    unsafe_code,
    reason = "copies to and from memory that several threads share without locks (D4 of dma.rs)"
)]
//! [`SharedRegion`]: memory that behaves like a device's: any thread copies in and out, races give mixed bytes, never
//! undefined behaviour.

use super::mapping::Mapping;
use super::{OutOfMemory, PAGE};

/// A zeroed range of memory shared by all threads without locks (the storage of a malloc device).
///
/// Two copies that overlap in time and place may mix at byte granularity, exactly as two commands to a disk may: ordering
/// them is the caller's business.
pub struct SharedRegion {
    memory: Mapping,
    len: usize,
}

impl SharedRegion {
    /// A region of `len` bytes, zeroed; its memory is taken from the machine now, so that no access waits for it later.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is not that much.
    pub fn new(len: usize) -> Result<SharedRegion, OutOfMemory> {
        let memory = Mapping::new(len)?;
        memory.populate()?;
        Ok(SharedRegion { memory, len })
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a region without bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            len <= self.len && offset <= self.len - len,
            "{len} bytes at {offset} lie outside a region of {} bytes",
            self.len
        );
        self.memory.as_ptr().as_ptr().wrapping_add(offset)
    }

    /// Copies `to.len()` bytes at `offset` out of the region.
    ///
    /// # Panics
    /// When the range lies outside the region.
    #[inline]
    pub fn copy_out(&self, offset: usize, to: &mut [u8]) {
        let from = self.at(offset, to.len());
        // SAFETY: `at` checked the source range; `to` is exclusively ours and, by D4, not inside the region.
        unsafe { copy::out(from, to.as_mut_ptr(), to.len()) }
    }

    /// Copies `from` into the region at `offset`.
    ///
    /// # Panics
    /// When the range lies outside the region.
    #[inline]
    pub fn copy_in(&self, offset: usize, from: &[u8]) {
        let to = self.at(offset, from.len());
        // SAFETY: `at` checked the target range; `from` is by D4 not inside the region.
        unsafe { copy::into(from.as_ptr(), to, from.len()) }
    }

    /// Zeroes `len` bytes at `offset`.
    ///
    /// # Panics
    /// When the range lies outside the region.
    pub fn zero(&self, offset: usize, len: usize) {
        static ZEROES: [u8; PAGE] = [0; PAGE];
        let mut at = offset;
        let _ = self.at(offset, len);
        while at < offset + len {
            let n = PAGE.min(offset + len - at);
            self.copy_in(at, &ZEROES[..n]);
            at += n;
        }
    }

    /// Asks the processor to start loading the first cache lines at `offset`; a hint without other effect.
    #[inline]
    pub fn prefetch(&self, offset: usize) {
        if offset < self.len {
            copy::prefetch(self.memory.as_ptr().as_ptr().wrapping_add(offset));
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod copy {
    //! `rep movsb`: one byte access after another as far as the memory model goes (each may race, like a relaxed
    //! atomic), whole cache lines as far as the processor goes (ERMS, FSRM).

    use core::arch::asm;
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    /// # Safety
    /// `from` and `to` are valid for `len` bytes and do not overlap; only one of them may be shared with other threads.
    #[inline]
    pub(in crate::dma) unsafe fn out(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: by the caller's promise; the direction flag is clear on entry to asm; no stack is used.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
        }
    }

    /// # Safety
    /// As for [`out`].
    #[inline]
    pub(in crate::dma) unsafe fn into(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: by the caller's promise.
        unsafe { out(from, to, len) }
    }

    #[inline]
    pub(super) fn prefetch(at: *const u8) {
        for line in 0..4 {
            // SAFETY: prefetching never faults, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(line * 64).cast()) };
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) mod copy {
    //! Relaxed atomic bytes: correct on every architecture.

    use core::sync::atomic::{AtomicU8, Ordering};

    /// # Safety
    /// `from` and `to` are valid for `len` bytes and do not overlap; `from` may be shared with other threads that access
    /// it through this module only.
    pub(in crate::dma) unsafe fn out(from: *const u8, to: *mut u8, len: usize) {
        for i in 0..len {
            // SAFETY: `i < len`, by the caller's promise.
            unsafe {
                *to.add(i) = AtomicU8::from_ptr(from.add(i).cast_mut()).load(Ordering::Relaxed)
            };
        }
    }

    /// # Safety
    /// As for [`out`], with `to` as the shared side.
    pub(in crate::dma) unsafe fn into(from: *const u8, to: *mut u8, len: usize) {
        for i in 0..len {
            // SAFETY: `i < len`, by the caller's promise.
            unsafe { AtomicU8::from_ptr(to.add(i)).store(*from.add(i), Ordering::Relaxed) };
        }
    }

    pub(super) fn prefetch(_at: *const u8) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_went_in() {
        let region = SharedRegion::new(10_000).unwrap();
        let data: Vec<u8> = (0..5000).map(|i| (i % 251) as u8).collect();
        region.copy_in(4321, &data);
        region.prefetch(4321);
        let mut back = vec![0; 5000];
        region.copy_out(4321, &mut back);
        assert_eq!(back, data);
        region.zero(4321, 4999);
        region.copy_out(4321, &mut back);
        assert_eq!((&back[..4999], back[4999]), (&[0; 4999][..], data[4999]));
    }

    #[test]
    #[should_panic(expected = "11 bytes at 90 lie outside a region of 100 bytes")]
    fn a_range_outside_panics() {
        SharedRegion::new(100).unwrap().copy_in(90, &[0; 11]);
    }

    #[test]
    fn threads_may_race_on_the_same_bytes() {
        let region = SharedRegion::new(4096).unwrap();
        std::thread::scope(|scope| {
            for value in [0x11u8, 0x22] {
                let region = &region;
                scope.spawn(move || (0..2000).for_each(|_| region.copy_in(0, &[value; 4096])));
            }
            let mut seen = [0u8; 4096];
            for _ in 0..2000 {
                region.copy_out(0, &mut seen);
                assert!(seen.iter().all(|b| [0, 0x11, 0x22].contains(b)));
            }
        });
    }
}
