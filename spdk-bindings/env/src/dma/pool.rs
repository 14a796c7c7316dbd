#![allow(
    unsafe_code,
    reason = "computes slot addresses inside the pool's mapping and hands out their headers (D1, D2, D7 of dma.rs)"
)]
//! [`DmaPool`]: a fixed number of equal buffers in one mapping, taken and given back without locks.

use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::buffer::Header;
use super::mapping::Mapping;
use super::{DmaBuf, OutOfMemory, PAGE};

/// Registered pools that may exist at once in a process; later pools work, unregistered.
pub(crate) const MAX_REGISTERED: usize = 64;

/// Bit i is set while a pool has index i.
static INDEXES: AtomicU64 = AtomicU64::new(0);

/// A bounded set of equal buffers (SPDK: `spdk_mempool` of iobufs). `Clone + Send + Sync`; any thread takes, any
/// thread drops. An empty pool answers `None`: back-pressure, never an allocation.
///
/// The pool's memory is one mapping; io_uring instances register it whole, so I/O on its buffers skips pinning pages per
/// request. The memory lives until the last buffer and the last instance that registered it are gone.
#[derive(Clone)]
pub struct DmaPool {
    inner: Arc<PoolInner>,
}

pub(crate) struct PoolInner {
    memory: Mapping,
    stride: usize,
    /// One for each slot; its buffer's while it is out.
    headers: Box<[UnsafeCell<Header>]>,
    free: ArrayQueue<u32>,
    index: Option<u16>,
}

// SAFETY: D7: a header is touched only by the holder of its buffer, and changes hands with the slot's number through `free`, which orders it.
unsafe impl Send for PoolInner {}
// SAFETY: as above.
unsafe impl Sync for PoolInner {}

impl DmaPool {
    /// `count` buffers of `buf_len` bytes each (rounded up to whole pages), in huge pages if they were set aside ([`super::reserve_dma`]).
    ///
    /// # Errors
    /// [`OutOfMemory`] when the mapping fails or the numbers overflow.
    pub fn new(buf_len: usize, count: usize) -> Result<DmaPool, OutOfMemory> {
        DmaPool::near(buf_len, count, None)
    }

    /// As [`DmaPool::new`], near the devices of a NUMA node.
    ///
    /// # Errors
    /// As there.
    pub fn near(buf_len: usize, count: usize, node: Option<u32>) -> Result<DmaPool, OutOfMemory> {
        let fail = OutOfMemory {
            bytes: buf_len.saturating_mul(count),
        };
        let stride = buf_len.max(1).checked_next_multiple_of(PAGE).ok_or(fail)?;
        let capacity = u32::try_from(stride).map_err(|_| fail)?;
        let slots = u32::try_from(count.max(1)).map_err(|_| fail)?;
        let memory = Mapping::for_dma(stride.checked_mul(slots as usize).ok_or(fail)?, node)?;
        let free = ArrayQueue::new(slots as usize);
        let header = |slot: u32| {
            // Cannot fail: the queue has room for every slot.
            let _ = free.push(slot);
            // SAFETY: the mapping has `slots` strides, so the offset lies inside (D2).
            let ptr = unsafe { memory.as_ptr().add(slot as usize * stride) };
            UnsafeCell::new(Header::of_slot(ptr, capacity, slot))
        };
        let headers = (0..slots).map(header).collect();
        let index = take_index();
        Ok(DmaPool {
            inner: Arc::new(PoolInner {
                memory,
                stride,
                headers,
                free,
                index,
            }),
        })
    }

