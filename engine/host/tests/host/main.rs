//! The host on real xstreams, with a module written with the SDK and one that calls the table by hand.
#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod chores;
mod fixture;
mod iv;
mod life;
mod memory;
mod messages;
mod places;
mod probe;
mod raw;
mod registration;
mod sched;
mod sdk;
mod ult_end;
mod ult_io;
mod ult_life;
mod ult_sync;
mod ults;
