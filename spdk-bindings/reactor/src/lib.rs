//! One core's loop, hosting lightweight threads.
//!
//! * [`ReactorSet`]: one OS thread per core, started together, shut down together.
//! * [`ReactorHandle`]: a reactor's address: hosts new threads, tells its statistics.
//! * [`Reactor`]: the loop itself: [`Reactor::poll_once`] is one turn of all its threads, [`Reactor::run`] the loop with
//!   its rest.
//! * [`IdleGoal`]: how deep it may rest: always poll, or poll, pause and sleep within a latency goal.
//!
//! Neighbours: `spdk_env` (clock, cores, doorbell) and `spdk_thread` below; `engine_xstream` above. SPDK:
//! `lib/event/reactor.c` with its static scheduler: a thread stays on the reactor that it was given to.
//!
//! Thread rule: a [`Reactor`] belongs to its OS thread; [`ReactorHandle`] and [`ReactorSet`] may be used from any.
//! `docs/internals/reactor.md` has the loop, the sleep protocol and the shutdown handshake.

mod epoll;
mod governor;
mod handle;
mod idle;
mod reactor;
mod reactor_set;
mod stats;

pub use handle::{HostError, ReactorHandle};
pub use idle::{IdleGoal, Rest};
pub use reactor::Reactor;
pub use reactor_set::{Held, ReactorOptions, ReactorSet, StartError};
pub use stats::{Depth, ReactorStats, Residency};
