//! Buffers that a device may read and write.
//!
//! Invariants, besides E1 to E3 of `engine.rs`:
//! - B1: a non-empty `dss_buf` held by a `DmaBuf` is owned by it alone: `addr` points to `capacity` initialised bytes
//!   that nobody else touches until the buffer moves to the engine or is freed. Buffers come from the engine zeroed.
#![allow(unsafe_code, reason = "owns the engine's memory")]

use crate::engine;
use daos_errno::Der;
use module_abi::dss_buf;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

/// An owned, page-aligned buffer; goes back to the engine when dropped. Reads as its first [`len`](slice::len) bytes.
pub struct DmaBuf(dss_buf);

// SAFETY: B1; `buf_free` may be called from any thread.
unsafe impl Send for DmaBuf {}
// SAFETY: B1; a shared reference only reads.
unsafe impl Sync for DmaBuf {}

impl DmaBuf {
    /// A zeroed buffer of `len` bytes. Any xstream.
    ///
    /// # Errors
    /// `DER_NOMEM` when the engine's pool is empty: wait for I/O of your own to end, or answer `DER_AGAIN`.
    pub fn alloc(len: usize) -> Result<DmaBuf, Der> {
        let mut raw = dss_buf::EMPTY;
        // SAFETY: E1; `raw` is ours to write.
        Der::check(unsafe { (engine::host().buf_alloc)(len as u64, &raw mut raw) })?;
        let mut buf = DmaBuf::take(raw);
        buf.set_len(len);
        Ok(buf)
    }

    /// Bytes there.
    pub fn capacity(&self) -> usize {
        usize::try_from(self.0.capacity).unwrap_or(0)
    }

    /// Sets how many bytes are in use; bytes beyond the former length hold what they held before.
    ///
    /// # Panics
    /// Beyond the capacity.
    #[track_caller]
    pub fn set_len(&mut self, len: usize) {
        assert!(
            len <= self.capacity(),
            "set_len({len}) of a buffer of {} bytes",
            self.capacity()
        );
        self.0.len = len as u64;
    }

    /// No memory: length and capacity 0.
    pub const fn empty() -> DmaBuf {
        DmaBuf(dss_buf::EMPTY)
    }

    /// The buffer behind a `dss_buf` that moved here.
    pub(crate) fn take(raw: dss_buf) -> DmaBuf {
        if raw.is_empty() {
            DmaBuf::empty()
        } else {
            DmaBuf(raw)
        }
    }

    fn length(&self) -> usize {
        usize::try_from(self.0.len.min(self.0.capacity)).unwrap_or(0)
    }

    /// Moves the buffer to the engine.
    pub(crate) fn give(self) -> dss_buf {
        let mut this = ManuallyDrop::new(self);
        std::mem::replace(&mut this.0, dss_buf::EMPTY)
    }
}

impl Deref for DmaBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        if self.0.is_empty() {
            return &[];
        }
        // SAFETY: B1; the length is within the capacity, and that is one allocation's.
        unsafe { std::slice::from_raw_parts(self.0.addr.cast(), self.length()) }
    }
}

impl DerefMut for DmaBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        if self.0.is_empty() {
            return &mut [];
        }
        // SAFETY: B1.
        unsafe { std::slice::from_raw_parts_mut(self.0.addr.cast(), self.length()) }
    }
}

impl Drop for DmaBuf {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            let raw = std::mem::replace(&mut self.0, dss_buf::EMPTY);
            // SAFETY: B1; moves.
            unsafe { (engine::host().buf_free)(raw) }
        }
    }
}

impl fmt::Debug for DmaBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaBuf({} of {} bytes)", self.len(), self.capacity())
    }
}
