//! [`FaultBdev`].

use core::fmt;
use std::sync::Arc;

use spdk_bdev::{Bdev, BdevChannel, BdevError, Geometry};
use spdk_thread::Thread;
use uuid::Uuid;

use crate::cache::Cache;
use crate::channel::FaultChannel;
use crate::control::{FaultControl, Shared};

/// Bytes that the volatile cache holds; a write beyond them is put on the device at once.
const CACHE: usize = 64 << 20;

/// A device that fails on demand.
pub struct FaultBdev {
    name: Arc<str>,
    inner: Arc<dyn Bdev>,
    shared: Arc<Shared>,
    volatile: bool,
}

impl FaultBdev {
    /// Wraps `inner` as the device `name`; `seed` decides what rules with a probability hit. Without rules it does what `inner`
    /// does.
    #[must_use]
    pub fn new(name: &str, inner: Arc<dyn Bdev>, seed: u64) -> FaultBdev {
        FaultBdev {
            name: name.into(),
            inner,
            shared: Arc::new(Shared::new(seed, None)),
            volatile: false,
        }
    }

    /// The same with a volatile write cache of 64 MiB: a write without FUA is acknowledged at once and reaches `inner` with the
    /// next flush.
    #[must_use]
    pub fn with_volatile_cache(name: &str, inner: Arc<dyn Bdev>, seed: u64) -> FaultBdev {
        let cache = Cache::new(inner.geometry().block_size as usize, CACHE);
        FaultBdev {
            name: name.into(),
            inner,
            shared: Arc::new(Shared::new(seed, Some(cache))),
            volatile: true,
        }
    }

    /// The handle that changes it.
    #[must_use]
    pub fn control(&self) -> FaultControl {
        FaultControl {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Bdev for FaultBdev {
    fn name(&self) -> &str {
        &self.name
    }

    fn uuid(&self) -> Uuid {
        self.inner.uuid()
    }

    fn geometry(&self) -> Geometry {
        let inner = self.inner.geometry();
        Geometry {
            volatile_write_cache: inner.volatile_write_cache || self.volatile,
            ..inner
        }
    }

    fn driver(&self) -> &'static str {
        "fault"
    }

    fn create_channel(&self, thread: &Thread) -> Result<Box<dyn BdevChannel>, BdevError> {
        let inner = self.inner.create_channel(thread)?;
        let channel = FaultChannel::new(
            Arc::clone(&self.name),
            inner,
            Arc::clone(&self.shared),
            self.inner.geometry(),
        );
        Ok(Box::new(channel))
    }
}

impl fmt::Debug for FaultBdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultBdev({:?} over {:?})", self.name, self.inner.name())
    }
}
