#![allow(
    unsafe_code,
    reason = "reads and writes memory that a device changes (D5 of dma.rs)"
)]
//! [`DmaMemory`]: memory that a driver and its device work on at the same time: queues, lists, log pages.

use core::any::Any;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Mapping;
use super::region::copy;

/// A range that a device reads and writes whenever it likes (SPDK: `spdk_zmalloc` with `SPDK_MALLOC_DMA`). Zeroed at first.
///
/// Words are relaxed atomics: the driver orders them against registers and phase bits with the barriers of [`crate::mmio`].
/// Dropping it gives the memory back, so its owner drops it only when the device is known to have let go, and otherwise calls
/// [`DmaMemory::leak`].
pub struct DmaMemory {
    ptr: NonNull<u8>,
    len: usize,
    iova: u64,
    owner: Option<Box<dyn Any + Send + Sync>>,
}

// SAFETY: D5: no reference to the bytes exists; words are atomics, copies may race.
unsafe impl Send for DmaMemory {}
// SAFETY: as above.
unsafe impl Sync for DmaMemory {}

impl DmaMemory {
    /// The range `[ptr, ptr + len)`, which the device knows as `iova`.
    ///
    /// # Safety
    /// `owner` keeps the range mapped and nobody holds references into it or uses it otherwise until `owner` is dropped (D5);
    /// `ptr` is aligned to 64 bytes.
    pub(crate) unsafe fn from_raw(
        ptr: NonNull<u8>,
        len: usize,
        iova: u64,
        owner: Box<dyn Any + Send + Sync>,
    ) -> DmaMemory {
        assert!(
            ptr.as_ptr().addr().is_multiple_of(64),
            "device memory starts at a cache line"
        );
        DmaMemory {
            ptr,
            len,
            iova,
            owner: Some(owner),
        }
    }

    /// The first `len` bytes of a mapping that lies contiguous for the device, which knows it as `iova`.
    pub(crate) fn of_mapping(mapping: Mapping, len: usize, iova: u64) -> DmaMemory {
        assert!(len <= mapping.len(), "more than the mapping has");
        // SAFETY: D5: the mapping is nobody else's, page-aligned, and moves into the owner.
        unsafe { DmaMemory::from_raw(mapping.as_ptr(), len, iova, Box::new(mapping)) }
    }

    /// Bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a range without bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the device finds the first byte.
    #[inline]
    #[must_use]
    pub fn iova(&self) -> u64 {
        self.iova
    }

    /// Gives the range to the device for ever: it may still write, and nobody can stop it.
    pub fn leak(&mut self) {
        #[expect(
            clippy::mem_forget,
            reason = "a device that could not be stopped may write here at any time"
        )]
        core::mem::forget(self.owner.take());
    }

    #[inline]
    fn at(&self, offset: usize, len: usize, align: usize) -> *mut u8 {
        assert!(
            len <= self.len && offset <= self.len - len && offset.is_multiple_of(align),
            "{len} bytes at {offset} do not lie aligned inside {} bytes of device memory",
            self.len
        );
        self.ptr.as_ptr().wrapping_add(offset)
    }

    /// Reads 32 bits in the machine's byte order (NVMe is little-endian: use `from_le`).
    ///
    /// # Panics
    /// Outside the range, or unaligned; so do all accesses.
    #[inline]
    #[must_use]
    pub fn read_u32(&self, offset: usize) -> u32 {
        let at = self.at(offset, 4, 4).cast::<u32>();
        // SAFETY: D5: in range and aligned, as `at` checked.
        u32::from_le(unsafe { AtomicU32::from_ptr(at) }.load(Ordering::Relaxed))
    }

    /// Writes 32 bits, little-endian.
    #[inline]
    pub fn write_u32(&self, offset: usize, value: u32) {
        let at = self.at(offset, 4, 4).cast::<u32>();
        // SAFETY: D5: in range and aligned, as `at` checked.
        unsafe { AtomicU32::from_ptr(at) }.store(value.to_le(), Ordering::Relaxed);
    }

    /// Reads 64 bits, little-endian.
    #[inline]
    #[must_use]
    pub fn read_u64(&self, offset: usize) -> u64 {
        let at = self.at(offset, 8, 8).cast::<u64>();
        // SAFETY: D5: in range and aligned, as `at` checked.
        u64::from_le(unsafe { AtomicU64::from_ptr(at) }.load(Ordering::Relaxed))
    }

    /// Writes 64 bits, little-endian.
    #[inline]
    pub fn write_u64(&self, offset: usize, value: u64) {
        self.write_words(offset, &[value]);
    }

    /// Writes consecutive 64-bit words, little-endian: one check for a whole queue entry.
    #[inline]
    pub fn write_words<const N: usize>(&self, offset: usize, words: &[u64; N]) {
        let at = self.at(offset, N * 8, 8).cast::<u64>();
        for (i, word) in words.iter().enumerate() {
            // SAFETY: D5: in range and aligned, as `at` checked for all of them.
            unsafe { AtomicU64::from_ptr(at.wrapping_add(i)) }
                .store(word.to_le(), Ordering::Relaxed);
        }
    }

    /// Copies out `to.len()` bytes from `offset`.
    #[inline]
    pub fn copy_out(&self, offset: usize, to: &mut [u8]) {
        let from = self.at(offset, to.len(), 1);
        // SAFETY: `at` checked the source; `to` is exclusively ours and by D5 not inside the range.
        unsafe { copy::out(from, to.as_mut_ptr(), to.len()) }
    }

    /// Copies `from` in at `offset`.
    #[inline]
    pub fn copy_in(&self, offset: usize, from: &[u8]) {
        let to = self.at(offset, from.len(), 1);
        // SAFETY: `at` checked the target; `from` is by D5 not inside the range.
        unsafe { copy::into(from.as_ptr(), to, from.len()) }
    }

    /// Zeroes everything.
    pub fn clear(&self) {
        for at in (0..self.len).step_by(64) {
            self.copy_in(at, &[0; 64][..64.min(self.len - at)]);
        }
    }
}

impl fmt::Debug for DmaMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaMemory")
            .field("len", &self.len)
            .field("iova", &format_args!("{:#x}", self.iova))
            .finish_non_exhaustive()
    }
}
