//! One target's store: log, index, extents, checksums, recovery.
//!
//! A [`Store`] keeps byte objects in pools and containers on one [`BlockDev`]. Whatever an operation acknowledged
//! survives power loss: data is flushed before the log record that names it, the record is durable before the reply, and
//! the index in memory changes only then, so readers never see what could still vanish. `docs/internals/store.md`
//! describes the format on the device and what each kind of damage leads to.
//!
//! - [`Store`]: format, open, close; pools and containers (`meta_ops`), objects (`put`, `upload`, `get`, `scrub`);
//! - [`BlockDev`], [`Buf`]: what a device and its buffers must offer;
//! - [`StoreError`]: every failure, with its `DER` number;
//! - `log`, `checkpoint`, `replay`, `frame`, `record`: the metadata log in its two halves;
//! - `index`, `extent`: what the log says, in memory.
//!
//! Neighbours: the `obj` module opens one store per target over the block layer and speaks RPC on top of it.
//! Thread rule: everything is `!Send` and lives on one xstream; any number of operations may be in flight on it. A
//! dropped operation future leaks the blocks that it had reserved until the next open, never more.

mod checkpoint;
mod codec;
mod device;
mod error;
mod extent;
mod flush;
mod format;
mod frame;
mod get;
mod index;
mod log;
mod meta_ops;
mod put;
mod record;
mod replay;
mod scrub;
mod store;
mod superblock;
mod sync;
mod upload;

pub use device::{BlockDev, Buf, DevError, Geometry, UNIT};
pub use error::{DataDamage, NoSpace, StoreError};
pub use format::{FormatOptions, OpenOptions, probe};
pub use get::{ObjectInfo, Page, PieceData};
pub use index::{ContainerInfo, PoolInfo};
pub use put::{CSUM_CHUNK, PIECE_MAX, Payload};
pub use scrub::{ScrubCursor, Scrubbed};
pub use store::{OpenReport, Space, Stats, Store, TaskFuture};
pub use superblock::Superblock;
pub use upload::Reclaim;
