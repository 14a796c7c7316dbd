//! The functions of the table, by subject.

pub(crate) mod bdev;
pub(crate) mod buffer;
pub(crate) mod chore;
pub(crate) mod collective;
pub(crate) mod drpc;
pub(crate) mod iv;
pub(crate) mod metric;
pub(crate) mod poller;
pub(crate) mod query;
pub(crate) mod rpc;
pub(crate) mod sched;
pub(crate) mod sync;
pub(crate) mod task;
pub(crate) mod timer;
pub(crate) mod ult;
pub(crate) mod undelivered;
pub(crate) mod waker;
