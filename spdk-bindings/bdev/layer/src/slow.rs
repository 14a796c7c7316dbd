//! I/Os that took too long, each with the request that it was done for.

use core::fmt;
use core::time::Duration;
use std::sync::Arc;

use crate::Op;

/// An I/O that its device kept for as long as [`SlowIos::after`], or longer.
#[derive(Debug, Clone, Copy)]
pub struct SlowIo<'a> {
    /// The device's name.
    pub device: &'a str,
    /// What was done.
    pub op: Op,
    /// First block.
    pub lba: u64,
    /// How many blocks.
    pub blocks: u32,
    /// From the turn that submitted it to the one that saw its end.
    pub took: Duration,
    /// The request that the code worked for that submitted it (`spdk_thread::trace`); 0: none.
    pub trace: u64,
    /// It ended badly.
    pub failed: bool,
}

/// Who hears of slow I/Os, and from when on. They are told when they end (SPDK's `spdk_bdev_set_timeout` tells of those still out).
#[derive(Clone)]
pub struct SlowIos {
    /// What counts as slow.
    pub after: Duration,
    /// Called on the thread of the I/O, from its poller: it must not block.
    pub tell: Arc<dyn Fn(&SlowIo<'_>) + Send + Sync>,
}

impl SlowIos {
    /// Nanoseconds that an I/O may take; without a listener, any number.
    pub(crate) fn limit(this: Option<&SlowIos>) -> u64 {
        this.map_or(u64::MAX, |slow| {
            u64::try_from(slow.after.as_nanos()).unwrap_or(u64::MAX)
        })
    }
}

impl fmt::Debug for SlowIos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlowIos(after {:?})", self.after)
    }
}
