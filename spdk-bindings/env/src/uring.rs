//! Kernel I/O through io_uring with owned buffers.
//!
//! A [`Uring`] belongs to one OS thread (SPDK: one ring per I/O channel). Callers give a [`crate::DmaBuf`] with each
//! operation and get it back with the completion; while the kernel works on it, it sits in the ring's slot table where no
//! dropped future can reach it.
//!
//! Rules that the `unsafe` sites of this module rest on:
//!
//! - **U1 buffers outlive operations**: an entry pushed to the submission queue points only into the `DmaBuf` of its own
//!   slot, and a slot gives its buffer up only when the completion with its number has been seen. A `Uring` that is
//!   dropped waits for all completions, and if they do not come leaks the buffers.
//! - **U2 registered memory outlives the ring**: the ring keeps a reference to every pool whose memory it registered.
//! - **U3 descriptors outlive operations**: files are registered, so the kernel holds a reference of its own.

mod ring;
mod setup;

pub use ring::{Uring, UringOp};
pub use setup::{TaskRun, UringError};
