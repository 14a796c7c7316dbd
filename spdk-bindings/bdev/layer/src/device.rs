//! What a device implements.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use spdk_thread::Thread;
use uuid::Uuid;

use crate::{BdevError, CompletionSink, Geometry, Request};

/// A block device: what all threads share (SPDK: `struct spdk_bdev` with its function table).
pub trait Bdev: Send + Sync {
    /// The name that operators and configuration use; unique in a registry.
    fn name(&self) -> &str;

    /// Identity across restarts, where the device has one; else made up at creation.
    fn uuid(&self) -> Uuid;

    /// Size, shape and abilities. Does not change.
    fn geometry(&self) -> Geometry;

    /// What drives it: `null`, `malloc`, `file`, ...
    fn driver(&self) -> &'static str;

    /// Makes the calling thread's own way to the device. The layer calls it once per thread, on that thread.
    ///
    /// # Errors
    /// What the thread lacks (descriptors, memory, queue pairs).
    fn create_channel(&self, thread: &Thread) -> Result<Box<dyn BdevChannel>, BdevError>;
}

/// One thread's way to a device (SPDK: the I/O channel's context). Made, driven and dropped on that thread; it need not be
/// `Send`.
///
/// The layer promises: requests are valid; never more than [`BdevChannel::capacity`] are in flight; [`BdevChannel::poll`] is
/// called every turn while any is; the channel is dropped only when none is (except when the thread itself is torn down).
pub trait BdevChannel {
    /// Takes the I/O number `tag`, below [`BdevChannel::capacity`] and no other I/O's until it is completed. The request stays
    /// in the channel's table, where [`CompletionSink::request`] finds it; the device may take the buffer out, and must put it back
    /// before it completes. Cannot refuse: what goes wrong is the result of the completion, at the next poll at the earliest.
    fn submit(&mut self, tag: u32, request: &mut Request);

    /// Moves things on (one kernel entry or doorbell for all that was submitted since the last time) and tells `done` of
    /// every I/O that is finished. `now` is the thread's time in ns.
    fn poll(&mut self, now: u64, done: &mut CompletionSink<'_>);

    /// Whether I/Os are finished that the next poll will tell of. Asked by users that find nothing: they then have the device polled at once,
    /// instead of in the channel's own turn. Only for devices whose I/Os finish by themselves.
    fn has_finished(&self) -> bool {
        false
    }

    /// How many I/Os may be in flight.
    fn capacity(&self) -> u32;

    /// A descriptor that becomes readable when an I/O finishes, for a sleeping reactor.
    fn wake_fd(&self) -> Option<Rc<OwnedFd>> {
        None
    }

    /// The descriptor of [`BdevChannel::wake_fd`] was readable; called before the poll that follows. To empty it.
    fn clear_wake(&mut self) {}

    /// True when the thread's carrier wakes the thread for finished I/Os (C SPDK in interrupt mode), which then needs no descriptor here.
    fn wakes_by_carrier(&self) -> bool {
        false
    }

    /// True while something moves on only through [`BdevChannel::poll`] and no descriptor announces it. Asked while I/O
    /// is in flight; devices that wake nobody leave it as it is.
    fn needs_poll(&self) -> bool {
        true
    }
}
