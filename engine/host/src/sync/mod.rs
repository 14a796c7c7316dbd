//! What ULTs with a stack of their own wait with, from any xstream: eventual, mutex, condition variable, barrier.
//!
//! Safe Rust; the functions of the table are in `calls/sync.rs`. Each keeps its state under a lock that is held for a few
//! loads and stores, never while anything runs or waits. First come, first served; a waiter that gives up leaves.

mod barrier;
mod cond;
mod eventual;
mod mutex;
mod waiters;

pub(crate) use barrier::Barrier;
pub(crate) use cond::Cond;
pub(crate) use eventual::Eventual;
pub(crate) use mutex::{Mutex, UltKey};
pub(crate) use waiters::within;
