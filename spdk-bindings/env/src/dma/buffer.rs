#![allow(
    unsafe_code,
    reason = "owns raw page-aligned memory; the sites rest on D1 to D3 of dma.rs"
)]
//! [`DmaBuf`]: the owned buffer that travels with an I/O.

use core::fmt;
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::sync::Arc;

use super::pool::PoolInner;

/// Alignment of every buffer, in bytes: enough for `O_DIRECT` on any file system and for an NVMe PRP entry.
pub const PAGE: usize = 4096;

/// The machine has no memory left for a buffer or pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot allocate {bytes} bytes of I/O memory: give the process more memory or configure smaller pools"
)]
pub struct OutOfMemory {
    /// Bytes asked for.
    pub bytes: usize,
}

/// An owned, page-aligned run of bytes for device I/O (SPDK: `spdk_dma_zmalloc`).
///
/// `len` is the part in use and may be set to anything up to `capacity`. Dropping the buffer frees it or gives it back to
/// its pool. `Send`: it may be filled on one xstream and given to a device on another. One word: an I/O's buffer changes hands some
/// six times on its way, and a processor that wrote a value in pieces waits before it reads them back as one.
pub struct DmaBuf {
    header: NonNull<Header>,
}

/// What a buffer is. Made once per slot of a pool, or with the heap buffer that it describes.
#[repr(align(32))]
pub(super) struct Header {
    ptr: NonNull<u8>,
    len: u32,
    capacity: u32,
    /// The pool while the buffer is out, and its number there.
    pool: Option<Arc<PoolInner>>,
    slot: u32,
}

/// Of all buffers without bytes; nobody writes it.
struct Empty(Header);

// SAFETY: never written, its address is not dereferenced, and it has no pool.
unsafe impl Sync for Empty {}

static EMPTY: Empty = Empty(Header {
    // Aligned and dangling: valid for slices of length 0.
    ptr: NonNull::<AlignedPage>::dangling().cast::<u8>(),
    len: 0,
    capacity: 0,
    pool: None,
    slot: 0,
});

impl Header {
    /// Of a slot that no buffer exists for.
    pub(super) fn of_slot(ptr: NonNull<u8>, capacity: u32, slot: u32) -> Header {
        Header {
            ptr,
            len: capacity,
            capacity,
            pool: None,
            slot,
        }
    }
}

// SAFETY: D1: the value is the only way to its bytes and its header, so moving it to another thread moves all access with it.
unsafe impl Send for DmaBuf {}
// SAFETY: a shared `&DmaBuf` gives out shared slices of initialised bytes only.
unsafe impl Sync for DmaBuf {}

impl DmaBuf {
    /// A zeroed buffer of `len` bytes from the heap, capacity rounded up to whole pages. Not for the data path: take
    /// those from a [`super::DmaPool`].
    ///
    /// # Errors
    /// [`OutOfMemory`]; also for lengths of 4 GiB and more.
    pub fn alloc(len: usize) -> Result<DmaBuf, OutOfMemory> {
        if len == 0 {
            return Ok(DmaBuf::empty());
        }
        let fail = OutOfMemory { bytes: len };
        let bytes = len.checked_next_multiple_of(PAGE).ok_or(fail)?;
        let capacity = u32::try_from(bytes).map_err(|_| fail)?;
        let layout = Layout::from_size_align(bytes, PAGE).map_err(|_| fail)?;
        let len = u32::try_from(len).map_err(|_| fail)?;
        // SAFETY: the layout has a non-zero size.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(fail)?;
        let header = Header {
            len,
            ..Header::of_slot(ptr, capacity, 0)
        };
        Ok(DmaBuf {
            header: NonNull::from(Box::leak(Box::new(header))),
        })
    }

    /// A buffer without bytes; allocates nothing.
    #[must_use]
    pub fn empty() -> DmaBuf {
        DmaBuf {
            header: NonNull::from(&EMPTY.0),
        }
    }

    /// # Safety
    /// `header` is that of a free slot of `pool`, taken out of its free list by the caller (D1, D7).
    #[inline]
    pub(super) unsafe fn from_pool(header: NonNull<Header>, pool: Arc<PoolInner>) -> DmaBuf {
        let mut buf = DmaBuf { header };
        let header = buf.header_mut();
        header.len = header.capacity;
        header.pool = Some(pool);
        buf
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: D7.
        unsafe { self.header.as_ref() }
    }

    /// Not of a buffer without bytes.
    #[inline]
    fn header_mut(&mut self) -> &mut Header {
        debug_assert!(self.header != NonNull::from(&EMPTY.0));
        // SAFETY: D7; `&mut self` is the only access (D1).
        unsafe { self.header.as_mut() }
    }

