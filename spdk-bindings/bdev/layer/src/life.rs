//! One life of a device: from its registration or its return until it is evicted or removed.
//!
//! What was opened in one life stays dead in the next: its holder does not know which of its last writes arrived, so it has to open
//! again and read what is there. SPDK: `SPDK_BDEV_EVENT_REMOVE`, after which a descriptor is only closed.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Waker;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;
use spdk_thread::{IoDevice, Thread};
use uuid::Uuid;

use crate::channel::{self, ChannelCore};
use crate::health::HealthBook;
use crate::{Bdev, BdevChannel, BdevError, BdevErrorKind, Geometry};

/// A device as it is now.
pub(crate) struct Life {
    pub(crate) bdev: Arc<dyn Bdev>,
    pub(crate) end: Arc<End>,
    pub(crate) io_device: IoDevice<ChannelCore>,
}

impl Life {
    pub(crate) fn begin(name: &Arc<str>, health: &Arc<HealthBook>, bdev: Arc<dyn Bdev>) -> Life {
        let end = Arc::<End>::default();
        let facts = channel::Facts {
            name: Arc::clone(name),
            health: Arc::clone(health),
            bdev: Arc::clone(&bdev),
            end: Arc::clone(&end),
        };
        Life {
            io_device: channel::io_device(facts),
            bdev,
            end,
        }
    }
}

/// Whether a life is over, and who wants to hear of it.
#[derive(Default)]
pub(crate) struct End {
    over: AtomicBool,
    waiting: Mutex<Slab<Option<Waker>>>,
}

impl End {
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn waiting(&self) -> MutexGuard<'_, Slab<Option<Waker>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it. Once is enough.
    pub(crate) fn end(&self) {
        let wakers: Vec<Waker> = {
            let mut waiting = self.waiting();
            // Under the lock: who looks and then waits does not miss it.
            self.over.store(true, Ordering::Release);
            let wakers = waiting.iter_mut().filter_map(|(_, waker)| waker.take());
            wakers.collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Tells one holder of a channel when its device is evicted or removed. Any thread.
pub struct EndWatch {
    end: Arc<End>,
    key: usize,
}

impl EndWatch {
    pub(crate) fn new(end: &Arc<End>) -> EndWatch {
        let key = end.waiting().insert(None);
        EndWatch {
            end: Arc::clone(end),
            key,
        }
    }

    /// True when the device is gone for what was opened before, for ever. Else the waker, which takes the place of the one before, is woken when
    /// it is.
    pub fn is_over(&self, waker: Option<&Waker>) -> bool {
        let mut waiting = self.end.waiting();
        let over = self.end.is_over();
        if let (false, Some(waker), Some(place)) = (over, waker, waiting.get_mut(self.key)) {
            *place = Some(waker.clone());
        }
        over
    }
}

impl Drop for EndWatch {
    fn drop(&mut self) {
        self.end.waiting().try_remove(self.key);
    }
}

impl fmt::Debug for EndWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndWatch(over: {})", self.end.is_over())
    }
}

/// Stands where a device was that has been removed, and keeps nothing of it alive.
pub(crate) struct Withdrawn {
    name: String,
    uuid: Uuid,
    geometry: Geometry,
    driver: &'static str,
}

impl Withdrawn {
    pub(crate) fn of(bdev: &dyn Bdev) -> Withdrawn {
        Withdrawn {
            name: bdev.name().to_owned(),
            uuid: bdev.uuid(),
            geometry: bdev.geometry(),
            driver: bdev.driver(),
        }
    }
}

impl Bdev for Withdrawn {
    fn name(&self) -> &str {
        &self.name
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn driver(&self) -> &'static str {
        self.driver
    }

    fn create_channel(&self, _thread: &Thread) -> Result<Box<dyn BdevChannel>, BdevError> {
        let device = self.name.clone();
        Err(BdevErrorKind::Gone { device }.into())
    }
}
