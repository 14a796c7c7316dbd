//! An emulated NVMe controller that lives in the process and does wrong on request.
//!
//! [`FakeController`] is two things. For a driver it is a [`spdk_env::DeviceBacking`]: registers, DMA memory, interrupts, removal.
//! For a test or benchmark it is a device that moves when told to ([`FakeController::step`]) or on a thread of its own
//! ([`FakeController::run`]), whose media, events and faults can be reached from outside.
//!
//! * [`FakeOptions`], [`NamespaceOptions`]: what the controller is.
//! * [`Fault`], [`RegisterFault`]: what it does wrong, to which command, how often.
//! * [`Observed`]: what the driver did, as the device saw it; DMA outside of what it was given is counted, as an IOMMU would.
//!
//! It implements what a driver may use of NVMe 1.4 over PCI Express: admin queue, I/O queues, identify, namespaces, formats,
//! PRP and SGL, shadow doorbells, asynchronous events, log pages, features, volatile write cache, shutdown. It reads the
//! specification and `spdk_env`, and does not know the driver.
//!
//! Thread rule: `Clone + Send + Sync`; a step holds a lock.
#![forbid(unsafe_code)]

mod admin;
mod backing;
mod controller;
mod data;
mod device;
mod events;
mod io;
mod media;
mod options;
mod queue;
mod registers;
mod script;

pub use controller::{FakeController, Observed, Running};
pub use options::{CompletionOrder, FakeOptions, NamespaceOptions};
pub use registers::FakeRegisters;
pub use script::{Fault, Match, RegisterFault, Wrong};
