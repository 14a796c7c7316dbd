#![allow(
    unsafe_code,
    reason = "an emulated device reads and writes the memory that it was given (D6 of dma.rs)"
)]
//! [`IoSpace`]: the memory as an emulated device sees it, by I/O address.

use core::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::iova::{IovaTable, PoolAddresses, Segment};
use super::mapping::Mapping;
use super::region::copy;
use super::{DmaBuf, DmaMemory, DmaPool, OutOfMemory, PAGE};

/// An emulated device reached for memory that it was not given, or that was taken back: what an IOMMU would stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the device reached for {len} bytes at I/O address {iova:#x}, which it was not given")]
pub struct IoFault {
    /// The I/O address.
    pub iova: u64,
    /// How many bytes.
    pub len: usize,
}

/// Bits of an I/O address below the number of its range, so that no I/O address is ever a pointer by accident.
const RANGE_SHIFT: u32 = 40;

enum Range {
    /// Device memory; gone when the driver dropped it.
    Memory(Weak<Mapping>),
    Pool(DmaPool),
}

/// The memory side of an emulated device: gives out DMA memory and addresses as a real backing does, and lets the device use
/// them. Every access is checked; one outside is an [`IoFault`], as behind an IOMMU. `Send + Sync`.
#[derive(Default)]
pub struct IoSpace {
    table: IovaTable,
    ranges: Mutex<Vec<Range>>,
}

impl IoSpace {
    /// An empty space.
    #[must_use]
    pub fn new() -> IoSpace {
        IoSpace::default()
    }

    fn add(&self, range: Range) -> u64 {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        ranges.push(range);
        (ranges.len() as u64) << RANGE_SHIFT
    }

    /// Zeroed device memory, aligned to a page at least in both worlds.
    ///
    /// # Errors
    /// When the machine has no more.
    pub fn alloc(&self, len: usize) -> Result<DmaMemory, OutOfMemory> {
        let mapping = Arc::new(Mapping::new(len)?);
        let iova = self.add(Range::Memory(Arc::downgrade(&mapping)));
        // SAFETY: D5: the boxed `Arc` keeps the mapping, which is page-aligned and known to nobody else but this space.
        Ok(unsafe { DmaMemory::from_raw(mapping.as_ptr(), len, iova, Box::new(mapping)) })
    }

    /// Lets the device reach a pool; `false` for a pool without a number.
    pub fn map_pool(&self, pool: &DmaPool) -> bool {
        if self.table.contains(pool) {
            return true;
        }
        let iova = self.add(Range::Pool(pool.clone()));
        self.table.insert(pool, PoolAddresses::Linear(iova))
    }

    /// [`IovaTable::translate`].
    #[inline]
    #[must_use]
    pub fn translate(&self, buf: &DmaBuf, offset: usize) -> Option<Segment> {
        self.table.translate(buf, offset)
    }

    /// Takes everything away from the device: every later access is a fault.
    pub fn unmap_all(&self) {
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        for range in ranges.iter_mut() {
            *range = Range::Memory(Weak::new());
        }
    }

    /// Runs `access` on the address of `len` bytes at `iova`, whose memory stays mapped meanwhile.
    fn with(&self, iova: u64, len: usize, access: impl FnOnce(*mut u8)) -> Result<(), IoFault> {
        let fault = IoFault { iova, len };
        let number = (iova >> RANGE_SHIFT).checked_sub(1).ok_or(fault)?;
        let offset = (iova & ((1 << RANGE_SHIFT) - 1)) as usize;
        let inside = |start: NonNull<u8>, bytes: usize| {
            (len <= bytes && offset <= bytes - len)
                .then(|| start.as_ptr().wrapping_add(offset))
                .ok_or(fault)
        };
        let ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        match usize::try_from(number).ok().and_then(|n| ranges.get(n)) {
            Some(Range::Memory(memory)) => {
                let memory = memory.upgrade().ok_or(fault)?;
                access(inside(memory.as_ptr(), memory.len())?);
            }
            Some(Range::Pool(pool)) => {
                let (start, bytes) = pool.span();
                access(inside(start, bytes)?);
            }
            None => return Err(fault),
        }
        Ok(())
    }

    /// The device reads memory.
    ///
    /// # Errors
    /// [`IoFault`]; nothing was read.
    pub fn read(&self, iova: u64, to: &mut [u8]) -> Result<(), IoFault> {
        let len = to.len();
        // SAFETY: D6: `with` checked the range and keeps it mapped; `to` is exclusively ours.
        self.with(iova, len, |from| unsafe {
            copy::out(from, to.as_mut_ptr(), len);
        })
    }

    /// The device writes memory.
    ///
    /// # Errors
    /// [`IoFault`]; nothing was written.
    pub fn write(&self, iova: u64, from: &[u8]) -> Result<(), IoFault> {
        // SAFETY: D6: `with` checked the range and keeps it mapped; `from` is a slice of the device's own.
        self.with(iova, from.len(), |to| unsafe {
            copy::into(from.as_ptr(), to, from.len());
        })
    }
}

const _: () = assert!(PAGE.is_multiple_of(64));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_bytes() {
        let space = IoSpace::new();
        let memory = space.alloc(8192).unwrap();
        memory.write_words(64, &[1, 2, 3]);
        let mut seen = [0; 24];
        space.read(memory.iova() + 64, &mut seen).unwrap();
        assert_eq!((seen[0], seen[8], seen[16]), (1, 2, 3));
        space
            .write(memory.iova() + 8, &0xabcd_u64.to_le_bytes())
            .unwrap();
        assert_eq!((memory.read_u64(8), memory.read_u32(8)), (0xabcd, 0xabcd));
        memory.clear();
        assert_eq!(memory.read_u64(64), 0);
    }

    #[test]
    fn a_pool_is_reached_at_its_translated_address() {
        let space = IoSpace::new();
        let pool = DmaPool::new(4096, 2).unwrap();
        let buf = pool.get().unwrap();
        assert_eq!(space.translate(&buf, 0), None);
        assert!(space.map_pool(&pool) && space.map_pool(&pool));
        let at = space.translate(&buf, 100).unwrap();
        assert_eq!(at.len, 3996);
        space.write(at.iova, b"hello").unwrap();
        assert_eq!(&buf.as_slice()[100..105], b"hello");
    }

    #[test]
    fn what_was_not_given_or_was_taken_back_is_a_fault() {
        let space = IoSpace::new();
        let memory = space.alloc(4096).unwrap();
        let iova = memory.iova();
        for (at, len) in [
            (0, 1),
            (iova + 4096, 1),
            (iova + 4000, 100),
            (iova * 9, 1),
            (u64::MAX, 1),
        ] {
            assert_eq!(
                space.read(at, &mut vec![0; len]),
                Err(IoFault { iova: at, len })
            );
        }
        drop(memory);
        assert!(space.write(iova, &[1]).is_err(), "dropped by the driver");
        let mut leaked = space.alloc(64).unwrap();
        let iova = leaked.iova();
        leaked.leak();
        assert_eq!(
            space.write(iova, &[1]),
            Ok(()),
            "a leaked range stays for ever"
        );
        space.unmap_all();
        assert!(space.write(iova, &[1]).is_err());
    }
}
