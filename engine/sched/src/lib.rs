//! The request scheduler of a main xstream, as a state machine: what is queued, what is kicked when, what is refused.
//!
//! - [`Scheduler`]: [`enqueue`](Scheduler::enqueue) requests by [`Attr`]; once per cycle
//!   [`begin_cycle`](Scheduler::begin_cycle), then [`next`](Scheduler::next) until it gives nothing.
//! - [`Class`]: update, fetch, gc, scrub, migrate; anonymous requests never come here. [`Flags`] as in DAOS.
//! - [`Options`]: bounds; [`Medium`]: a pool's space on a target, from which its pressure level follows.
//!
//! A request is a number here ([`Attr`] and the caller's token): running it is the caller's business. `now` comes in as a
//! parameter, so that a simulator turns the clock (`tests/sim.rs`). Nothing allocates once queues and tables have grown.
//!
//! Neighbours: none below; `engine_xstream` drives it, `engine_rpc` and the host put requests in. Source: DAOS
//! `src/engine/sched.c`. What differs and why: `docs/decisions/0040-scheduler.md`.
//!
//! Thread rule: plain values; one xstream owns one scheduler.
//!
//! Modules: `attr` · `options` · `scheduler` the cycle · `pool` records of pools · `queue` one class of one pool, `slab` its
//! entries · `deadlines` · `window` recent weights · `limits` who is throttled · `pressure` levels of space · `overload` ·
//! `stats`.

mod attr;
mod deadlines;
mod limits;
mod options;
mod overload;
mod pool;
mod pressure;
mod queue;
mod ring;
mod scheduler;
mod slab;
mod stats;
mod window;

pub use attr::{Attr, Class, Flags, PoolId};
pub use options::Options;
pub use overload::Rejected;
pub use pressure::{Medium, PRESSURE_LEVELS, pressure_level};
pub use scheduler::{Admission, Kick, Scheduler, Ticket};
pub use stats::{ClassStats, SchedStats};
