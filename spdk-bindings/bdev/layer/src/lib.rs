//! What a block device is: registry, descriptor, per-thread channel, I/O, errors.
//!
//! A device implements [`Bdev`] (what all threads share: name, geometry) and [`BdevChannel`] (what one thread drives: for
//! a file its own io_uring, for NVMe its own queue pair). Everybody else sees, as in SPDK's `lib/bdev`:
//!
//! - [`Registry`]: the devices of the process by name; [`Registry::open`] gives a [`Descriptor`] (one writer at a time);
//! - [`Descriptor::get_channel`]: the calling thread's [`Channel`], shared by all that ask on that thread;
//! - [`IoQueue`]: the fast path: requests in, completions out, by value, without allocation, lock or reference count per I/O;
//! - [`Channel::read`] and its siblings: the same path as futures;
//! - [`Channel::watch_end`]: tells when the device was evicted or removed; who has it open then closes it and opens it again.
//!
//! The layer checks every request (range, length, buffer, mode, support) before a device sees it, counts I/O and errors
//! ([`Health`]), tells of slow ones and the requests they were done for ([`SlowIos`]), and routes completions. A buffer belongs to the operation until its completion: dropping a future, a queue
//! or a channel leaves the buffer with the device until the device is done.
//!
//! [`testing`] compares any device with a byte vector.
//!
//! Thread rule: `Registry` and `Descriptor` are used anywhere; `Channel` and `IoQueue` on the thread that made them only
//! (`!Send`). Below it: `spdk_thread` (pollers, I/O channels) and `spdk_env` (buffers). Above it: the device crates beside
//! it, and the engine.

mod channel;
mod device;
mod error;
mod geometry;
mod health;
mod life;
mod operation;
mod queue;
mod registry;
mod request;
mod slow;
mod table;
pub mod testing;

pub use channel::Channel;
pub use device::{Bdev, BdevChannel};
pub use error::{BdevError, BdevErrorKind, Reject, Rejected};
pub use geometry::Geometry;
pub use health::{Health, OpCounts};
pub use life::EndWatch;
pub use queue::{IoQueue, Ready};
pub use registry::{Descriptor, Mode, Registry};
pub use request::{Completion, Op, OpSet, Request};
pub use slow::{SlowIo, SlowIos};
pub use table::CompletionSink;
