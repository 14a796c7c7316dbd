//! The machine as the engine sees it: cores, time, DMA memory, wake-ups, kernel I/O. The only crate that maps memory
//! or talks to the kernel about devices.
//!
//! * [`Clock`]: monotonic nanoseconds from the time-stamp counter; [`ManualClock`] for tests.
//! * [`cpu::Topology`]: cores that this process may use, and binding an OS thread to one; [`core_lock`]: a lock per claimed core.
//! * [`DmaBuf`], [`DmaPool`]: owned, page-aligned buffers that travel with an I/O; [`SharedRegion`]: memory as a device.
//! * [`DeviceBacking`]: what a user-space driver needs of a device: registers, DMA memory, interrupts, the news that it is gone.
//!   [`IoSpace`] is the memory side of an emulated one.
//! * [`VfioDevice`]: a PCI device through VFIO. [`UioDevice`]: one through `uio_pci_generic`, without protection.
//! * [`Notifier`]: an eventfd that costs one load while nobody sleeps.
//! * [`CpuPause`]: a moment's wait that keeps the core.
//! * [`OsThread`], [`sample_stack`]: another OS thread of the process seen from outside.
//! * [`Uring`]: io_uring whose operations own their buffers.
//!
//! Neighbours: below it nothing of ours but `spdk_ring`; above it `spdk_reactor` and the block devices. SPDK: `lib/env_dpdk`.
//!
//! Thread rule: everything here may be used from any OS thread unless its type says otherwise.

mod bar;
mod clock;
pub mod core_lock;
pub mod cpu;
mod device;
mod dma;
pub mod file_lock;
mod manual_clock;
pub mod mmio;
mod notifier;
mod os_thread;
mod pause;
mod pci_command;
mod sigbus;
mod stack_sample;
mod uio;
mod uring;
mod vfio;

pub use clock::Clock;
pub use cpu::{CpuError, Topology};
pub use device::{BackingError, DeviceBacking};
pub use dma::{
    DmaBuf, DmaMemory, DmaNeed, DmaPool, HugePage, IoFault, IoSpace, IovaTable, OutOfMemory, PAGE,
    PoolAddresses, ReserveError, ReservedDma, Segment, SharedRegion, reserve_dma, reserved_dma,
};
pub use manual_clock::ManualClock;
pub use notifier::{Notifier, drain_eventfd, ring_eventfd, take_eventfd};
pub use os_thread::{OsThread, OsThreadTimes};
pub use pause::CpuPause;
pub use stack_sample::{STACK_BYTES, SampleError, StackSample, sample_stack};
pub use uio::{UioDevice, UioError};
pub use uring::{TaskRun, Uring, UringError, UringOp};
pub use vfio::{VfioDevice, VfioError};
