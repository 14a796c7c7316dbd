//! The machine as the engine sees it: cores, time, DMA memory, wake-ups, kernel I/O. The only crate that maps memory
//! or talks to the kernel about devices.
//!
//! * [`Clock`]: monotonic nanoseconds from the time-stamp counter; [`ManualClock`] for tests.
//! * [`cpu::Topology`]: cores that this process may use, and binding an OS thread to one.
//! * [`DmaBuf`], [`DmaPool`]: owned, page-aligned buffers that travel with an I/O; [`SharedRegion`]: memory as a device.
//! * [`Notifier`]: an eventfd that costs one load while nobody sleeps.
//! * [`Uring`]: io_uring whose operations own their buffers.
//!
//! Neighbours: below it nothing of ours but `spdk_ring`; above it `spdk_reactor` and the block devices. SPDK: `lib/env_dpdk`.
//!
//! Thread rule: everything here may be used from any OS thread unless its type says otherwise.

mod clock;
pub mod cpu;
mod dma;
mod manual_clock;
mod notifier;
mod uring;

pub use clock::Clock;
pub use cpu::{CpuError, Topology};
pub use dma::{DmaBuf, DmaPool, OutOfMemory, PAGE, SharedRegion};
pub use manual_clock::ManualClock;
pub use notifier::Notifier;
pub use uring::{TaskRun, Uring, UringError, UringOp};
