#![allow(
    unsafe_code,
    reason = "reads and writes device registers through a mapped BAR; the sites rest on W1 to W3"
)]
//! Device registers: the [`RegisterWindow`] trait, a mapped BAR as one, and the barriers between memory and registers.
//!
//! Rules that the `unsafe` sites rest on:
//!
//! - **W1 mapped**: `owner` keeps `[ptr, ptr + len)` mapped while the window exists. After a surprise removal the mapping may be
//!   replaced (by the SIGBUS handler, with pages of ones) but never taken away.
//! - **W2 checked**: every access is checked to lie inside the window and to be aligned to its width.
//! - **W3 registers are not memory**: the bytes are touched by volatile accesses of the register's width only, never through
//!   a reference.

use core::any::Any;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};

/// Registers of a device (SPDK: `spdk_mmio_*`). `Send + Sync`: which thread may touch which register is the driver's business.
///
/// Offsets are bytes from the start of the window, aligned to the width. An access outside the window, or to a device that is
/// gone, reads as all ones and writes nowhere: what PCI Express answers for an absent device.
pub trait RegisterWindow: Send + Sync {
    /// Bytes in the window.
    fn len(&self) -> usize;

    /// True for a window without registers.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads 32 bits. Loads of memory that follow in the program happen after it.
    fn read32(&self, offset: usize) -> u32;

    /// Writes 32 bits. Stores to memory before it in the program are visible to the device before the write arrives.
    fn write32(&self, offset: usize, value: u32);

    /// Reads 64 bits, low half first where the device takes 32 at a time (NVMe Base 2.0, section 3.1).
    fn read64(&self, offset: usize) -> u64 {
        let low = self.read32(offset);
        u64::from(low) | u64::from(self.read32(offset + 4)) << 32
    }

    /// Writes 64 bits, low half first.
    fn write64(&self, offset: usize, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset + 4, (value >> 32) as u32);
    }
}

/// Stores to DMA memory before this are visible to the device before any register write after it.
#[inline]
pub fn write_barrier() {
    // x86 keeps stores in order, to write-back memory and uncached registers alike; the compiler must too.
    #[cfg(target_arch = "x86_64")]
    compiler_fence(Ordering::SeqCst);
    #[cfg(not(target_arch = "x86_64"))]
    device_fence();
}

/// Loads of DMA memory after this see what the device wrote before what was read before it (a phase bit, a register).
#[inline]
pub fn read_barrier() {
    #[cfg(target_arch = "x86_64")]
    compiler_fence(Ordering::SeqCst);
    #[cfg(not(target_arch = "x86_64"))]
    device_fence();
}

/// Everything before is visible before anything after: between a shadow doorbell and the event index that decides whether
/// the device has to be told (NVMe Base 2.0, section 5.8).
#[inline]
pub fn full_barrier() {
    fence(Ordering::SeqCst);
    #[cfg(not(target_arch = "x86_64"))]
    device_fence();
}

/// Orders memory against devices, which an ordinary fence between processors does not have to do.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn device_fence() {
    fence(Ordering::SeqCst);
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier touches neither memory, stack nor flags.
    unsafe {
        core::arch::asm!("dmb osh", options(nostack, preserves_flags))
    };
}

/// A mapped BAR.
pub struct MmioWindow {
    ptr: NonNull<u8>,
    len: usize,
    removed: AtomicBool,
    _owner: Box<dyn Any + Send + Sync>,
}

// SAFETY: W1 and W3: device registers have no thread affinity and are touched by single volatile accesses.
unsafe impl Send for MmioWindow {}
// SAFETY: as above; concurrent accesses are separate bus transactions.
unsafe impl Sync for MmioWindow {}

impl MmioWindow {
    /// A window of `len` bytes at `ptr`.
    ///
    /// # Safety
    /// `owner` keeps the range mapped (W1), and nobody holds references into it (W3).
    pub(crate) unsafe fn from_raw(
        ptr: NonNull<u8>,
        len: usize,
        owner: Box<dyn Any + Send + Sync>,
    ) -> MmioWindow {
        assert!(
            ptr.as_ptr().addr().is_multiple_of(8),
            "a register window starts at an address aligned to its widest register"
        );
        MmioWindow {
            ptr,
            len,
            removed: AtomicBool::new(false),
            _owner: owner,
        }
    }

    /// The device is gone: from now on everything reads as ones, without touching the bus. Any thread.
    pub fn mark_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    /// Whether [`MmioWindow::mark_removed`] was called.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    #[inline]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let width = size_of::<T>();
        let fits = offset <= self.len.saturating_sub(width)
            && self.len >= width
            && offset.is_multiple_of(width);
        (fits && !self.is_removed()).then(|| self.ptr.as_ptr().wrapping_add(offset).cast::<T>())
    }
}

impl RegisterWindow for MmioWindow {
    fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn read32(&self, offset: usize) -> u32 {
        let Some(at) = self.at::<u32>(offset) else {
            return u32::MAX;
        };
        // SAFETY: W1 to W3: `at` checked range and alignment.
        let value = unsafe { at.read_volatile() };
        read_barrier();
        value
    }

    #[inline]
    fn write32(&self, offset: usize, value: u32) {
        let Some(at) = self.at::<u32>(offset) else {
            return;
        };
        write_barrier();
        // SAFETY: W1 to W3: `at` checked range and alignment.
        unsafe { at.write_volatile(value) };
    }
}

impl fmt::Debug for MmioWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MmioWindow")
            .field("len", &self.len)
            .field("removed", &self.is_removed())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> MmioWindow {
        let mut words = vec![0u64; 8].into_boxed_slice();
        let ptr = NonNull::new(words.as_mut_ptr().cast::<u8>()).unwrap();
        // SAFETY: the boxed words move into the owner, their heap memory stays where it is, and nothing else refers to it.
        unsafe { MmioWindow::from_raw(ptr, 64, Box::new(words)) }
    }

    #[test]
    fn values_come_back_and_a_register_of_64_bits_has_its_low_half_first() {
        let window = window();
        window.write64(8, 0x1122_3344_5566_7788);
        assert_eq!(
            (window.read32(8), window.read32(12)),
            (0x5566_7788, 0x1122_3344)
        );
        assert_eq!(window.read64(8), 0x1122_3344_5566_7788);
    }

    #[test]
    fn outside_unaligned_or_gone_reads_as_ones_and_writes_nowhere() {
        let window = window();
        for offset in [62, 64, 2, usize::MAX, usize::MAX - 3] {
            window.write32(offset, 1);
            assert_eq!(window.read32(offset), u32::MAX, "at {offset}");
        }
        assert_eq!(window.read32(60), 0);
        window.mark_removed();
        window.write32(0, 7);
        assert_eq!((window.read32(0), window.read64(0)), (u32::MAX, u64::MAX));
    }
}
