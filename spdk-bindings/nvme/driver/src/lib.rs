//! NVMe driver in user space: controllers, queue pairs, time-outs and resets, over any [`spdk_env::DeviceBacking`].
//!
//! * [`Controller`]: bring-up, identify, namespaces, events, logs, resets, shutdown. Polled by its owner every few milliseconds.
//! * [`QueuePair`]: one thread's submission and completion queue; reads, writes, flushes, deallocates. The I/O path. Made from
//!   a [`QueueSeed`] on the thread that polls it.
//! * [`Io`], [`Done`]: an I/O and its end. The buffer belongs to the I/O until then, and longer if the device cannot be stopped.
//! * [`Namespace`]: size, block size, why it is not used. [`Options`]: depths and times.
//!
//! A command that takes too long is aborted; if that does not help the controller is reset and the command tried again; when
//! retries or resets are used up the I/O fails. Memory is freed only when the device has let go of it: a completion, a
//! disabled controller (CSTS.RDY 0), a deleted queue, or a device cut off from memory.
//!
//! It knows no thread and no block layer: `now` is a parameter, and `poll` is called by whoever wants progress. SPDK: `lib/nvme`.
//! `docs/internals/nvme.md` has the pictures.
//!
//! Thread rule: a `Controller` and a `QueuePair` stay on the thread that made them (`!Send`); they talk to each other through atomics.
#![forbid(unsafe_code)]

mod admin;
mod bring_up;
mod command_table;
mod controller;
mod data_pointer;
mod doorbell;
mod error;
mod inspect;
mod io;
mod life;
mod namespace;
mod options;
mod queue_pair;
mod retry;
mod shared;

pub use controller::{Controller, ControllerState, Event, QueuePairs, Troubles};
pub use error::{IoError, NvmeError, NvmeErrorKind, Refusal};
pub use io::{Done, Io, IoKind};
pub use namespace::{IoTarget, Namespace};
pub use options::Options;
pub use queue_pair::{QueuePair, QueueSeed, QueueStats};
pub use shared::ResetReason;
