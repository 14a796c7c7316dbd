//! Buffers that the device does not reach: mapped if they are of a pool, else copied through buffers that it does.

use std::sync::Arc;

use spdk_env::{DeviceBacking, DmaBuf, DmaPool};

/// Bounce buffers of a controller.
const COUNT: usize = 16;
/// Bytes of each: the longest I/O that the device takes.
pub(crate) const BYTES: usize = 1 << 20;

/// Bytes of a controller's bounce buffers.
pub const BOUNCE_MEMORY: usize = COUNT * BYTES;

/// The bounce buffers of a controller, shared by its channels. `Clone + Send + Sync`.
#[derive(Clone)]
pub(crate) struct Bounce {
    pool: DmaPool,
}

impl Bounce {
    /// Takes the memory and maps it.
    pub(crate) fn new<B: DeviceBacking>(backing: &B) -> Result<Bounce, String> {
        let pool =
            DmaPool::near(BYTES, COUNT, backing.numa_node()).map_err(|error| error.to_string())?;
        backing.map_pool(&pool).map_err(|error| error.to_string())?;
        Ok(Bounce { pool })
    }

    /// A buffer that the device reaches, with the bytes of `from` if they are to be written; `None` while all are in use.
    pub(crate) fn take(&self, from: &DmaBuf, copy: bool) -> Option<DmaBuf> {
        let mut buf = self.pool.get()?;
        buf.set_len(from.len().min(BYTES));
        if copy {
            let len = buf.len();
            buf.as_mut_slice().copy_from_slice(&from.as_slice()[..len]);
        }
        Some(buf)
    }
}

/// Which pools could not be mapped: tried once, bounced ever after.
#[derive(Default)]
pub(crate) struct Unmappable(u64);

impl Unmappable {
    /// Maps the pool of a buffer; true when the device reaches it now. Enters the kernel: once for each pool and channel.
    pub(crate) fn map<B: DeviceBacking>(&mut self, backing: &Arc<B>, buf: &DmaBuf) -> bool {
        let (Some(index), Some(pool)) = (buf.pool_index(), buf.pool_handle()) else {
            return false;
        };
        if self.0 & 1 << index != 0 {
            return false;
        }
        let mapped = backing.map_pool(&pool);
        if let Err(error) = &mapped {
            self.0 |= 1 << index;
            tracing::warn!(
                device = backing.address(),
                "I/O of a pool is copied, because it cannot be mapped: {error}"
            );
        }
        mapped.is_ok()
    }
}