    /// Bytes in use.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.header().len as usize
    }

    /// True when `len` is 0.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.header().len == 0
    }

    /// Bytes allocated; `len` never exceeds it.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.header().capacity as usize
    }

    /// Sets the bytes in use. Growing shows what the buffer held before (zeroes, or an earlier I/O's data).
    ///
    /// # Panics
    /// When `len` is more than [`DmaBuf::capacity`].
    pub fn set_len(&mut self, len: usize) {
        assert!(
            len <= self.capacity(),
            "set_len({len}) on a DmaBuf with a capacity of {} bytes",
            self.capacity()
        );
        if len != self.len() {
            // The assertion bounds `len` by a u32.
            self.header_mut().len = len as u32;
        }
    }

    /// The bytes in use.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: D2 and D3; `len <= capacity`; `&self` keeps every writer out (D1).
        unsafe { core::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }

    /// The bytes in use, to write.
    #[inline]
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: D2 and D3; `len <= capacity`; `&mut self` is the only access (D1).
        unsafe { core::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len()) }
    }

    /// Address of the first byte, for a device. Valid while the buffer exists.
    #[inline]
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.header().ptr.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.header().ptr.as_ptr()
    }

    /// Number of the registered pool that the buffer comes from, if any: the slot that an io_uring instance knows its
    /// memory by.
    #[inline]
    #[must_use]
    pub fn pool_index(&self) -> Option<u16> {
        self.header().pool.as_ref().and_then(|pool| pool.index())
    }

    /// The pool that the buffer comes from, if any: to map it for a device that has not seen it yet. Counts a reference.
    #[must_use]
    pub fn pool_handle(&self) -> Option<super::DmaPool> {
        self.header().pool.clone().map(super::DmaPool::from)
    }

    /// Whether its bytes lie in memory that was set aside for devices ([`super::reserve_dma`]).
    #[inline]
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.header()
            .pool
            .as_ref()
            .is_some_and(|pool| pool.is_huge())
    }

    pub(crate) fn pool(&self) -> Option<&Arc<PoolInner>> {
        self.header().pool.as_ref()
    }
}

#[repr(align(4096))]
struct AlignedPage([u8; 0]);

impl Drop for DmaBuf {
    #[inline]
    fn drop(&mut self) {
        if self.capacity() == 0 {
            return;
        }
        let header = self.header_mut();
        match header.pool.take() {
            // From here on the header is the next holder's.
            Some(pool) => pool.give_back(header.slot),
            None => free_heap(self.header),
        }
    }
}

#[cold]
fn free_heap(header: NonNull<Header>) {
    // SAFETY: `alloc` made both allocations, the bytes with exactly this size and alignment, and by D1 nobody else holds them.
    unsafe {
        let header = Box::from_raw(header.as_ptr());
        dealloc(
            header.ptr.as_ptr(),
            Layout::from_size_align_unchecked(header.capacity as usize, PAGE),
        );
    }
}

impl fmt::Debug for DmaBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBuf")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("pool", &self.pool_index())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_zeroed_aligned_and_small_to_move() {
        let mut buf = DmaBuf::alloc(5000).unwrap();
        assert_eq!((buf.len(), buf.capacity()), (5000, 8192));
        assert_eq!(buf.as_ptr() as usize % PAGE, 0);
        assert!(buf.as_slice().iter().all(|b| *b == 0));
        buf.as_mut_slice()[4999] = 7;
        buf.set_len(8192);
        assert_eq!((buf.as_slice()[4999], buf.as_slice()[8191]), (7, 0));
        assert_eq!(size_of::<DmaBuf>(), 8);
        assert_eq!(size_of::<Option<DmaBuf>>(), 8);
        assert_eq!(size_of::<Header>(), 32);
    }

    #[test]
    fn an_empty_buffer_costs_nothing() {
        let mut buf = DmaBuf::empty();
        assert!(
            buf.is_empty()
                && buf.as_mut_slice().is_empty()
                && buf.as_ptr().addr().is_multiple_of(PAGE)
        );
        buf.set_len(0);
        assert_eq!(DmaBuf::alloc(0).unwrap().capacity(), 0);
    }

    #[test]
    fn too_much_is_an_error_not_an_abort() {
        assert_eq!(
            DmaBuf::alloc(1 << 40).unwrap_err(),
            OutOfMemory { bytes: 1 << 40 }
        );
        assert!(DmaBuf::alloc(usize::MAX).is_err());
    }

    #[test]
    #[should_panic(expected = "set_len(4097) on a DmaBuf with a capacity of 4096 bytes")]
    fn growing_beyond_the_capacity_panics() {
        DmaBuf::alloc(1).unwrap().set_len(4097);
    }
}
