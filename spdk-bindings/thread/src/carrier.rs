//! What carries a thread's messages and calls its pollers, where that is not this crate: C SPDK's thread of the same name.
//!
//! This is one of three places where the providers differ (`docs/decisions/0050-libspdk-provider.md`). Tasks, sleeps, channels and watched
//! descriptors are this crate's either way. A carried thread naps instead of sleeping, since what SPDK sends itself rings no doorbell of ours; one
//! whose carrier has a descriptor for that ([`Carrier::wake_fd`]) sleeps.

use crate::Thread;
use spdk_ring::Message;
use spdk_ring::mpsc::TrySendError;
use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Makes carriers: given to threads with [`ThreadOptions::provider`](crate::ThreadOptions). Any OS thread.
pub trait Provider: Send + Sync {
    /// The carrier of a new thread: the way to its mailbox of `mailbox` slots, and what comes to life where the thread does.
    ///
    /// # Errors
    /// What is lacking, as a text for operators.
    fn carry(&self, name: &str, mailbox: usize) -> Result<Carried, String>;
}

/// A thread's carrier in two halves.
pub struct Carried {
    /// For senders.
    pub outbox: Arc<dyn Outbox>,
    /// For the thread's own OS thread.
    pub seed: Box<dyn CarrierSeed>,
}

/// The way to a carried thread's mailbox, for senders on any OS thread.
pub trait Outbox: Send + Sync {
    /// As `spdk_ring::mpsc::Sender::try_send`.
    ///
    /// # Errors
    /// The message, when the mailbox is full or closed.
    fn try_send(&self, message: Message<Thread>) -> Result<(), TrySendError<Message<Thread>>>;

    /// Whether the mailbox was closed.
    fn is_closed(&self) -> bool;
}

/// A carrier that is to be started on its OS thread.
pub trait CarrierSeed: Send {
    /// Starts it on the calling OS thread.
    fn start(self: Box<Self>) -> Box<dyn Carrier>;
}

/// What a carrier's turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CarriedTurn {
    /// Messages that were handed over.
    pub messages: u32,
    /// Whether it did anything, its own messages and pollers included.
    pub busy: bool,
}

/// The carrier on its thread's OS thread.
pub trait Carrier: Any {
    /// A descriptor that is readable while the carrier has something to do, its own timers and devices included. With one the reactor may
    /// sleep, and this crate calls its pollers itself: [`Carrier::register`] is not used. Asked once.
    fn wake_fd(&self) -> Option<OwnedFd>;

    /// One turn: a batch of messages to `run`, then the pollers. Neither panics.
    fn turn(&self, run: &mut dyn FnMut(Message<Thread>)) -> CarriedTurn;

    /// Before code of the thread runs outside of [`Carrier::turn`]: makes the carrier's thread the current one; `false` afterwards.
    fn set_current(&self, current: bool);

    /// Messages that wait.
    fn waiting(&self) -> usize;

    /// As `spdk_ring::mpsc::Receiver::settle`.
    fn settle(&self) -> bool;

    /// Closes the mailbox; what was accepted still comes in turns.
    fn close(&self);

    /// Has `call` called in every turn, or every `period_ns`; it says whether it was busy, and does not panic.
    fn register(
        &self,
        name: &str,
        period_ns: u64,
        call: Box<dyn FnMut() -> bool>,
    ) -> Box<dyn CarriedPoller>;

    /// Nanoseconds until the next timed poller is due, the carrier's own included.
    fn next_deadline_in(&self) -> Option<u64>;
}

/// A poller on its carrier: unregistered when dropped, which is legal inside its own call.
pub trait CarriedPoller {
    /// No calls from here on.
    fn pause(&self);
    /// Calls again.
    fn resume(&self);
}
