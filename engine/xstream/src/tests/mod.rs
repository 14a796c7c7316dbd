//! Xstreams together: stepped on one OS thread, and on real reactors.

mod chores;
mod running;
mod sched;
mod stepped;
mod ults;
