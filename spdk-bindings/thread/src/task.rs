//! Tasks: the async user-level threads of a thread.

mod body;
mod cycle;
mod join;
mod quiet;
mod sleep;
mod slot;
mod table;
mod wake_set;
mod waker;
mod yield_now;

pub use cycle::CycleStats;
pub use join::{JoinError, JoinHandle};
pub use quiet::{Quiet, quiet};
pub use sleep::{Elapsed, Sleep, sleep, sleep_until, timeout};
pub use table::{SpawnError, TaskInfo, TaskState};
pub use waker::TaskWaker;
pub use yield_now::{YieldNow, yield_now};

pub(crate) use sleep::SleepTable;
pub(crate) use table::TaskTable;
pub(crate) use wake_set::WakeSet;
