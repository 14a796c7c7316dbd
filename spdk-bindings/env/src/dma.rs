//! Memory that a device may read and write: owned buffers, pools of them, and shared regions.
//!
//! SPDK's `spdk_dma_malloc` hands out raw pointers; here a [`DmaBuf`] is a value. Whoever holds it owns its bytes;
//! giving it to a device gives the bytes away until the completion brings them back, so no future, task or channel that
//! is dropped in the middle can free memory that the kernel or a controller still writes.
//!
//! Rules that the `unsafe` sites of this module rest on:
//!
//! - **D1 exclusive**: at any time one `DmaBuf` value exists for the bytes `[ptr, ptr + capacity)`; it is not `Clone`, and
//!   a pool hands a slot out only after the previous holder's `DmaBuf` was dropped.
//! - **D2 alive**: those bytes stay mapped while the `DmaBuf` exists: a heap buffer owns its allocation, a pool buffer
//!   holds a reference to the pool's mapping.
//! - **D3 initialised**: the bytes were zeroed by the allocator or the kernel before the first hand-out and only ever
//!   overwritten with bytes since; any `u8` pattern is valid.
//! - **D4 raw region**: the bytes of a [`SharedRegion`] are never covered by a Rust reference. They are touched only by
//!   the copy routines of `region.rs`, whose accesses to the shared side are single machine accesses that may race, as a
//!   device's would.
//! - **D5 device memory**: the bytes of a [`DmaMemory`] are never covered by a Rust reference either. The driver touches them
//!   as relaxed atomics and racing copies, the device as it pleases; `owner` keeps them mapped while the value exists.
//! - **D6 emulated access**: [`IoSpace`] reaches memory only through ranges that it knows and whose memory it holds or can
//!   revive (`Weak`), with the copies of D4. Into a `DmaBuf` it reaches only as hardware would: because its driver gave the
//!   buffer away with a command and owns it until the completion, during which nobody holds a reference to the bytes (D1).
//! - **D7 header**: a `DmaBuf` points to a header that is alive while it exists and that nobody else reads or writes (D1): a heap buffer owns
//!   it, a pool buffer's lies in the pool, which it holds a reference to; it changes hands with the slot's number through the pool's free list.
//!   That of buffers without bytes is shared and only read.

mod arena;
mod buffer;
mod device_memory;
mod huge;
mod io_space;
mod iova;
mod mapping;
mod pool;
mod ranges;
mod region;
mod reserve;

pub(crate) use arena::LARGE;
pub use buffer::{DmaBuf, OutOfMemory, PAGE};
pub use device_memory::DmaMemory;
pub use huge::HugePage;
pub use io_space::{IoFault, IoSpace};
pub use iova::{IovaTable, PoolAddresses, Segment};
pub(crate) use mapping::Mapping;
pub use pool::DmaPool;
pub(crate) use pool::{MAX_REGISTERED, PoolInner};
pub use region::SharedRegion;
pub use reserve::{DmaNeed, ReserveError, ReservedDma, reserve_dma, reserved_dma};
