//! [`DmaMemory`]: memory that SPDK's devices reach.
#![allow(unsafe_code, reason = "owns memory of SPDK's")]
//! - **M1** the range was given by `ks_dma_alloc`, zeroed, and is freed by `drop` only; SPDK outlives it (`_spdk`).

use core::ptr::NonNull;

use crate::ffi;
use crate::spdk::Spdk;

/// Zeroed memory in SPDK's huge pages, registered with its drivers (SPDK: `spdk_zmalloc`). `Send + Sync`: it gives out its address only.
#[derive(Debug)]
pub struct DmaMemory {
    ptr: NonNull<u8>,
    len: usize,
    _spdk: Spdk,
}

// SAFETY: M1: plain memory without thread affinity; the type gives out its address, not its bytes.
unsafe impl Send for DmaMemory {}
// SAFETY: as above.
unsafe impl Sync for DmaMemory {}

impl DmaMemory {
    /// `len` bytes, aligned to `align` (a power of two), near a NUMA node or anywhere. `None` when there is no such room.
    #[must_use]
    pub fn zeroed(spdk: &Spdk, len: usize, align: usize, node: Option<u32>) -> Option<DmaMemory> {
        let node = node.map_or(-1, |node| i32::try_from(node).unwrap_or(-1));
        // SAFETY: SPDK is up, as `spdk` shows; any numbers may be asked for.
        let ptr = unsafe { ffi::ks_dma_alloc(len.max(1), align, node) };
        Some(DmaMemory {
            ptr: NonNull::new(ptr.cast())?,
            len,
            _spdk: spdk.clone(),
        })
    }

    /// Its first byte.
    #[must_use]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for DmaMemory {
    fn drop(&mut self) {
        // SAFETY: M1.
        unsafe { ffi::ks_dma_free(self.ptr.as_ptr().cast()) };
    }
}
