//! The libspdk provider: C SPDK where the native one is our own code. Empty without the feature `libspdk`.
//!
//! * [`SpdkThreads`]: gives each of our threads a thread of SPDK's, on whose ring messages travel and which calls all pollers.
//! * [`SpdkBdev`]: a block device of SPDK's, with a channel of its own for each thread.
//!
//! Neighbours: `spdk_sys` (C SPDK, safely), `spdk_thread` and `spdk_bdev` (what is provided). The seam and its reasons:
//! `docs/decisions/0050-libspdk-provider.md`. No unsafe code here.
#![cfg(feature = "libspdk")]

mod bdev;
mod bounce;
mod channel;
mod ssd;
mod threads;

pub use bdev::SpdkBdev;
pub use spdk_sys::{Bdev, Event, OpenError, Options, Registered, Spdk, StartError, WeakSpdk};
pub use ssd::{Ssd, SsdHealth};
pub use threads::SpdkThreads;
