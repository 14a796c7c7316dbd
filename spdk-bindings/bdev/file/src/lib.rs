//! A file or kernel block device through io_uring.
//!
//! [`FileBdev::open`] takes a file as it is: size, alignment and lock are checked, contents are never touched (formatting is the
//! business of whoever stores in it). `O_DIRECT` where the file system has it; otherwise through the page cache, where a
//! completed write is in memory until a flush or FUA, as it is with a disk's volatile cache. Each channel has an io_uring of
//! its own, with the file and the pools' buffers registered, one kernel entry per poll at most and none to reap; where
//! io_uring is missing or forbidden, a bounded set of I/O threads does `pread`, `pwrite` and `fdatasync` ([`Engine`]).
//!
//! | operation | becomes |
//! |---|---|
//! | read, write | `READ_FIXED`, `WRITE_FIXED` (pool buffers), `READ`, `WRITE` (others) |
//! | write with FUA | the same with `RWF_DSYNC` |
//! | write-zeroes | `fallocate(ZERO_RANGE)`, or writes of zeroes where the file system lacks it |
//! | unmap | `fallocate(PUNCH_HOLE)`, which is a discard on a block device |
//! | flush | `fdatasync` |
//!
//! Any thread may open; channels follow the rules of `spdk_bdev`. Neighbours: `spdk_bdev` (the contract), `spdk_env`
//! (`Uring`, `DmaBuf`).

mod device;
mod error;
mod identity;
mod io_threads;
mod lock;
mod open;
mod thread_channel;
mod uring_channel;

pub use device::FileBdev;
pub use error::OpenError;
pub use lock::Holder;
pub use open::{Engine, FileOptions};
