//! Stackful ULTs: straight-line code on a stack of its own that waits in the middle (`ABT_thread` in Argobots, which DAOS uses).
//!
//! [`Ult`] is a future, so it runs as a task of any thread and has what every task has: name, state, abort, join. Its poll switches
//! to the stack; [`wait`], called there, polls another future and switches back while that is pending. Everything that is a future
//! on a thread can be waited for so: sleeps, joins, locks, I/O.
//!
//! The stack is taken when the ULT begins and goes back when it ends: those that only wait to begin hold none.
//!
//! Thread rule: an [`Ult`] begins and ends on one OS thread. Below it is nothing of ours but error codes; `engine_host` gives it to C.

mod error;
mod kept;
mod list;
mod memory;
mod overflow;
mod ult;

pub use error::{StackError, UltError};
pub use list::{Owner, StackStats, StackUse, stack_stats, stacks};
pub use overflow::name_overflows;
pub use ult::{Ult, inside, ult, wait};
