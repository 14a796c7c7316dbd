//! C SPDK behind safe types. Empty without the feature `libspdk`.
//!
//! * [`Spdk`]: the process's one SPDK: environment, subsystems and the thread that looks after them. [`Options`]: what it takes.
//! * [`Thread`]: an SPDK thread on the OS thread that started it; [`Address`]: where others send it messages.
//! * [`Poller`]: a function that a thread calls. [`DmaMemory`]: memory that devices reach; [`Registered`]: of the process's own.
//! * [`Bdev`]: an open block device, with its events; [`Channel`]: one thread's way to it.
//!
//! Neighbours: `spdk_env` (the buffers that I/O carries) and `spdk_ring` (the slots that messages lie in) below; providers above. It knows
//! neither the engine's threads nor its block layer.
//!
//! What Rust calls are the functions of `shim/`, a few hundred lines of C that are compiled against the installed headers: no layout
//! of SPDK's is written down here.
//!
//! Thread rule: [`Thread`], [`Poller`] and [`Channel`] stay on the OS thread that made them (`!Send`); the rest may be used from any.
//! What SPDK checks with an assertion or not at all is checked here: thread, bounds, ends of life.
#![cfg(feature = "libspdk")]

mod admin;
mod app;
mod bdev;
mod channel;
mod dma;
mod env;
mod error;
mod ffi;
mod log;
mod poller;
mod registered;
mod spdk;
mod thread;

pub use bdev::{Bdev, Event, Facts};
pub use channel::{Channel, Finished, Op, Refused};
pub use dma::DmaMemory;
pub use env::Options;
pub use error::{OpenError, StartError, StillHeld};
pub use poller::Poller;
pub use registered::Registered;
pub use spdk::{Spdk, WeakSpdk};
pub use thread::{Address, Current, Seed, SendError, Thread, Turn};