    /// Takes a buffer with `len` = its full capacity and whatever bytes its last holder left; `None` when all are out.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<DmaBuf> {
        let slot = self.inner.free.pop()?;
        let header = self.inner.headers.get(slot as usize)?;
        let header = NonNull::new(header.get())?;
        // SAFETY: the slot was in the free list, so no buffer for it exists (D1, D7).
        Some(unsafe { DmaBuf::from_pool(header, Arc::clone(&self.inner)) })
    }

    /// Buffers that can be taken now (a snapshot: other threads take and give back).
    #[must_use]
    pub fn available(&self) -> usize {
        self.inner.free.len()
    }

    /// Buffers in all.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inner.headers.len()
    }

    /// Number under which the pool's memory is registered with rings and devices, as [`DmaBuf::pool_index`].
    #[must_use]
    pub fn index(&self) -> Option<u16> {
        self.inner.index()
    }

    /// Whether its memory consists of huge pages.
    pub(crate) fn is_huge(&self) -> bool {
        self.inner.is_huge()
    }

    /// The whole memory, to map for a device.
    pub(crate) fn span(&self) -> (NonNull<u8>, usize) {
        self.inner.span()
    }

    /// Bytes from the start of the pool's memory to a buffer of this pool.
    #[inline]
    pub(crate) fn offset_of(&self, buf: &DmaBuf) -> usize {
        buf.as_ptr().addr() - self.inner.memory.as_ptr().as_ptr().addr()
    }

    /// Bytes of each buffer.
    #[must_use]
    pub fn buf_len(&self) -> usize {
        self.inner.stride
    }
}

impl From<Arc<PoolInner>> for DmaPool {
    fn from(inner: Arc<PoolInner>) -> DmaPool {
        DmaPool { inner }
    }
}

impl PoolInner {
    #[inline]
    pub(crate) fn index(&self) -> Option<u16> {
        self.index
    }

    /// Whether its memory consists of huge pages.
    pub(super) fn is_huge(&self) -> bool {
        self.memory.is_huge()
    }

    /// The whole memory, to register with the kernel.
    pub(crate) fn span(&self) -> (NonNull<u8>, usize) {
        (self.memory.as_ptr(), self.memory.len())
    }

    #[inline]
    pub(super) fn give_back(&self, slot: u32) {
        let returned = self.free.push(slot);
        debug_assert!(returned.is_ok(), "more buffers came back than the pool has");
    }
}

impl Drop for PoolInner {
    fn drop(&mut self) {
        if let Some(index) = self.index {
            INDEXES.fetch_and(!(1 << index), Ordering::Relaxed);
        }
    }
}

fn take_index() -> Option<u16> {
    let mut used = INDEXES.load(Ordering::Relaxed);
    loop {
        let index = (!used).trailing_zeros();
        if index as usize >= MAX_REGISTERED {
            return None;
        }
        match INDEXES.compare_exchange_weak(
            used,
            used | 1 << index,
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            Ok(_) => return Some(index as u16),
            Err(now) => used = now,
        }
    }
}

impl fmt::Debug for DmaPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaPool")
            .field("buf_len", &self.buf_len())
            .field("count", &self.count())
            .field("available", &self.available())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_empty_pool_says_none_and_a_dropped_buffer_comes_back() {
        let pool = DmaPool::new(4096, 3).unwrap();
        let held: Vec<_> = (0..3).map(|_| pool.get().unwrap()).collect();
        assert_eq!(
            held.iter()
                .map(DmaBuf::as_ptr)
                .collect::<HashSet<_>>()
                .len(),
            3
        );
        assert!(pool.get().is_none());
        drop(held);
        assert_eq!(pool.available(), 3);
        assert!(pool.get().is_some());
    }

    #[test]
    fn buffers_outlive_the_pool_handle() {
        let pool = DmaPool::new(100, 1).unwrap();
        let mut buf = pool.get().unwrap();
        drop(pool);
        buf.as_mut_slice().fill(9);
        assert_eq!(buf.as_slice(), [9; 4096]);
    }

    #[test]
    fn a_new_pool_has_an_index_of_its_own() {
        let (a, b) = (
            DmaPool::new(4096, 1).unwrap(),
            DmaPool::new(4096, 1).unwrap(),
        );
        let (ia, ib) = (a.get().unwrap().pool_index(), b.get().unwrap().pool_index());
        assert!(ia.is_some() && ib.is_some() && ia != ib);
        assert_eq!(DmaBuf::alloc(1).unwrap().pool_index(), None);
    }

    #[test]
    fn four_threads_never_hold_the_same_buffer() {
        let pool = DmaPool::new(4096, 8).unwrap();
        std::thread::scope(|scope| {
            for id in 0..4u8 {
                let pool = pool.clone();
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        let Some(mut buf) = pool.get() else { continue };
                        buf.as_mut_slice()[..64].fill(id);
                        assert!(
                            buf.as_slice()[..64].iter().all(|b| *b == id),
                            "two holders of one buffer"
                        );
                    }
                });
            }
        });
        assert_eq!(pool.available(), 8);
    }
}
