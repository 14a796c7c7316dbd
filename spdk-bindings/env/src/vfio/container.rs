#![allow(
    unsafe_code,
    reason = "gives memory to a device and keeps it mapped meanwhile (V2 of sys.rs)"
)]
//! A container: the I/O address space of one device, and what is mapped in it.

use core::ptr::NonNull;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sys;
use crate::dma::{DmaMemory, DmaPool, IovaTable, LARGE, Mapping, PAGE, PoolAddresses};

/// The first I/O address: above the interrupt range of x86 (0xfee0_0000), within every IOMMU.
const FIRST_IOVA: u64 = 1 << 32;

struct Space {
    next: u64,
    /// Length of each mapping, by I/O address.
    mapped: BTreeMap<u64, u64>,
    /// Container and group; `None`: given back, nothing is mapped any more, and nothing will be.
    fds: Option<Fds>,
}

struct Fds {
    // Dropped in this order: the kernel forgets the mappings with the last of the two, and only then pools may go.
    _group: OwnedFd,
    container: File,
}

/// The address space of a device. The group's descriptor keeps it attached.
pub(super) struct Container {
    // Dropped in this order: no pool goes while the kernel has it mapped.
    space: Mutex<Space>,
    pub(super) pools: IovaTable,
}

impl Container {
    pub(super) fn new(fd: File, group: OwnedFd) -> Container {
        Container {
            space: Mutex::new(Space {
                next: FIRST_IOVA,
                mapped: BTreeMap::new(),
                fds: Some(Fds {
                    _group: group,
                    container: fd,
                }),
            }),
            pools: IovaTable::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Space> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maps `[vaddr, vaddr + len)` for the device, aligned to `align` in its address space.
    ///
    /// # Safety
    /// The range stays mapped in the process until [`Container::unmap`] has succeeded, or for ever (V2).
    unsafe fn map(&self, vaddr: u64, len: usize, align: usize) -> io::Result<u64> {
        let mut space = self.lock();
        let Some(fds) = &space.fds else {
            return Err(io::Error::other("the device was cut off from memory"));
        };
        let full = || io::Error::other("the device's address space is full");
        let iova = space
            .next
            .checked_next_multiple_of(align.max(PAGE) as u64)
            .ok_or_else(full)?;
        let end = iova.checked_add(len as u64).ok_or_else(full)?;
        // SAFETY: by the caller's promise.
        unsafe { sys::map_dma(fds.container.as_fd(), vaddr, iova, len as u64) }?;
        space.next = end;
        space.mapped.insert(iova, len as u64);
        Ok(iova)
    }

    /// Takes one mapping away. True when the device does not reach it any more.
    fn unmap(&self, iova: u64) -> bool {
        let mut space = self.lock();
        let (Some(len), Some(fds)) = (space.mapped.get(&iova).copied(), &space.fds) else {
            // Taken away before, by `close`.
            return true;
        };
        let gone = sys::unmap_dma(fds.container.as_fd(), iova, len).is_ok();
        if gone {
            space.mapped.remove(&iova);
        }
        gone
    }

    /// Takes everything away, for good; then `let_go` gives up the device, and after it the group is given back. After an error the
    /// rest stays mapped, and may be tried again.
    ///
    /// In this order: once the device is given up the kernel may take its group from the container, which then knows no mappings.
    pub(super) fn close(&self, let_go: impl FnOnce()) -> io::Result<()> {
        let mut guard = self.lock();
        let space = &mut *guard;
        if let Some(fds) = &space.fds {
            while let Some((&iova, &len)) = space.mapped.first_key_value() {
                sys::unmap_dma(fds.container.as_fd(), iova, len)?;
                space.mapped.remove(&iova);
            }
        }
        let_go();
        space.fds = None;
        Ok(())
    }

    /// Memory for both.
    pub(super) fn alloc(
        self: &Arc<Self>,
        len: usize,
        align: usize,
        node: Option<u32>,
    ) -> io::Result<DmaMemory> {
        let out_of_memory = |error: crate::OutOfMemory| io::Error::other(error.to_string());
        let mapping = Mapping::for_dma(len, node).map_err(out_of_memory)?;
        let ptr = mapping.as_ptr();
        // SAFETY: `Lent` keeps the mapping until it was unmapped for the device, and for ever if that fails.
        let iova = unsafe { self.map(ptr.as_ptr() as u64, mapping.len(), align) }?;
        let owner = Lent {
            container: Arc::clone(self),
            iova,
            mapping: Some(mapping),
        };
        // SAFETY: D5: a new mapping that nobody else knows, page-aligned, kept by `owner`.
        Ok(unsafe { DmaMemory::from_raw(ptr, len, iova, Box::new(owner)) })
    }

    /// Lets the device reach a pool, which the table keeps from now on.
    pub(super) fn map_pool(&self, pool: &DmaPool) -> io::Result<()> {
        if self.pools.contains(pool) {
            return Ok(());
        }
        if pool.index().is_none() {
            return Err(io::Error::other(
                "the pool has no number: more than 64 pools exist",
            ));
        }
        let (ptr, len) = pool.span();
        // SAFETY: the table holds the pool, and with it its mapping, for as long as this container exists; the kernel forgets the
        // container's mappings when its descriptors are closed, which comes first (see the fields).
        let iova = unsafe { self.map(ptr.as_ptr() as u64, len, alignment(ptr, len)) }?;
        self.pools.insert(pool, PoolAddresses::Linear(iova));
        Ok(())
    }
}

/// Huge pages lie at a multiple of their size in both worlds, so that the IOMMU's tables stay small.
fn alignment(ptr: NonNull<u8>, len: usize) -> usize {
    if len >= LARGE && ptr.as_ptr().addr().is_multiple_of(LARGE) {
        LARGE
    } else {
        PAGE
    }
}

/// Memory that the device reaches.
struct Lent {
    container: Arc<Container>,
    iova: u64,
    mapping: Option<Mapping>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.container.unmap(self.iova) {
            #[expect(
                clippy::mem_forget,
                reason = "the device may write here at any time: the kernel did not take the mapping away"
            )]
            core::mem::forget(self.mapping.take());
        }
    }
}
