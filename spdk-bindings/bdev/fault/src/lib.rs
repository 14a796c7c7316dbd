//! Delays, errors, torn and lost writes, wrapped round any other device.
//!
//! [`FaultBdev`] passes I/O on to the device underneath it, except where a [`Rule`] says otherwise: by operation, range, count
//! and probability (seeded), an I/O is delayed, held, failed, torn or lost. With a volatile cache, writes are acknowledged
//! while they are only in memory; a flush or FUA puts them on the device underneath, and [`FaultControl::power_cut`] drops the
//! others. [`FaultControl`] changes all of it while I/O runs, from any thread.
//!
//! For tests of what is above: stores, the engine, demonstrations. Not fast (it locks). Neighbour: `spdk_bdev`, whose thread
//! rules its channels follow.

mod cache;
mod channel;
mod control;
mod device;
mod rule;

pub use cache::Unflushed;
pub use control::{FaultControl, PowerCut};
pub use device::FaultBdev;
pub use rule::{Effect, Rule, RuleId};
