//! NVMe namespaces as block devices.
//!
//! * [`NvmeDevice::attach`]: brings a controller up and keeps a thread of its own that looks after it: events, aborts, resets, health.
//! * [`NvmeDevice::bdev`]: one of its namespaces as a [`spdk_bdev::Bdev`]. Each thread that opens a channel gets a queue pair to
//!   itself; two namespaces on one thread use two.
//! * [`NvmeDevice::health`]: SMART page, error log, firmware slots, telemetry, driver troubles, what state it is in.
//!
//! I/O passes straight from the channel to the queue pair. Buffers of pools are mapped for the device when they are first seen;
//! buffers from the heap go through a bounce buffer. I/O longer than the controller takes is split by the driver.
//!
//! Neighbours: `spdk_nvme` (the driver) and `spdk_env` (the device) below, the block layer's contract beside it. SPDK:
//! `module/bdev/nvme`. Thread rule: [`NvmeDevice`] anywhere; its questions wait for the thread, so not on xstreams.
#![forbid(unsafe_code)]

mod bounce;
mod channel;
mod device;
mod manager;
mod namespace;

pub use bounce::BOUNCE_MEMORY;
pub use device::{DeviceHealth, NvmeDevice};
pub use nvme_spec::Status as NvmeStatus;
pub use nvme_spec::log::{ErrorLogEntry, FirmwareSlots, SmartLog, TelemetryHeader};
pub use spdk_nvme::{Event, Namespace, NvmeError, Options as DriverOptions, Troubles};
