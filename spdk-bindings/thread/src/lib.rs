//! SPDK's lightweight thread: a mailbox, pollers, I/O channels and tasks that run in turns on one OS thread.
//!
//! * [`Thread`]: lives on one OS thread; [`Thread::poll`] is one turn. [`ThreadHandle`]: its address for other cores.
//! * [`Poller`]: a function called every turn, or every so many nanoseconds.
//! * [`JoinHandle`]: a task (async ULT); [`sleep`], [`timeout`], [`yield_now`]; [`sync`] for tasks that wait for each other.
//! * [`IoDevice`], [`IoChannel`]: a thread's private handle on a device.
//! * [`FdWatch`]: a descriptor that the reactor's epoll watches.
//! * [`Provider`], [`Carrier`]: C SPDK's thread under ours, where messages and pollers are its.
//! * [`testing`]: several threads stepped on one OS thread, under a clock turned by hand.
//!
//! Neighbours: `spdk_ring` below; `spdk_reactor` polls threads and lends them its epoll; the block layer and the
//! xstreams build on channels, pollers and tasks. No operating system and no clock in here: `now` comes in as a
//! parameter, which is what makes stepping and simulation possible.
//!
//! Thread rule: everything is own-thread-only (`!Send`) except [`ThreadHandle`], [`ThreadSeed`], [`IoDevice`] and the
//! senders of [`sync::remote_oneshot`]. `docs/internals/thread.md` has the turn, the bounds and the exit handshake.

mod carrier;
mod channel;
mod current;
mod deadline_heap;
mod fd_watch;
mod handle;
mod mailbox;
mod options;
mod panics;
mod poller;
mod pulse;
mod scope;
pub mod sync;
mod task;
pub mod testing;
mod thread;

pub use carrier::{Carried, CarriedPoller, CarriedTurn, Carrier, CarrierSeed, Outbox, Provider};
pub use channel::{ChannelError, IoChannel, IoDevice};
pub use current::{current, running_task, trace, traced};
pub use fd_watch::{FdChange, FdWatch, Interest};
pub use handle::{CarryError, SendError, ThreadHandle};
pub use options::{ThreadOptions, Wake};
pub use poller::{Period, PollResult, Poller, PollerInfo};
pub use pulse::PulseReading;
pub use scope::Scope;
pub use spdk_ring::{Unit, UnitKind};
pub use task::{
    CycleStats, Elapsed, JoinError, JoinHandle, Quiet, Sleep, SpawnError, TaskInfo, TaskState,
    TaskWaker, YieldNow, quiet, sleep, sleep_until, timeout, yield_now,
};
pub use thread::{Thread, ThreadSeed, ThreadStats, Turn};
