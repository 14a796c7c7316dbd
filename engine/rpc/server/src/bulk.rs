//! Memory for bulk data: a few bounded pools of DMA buffers, by size.

use spdk_env::{DmaBuf, DmaPool, OutOfMemory};

use crate::options::BulkClass;

/// A DMA buffer whose length is the bulk's: what a frame carries behind its body.
#[derive(Debug)]
pub(crate) struct Bulk(DmaBuf);

impl Bulk {
    /// The first `len` bytes of `buf`; a longer `len` is cut to the capacity.
    pub(crate) fn new(mut buf: DmaBuf, len: usize) -> Bulk {
        buf.set_len(len.min(buf.capacity()));
        Bulk(buf)
    }

    pub(crate) fn into_pair(self) -> (DmaBuf, usize) {
        let len = self.0.len();
        (self.0, len)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl AsRef<[u8]> for Bulk {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl AsMut<[u8]> for Bulk {
    fn as_mut(&mut self) -> &mut [u8] {
        self.0.as_mut_slice()
    }
}

/// The pools, smallest buffers first. A handle: clones share the buffers, on any xstream; taking and giving back are
/// lock-free.
#[derive(Clone, Debug)]
pub struct BulkPools {
    pools: Vec<DmaPool>,
}

impl BulkPools {
    /// Reserves the memory of all classes.
    pub fn new(classes: &[BulkClass]) -> Result<BulkPools, OutOfMemory> {
        let mut classes = classes.to_vec();
        classes.sort_by_key(|class| class.buffer_len);
        let pools = classes
            .iter()
            .map(|class| DmaPool::new(class.buffer_len, class.count))
            .collect::<Result<_, _>>()?;
        Ok(BulkPools { pools })
    }

    /// Longest bulk that can be received, bytes.
    pub(crate) fn max_len(&self) -> usize {
        self.pools.last().map_or(0, DmaPool::buf_len)
    }

    /// A buffer of the smallest class that fits and has one left; `None` = wait.
    pub(crate) fn get(&self, len: usize) -> Option<Bulk> {
        self.pools
            .iter()
            .filter(|pool| pool.buf_len() >= len)
            .find_map(DmaPool::get)
            .map(|buf| Bulk::new(buf, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_fitting_class_first_then_larger_then_none() {
        let classes = [
            BulkClass {
                buffer_len: 65536,
                count: 1,
            },
            BulkClass {
                buffer_len: 4096,
                count: 1,
            },
        ];
        let pools = BulkPools::new(&classes).unwrap();
        assert_eq!(pools.max_len(), 65536);
        let small = pools.get(100).unwrap();
        assert_eq!(small.len(), 100);
        let (buf, len) = small.into_pair();
        assert_eq!((buf.capacity(), len), (4096, 100));
        let large = pools.get(100).unwrap();
        assert!(pools.get(100).is_none());
        drop(large);
        assert_eq!(pools.get(5000).unwrap().len(), 5000);
        assert!(pools.get(65537).is_none());
    }
}
