//! Watches the xstreams from outside, and tells what it sees even when they cannot.
//!
//! - [`Watchdog`]: an OS thread that samples every xstream. A unit (ULT, poller, message) that runs too long is reported with
//!   its name and a back-trace taken while it runs; an xstream without progress is reported, and may end the engine; systemd's
//!   watchdog is fed only while every xstream makes progress.
//! - [`View`]: what runs where, since when; answers at any time.
//! - [`dump`]: the whole state as text in a file, for SIGUSR1 and SIGUSR2.
//! - [`backtrace_of`]: where another OS thread of this process is.
//!
//! The xstreams pay one relaxed store for each unit (`spdk_thread`'s pulse); all the rest happens here. Time is what the
//! samples add up to, each counted with at most twice its period, so a clock that jumps (a suspended machine) is no stall.
//!
//! Neighbours: `engine_xstream` and `spdk_reactor` below; the daemon starts it and gives it the configuration. Source: DAOS
//! `src/engine/sched.c` (watchdog), `srv.c` (monitor).
//!
//! Thread rule: everything here is for control threads, except [`View`], which anybody may ask.
//!
//! Modules: `observer` one xstream's state · `feeder` systemd · `monitor` the thread · `site` how often the same is said ·
//! `unwind` from a copied stack to lines · `report` what is said · [`dump`].

pub mod dump;
mod feeder;
mod metrics;
mod monitor;
mod observer;
mod report;
mod site;
mod unwind;

pub use monitor::{Options, Running, View, Watchdog};
pub use report::Report;
pub use unwind::backtrace_of;
