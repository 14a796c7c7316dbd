//! Xstreams together: stepped on one OS thread, and on real reactors.

mod running;
mod sched;
mod stepped;
mod ults;
