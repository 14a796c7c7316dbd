//! [`IovaTable`]: where a device finds the buffers of the pools that it was given.

use std::sync::OnceLock;

use super::{DmaBuf, DmaPool, MAX_REGISTERED, PAGE};

/// Bytes that are contiguous for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Address of the first byte in the device's address space.
    pub iova: u64,
    /// How many.
    pub len: usize,
}

/// How a pool's memory looks to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolAddresses {
    /// One run from this address (an IOMMU).
    Linear(u64),
    /// A run for each `1 << shift` bytes of the pool (physical addresses of huge pages), in order. `shift` is at least that
    /// of a page.
    Pages {
        /// Power of two of the run's length.
        shift: u32,
        /// Address of each run.
        addresses: Box<[u64]>,
    },
}

struct Entry {
    /// Keeps the memory mapped and the number taken while the device can reach it.
    pool: DmaPool,
    addresses: PoolAddresses,
}

/// The pools that a device reaches, by [`DmaBuf::pool_index`]. Looked up without locks.
pub struct IovaTable {
    entries: [OnceLock<Entry>; MAX_REGISTERED],
}

impl Default for IovaTable {
    fn default() -> IovaTable {
        IovaTable {
            entries: [const { OnceLock::new() }; MAX_REGISTERED],
        }
    }
}

impl IovaTable {
    /// Whether the pool is in the table.
    #[must_use]
    pub fn contains(&self, pool: &DmaPool) -> bool {
        pool.index()
            .and_then(|index| self.entries[index as usize].get())
            .is_some()
    }

    /// Adds a pool; `false` when it has no number and so cannot be found again. A pool that is in the table keeps its addresses.
    pub fn insert(&self, pool: &DmaPool, addresses: PoolAddresses) -> bool {
        let Some(index) = pool.index() else {
            return false;
        };
        self.entries[index as usize].get_or_init(|| Entry {
            pool: pool.clone(),
            addresses,
        });
        true
    }

    /// The contiguous bytes of `buf` from `offset` on; `None` when the pool is not here or `offset` is not below the capacity.
    #[inline]
    #[must_use]
    pub fn translate(&self, buf: &DmaBuf, offset: usize) -> Option<Segment> {
        let entry = self.entries[buf.pool_index()? as usize].get()?;
        if offset >= buf.capacity() {
            return None;
        }
        let left = buf.capacity() - offset;
        let from_start = entry.pool.offset_of(buf) + offset;
        Some(match &entry.addresses {
            PoolAddresses::Linear(base) => Segment {
                iova: base + from_start as u64,
                len: left,
            },
            PoolAddresses::Pages { shift, addresses } => {
                let run = 1usize << shift;
                let within = from_start & (run - 1);
                Segment {
                    iova: addresses.get(from_start >> shift)? + within as u64,
                    len: left.min(run - within),
                }
            }
        })
    }
}

const _: () = assert!(PAGE == 1 << 12, "NVMe memory pages are pages of buffers");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_found_by_its_pool_and_place() {
        let table = IovaTable::default();
        let pool = DmaPool::new(8192, 4).unwrap();
        let bufs: Vec<_> = (0..4).map(|_| pool.get().unwrap()).collect();
        assert_eq!(table.translate(&bufs[0], 0), None, "not mapped yet");
        assert!(table.insert(&pool, PoolAddresses::Linear(0x10_0000)));
        let found =
            |buf: usize, offset| table.translate(&bufs[buf], offset).map(|s| (s.iova, s.len));
        assert_eq!(found(0, 0), Some((0x10_0000, 8192)));
        assert_eq!(found(2, 4096), Some((0x10_5000, 4096)));
        assert_eq!(found(2, 8192), None);
        assert_eq!(table.translate(&DmaBuf::alloc(1).unwrap(), 0), None);
    }

    #[test]
    fn a_run_ends_with_its_huge_page() {
        let table = IovaTable::default();
        let pool = DmaPool::new(3 * 4096, 2).unwrap();
        let (_first, second) = (pool.get().unwrap(), pool.get().unwrap());
        let addresses: Box<[u64]> = vec![0x8000, 0x2000, 0xa_0000].into();
        assert!(table.insert(
            &pool,
            PoolAddresses::Pages {
                shift: 13,
                addresses
            }
        ));
        // The second buffer starts at byte 12,288 of the pool: in the middle of the second run of 8 KiB.
        let at = |offset| table.translate(&second, offset).map(|s| (s.iova, s.len));
        assert_eq!(at(0), Some((0x3000, 4096)));
        assert_eq!(at(4096), Some((0xa_0000, 8192)));
        assert_eq!(at(5000), Some((0xa_0000 + 904, 8192 - 904)));
    }
}
