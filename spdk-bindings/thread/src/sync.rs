//! Primitives for tasks of one thread that wait for each other, and a one-shot that completes from another thread.
//!
//! [`oneshot`], [`Notify`], [`Semaphore`] and [`LocalChannel`](channel) are own-thread-only: no atomics, first come first
//! served, and dropping a waiting future takes it out of the queue. [`remote_oneshot`] carries an answer from any OS thread.

pub mod channel;
mod notify;
pub mod oneshot;
mod semaphore;
mod wait_queue;

/// One value from any OS thread to a task: the answer to a message (`spdk_ring::oneshot`).
pub use spdk_ring::oneshot as remote_oneshot;

pub use channel::{Receiver as LocalReceiver, Sender as LocalSender, channel};
pub use notify::{Notified, Notify};
pub use semaphore::{Acquire, AcquireError, Permit, Semaphore};
