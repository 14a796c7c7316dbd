//! A thread seen from other cores: its name, and its mailbox.

use crate::Thread;
use crate::mailbox::{Inbox, MailboxSender};
use crate::options::{ThreadOptions, Wake};
use crate::pulse::{Pulse, PulseReading};
use crate::task::WakeSet;
use crossbeam_utils::CachePadded;
use spdk_ring::Message;
use spdk_ring::mpsc::TrySendError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the thread's own side and all its handles share.
pub(crate) struct Shared {
    pub(crate) id: u64,
    pub(crate) name: Box<str>,
    pub(crate) mailbox: MailboxSender,
    pub(crate) wakes: WakeSet,
    /// Written in every turn: kept apart from what senders read.
    pub(crate) pulse: CachePadded<Pulse>,
    wake: Option<Arc<dyn Wake>>,
}

impl Shared {
    pub(crate) fn new(
        name: &str,
        options: &ThreadOptions,
    ) -> Result<(Arc<Shared>, Inbox), CarryError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (mailbox, inbox) = crate::mailbox::new(name, options)?;
        let shared = Shared {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.into(),
            mailbox,
            wakes: WakeSet::new(options.max_tasks),
            pulse: CachePadded::default(),
            wake: options.wake.clone(),
        };
        Ok((Arc::new(shared), inbox))
    }

    /// Tells the reactor that there is something to do. The work must be in place before.
    #[inline]
    pub(crate) fn notify(&self) {
        if let Some(wake) = &self.wake {
            wake.wake();
        }
    }

    pub(crate) fn sleeps(&self) -> bool {
        self.wake.as_ref().is_none_or(|wake| wake.sleeps())
    }
}

/// A thread's address: clone it freely, use it from any OS thread (SPDK: `struct spdk_thread *` as the target of
/// `spdk_thread_send_msg`).
#[derive(Clone)]
pub struct ThreadHandle {
    pub(crate) shared: Arc<Shared>,
}

/// The provider did not take a thread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("thread {thread} cannot be made: {why}")]
pub struct CarryError {
    /// The thread's name.
    pub thread: String,
    /// What the provider says.
    pub why: String,
}

/// Why a message was not sent. The closure has been dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The mailbox is at its bound: back-pressure, try again later.
    #[error("the thread's mailbox is full: it is overloaded or stuck; retry later")]
    Full,
    /// The thread has exited; no later message will arrive.
    #[error("the thread has exited")]
    Exited,
}

impl ThreadHandle {
    /// The thread's number, unique in the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.shared.id
    }

    /// The thread's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Runs `f` on the thread, in a later turn; messages of one sender keep their order (SPDK: `spdk_thread_send_msg`).
    /// Wakes a sleeping reactor. Never blocks; allocates only if `f` captures more than 48 bytes.
    ///
    /// A message that was accepted is either run, or dropped when the thread exits.
    ///
    /// # Errors
    /// [`SendError::Full`] at the mailbox's bound, [`SendError::Exited`] after the thread's end.
    #[inline]
    pub fn send(&self, f: impl FnOnce(&Thread) + Send + 'static) -> Result<(), SendError> {
        match self.shared.mailbox.try_send(Message::new(f)) {
            Ok(()) => {
                self.shared.notify();
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(SendError::Full),
            Err(TrySendError::Closed(_)) => Err(SendError::Exited),
        }
    }

    /// How far the thread has come, and what runs on it now. Never blocks, whatever the thread does.
    #[must_use]
    pub fn pulse(&self) -> PulseReading {
        self.shared.pulse.read()
    }

    /// Whether the thread has exited.
    #[must_use]
    pub fn is_exited(&self) -> bool {
        self.shared.mailbox.is_closed()
    }
}

impl std::fmt::Debug for ThreadHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ThreadHandle({} {:?})", self.id(), self.name())
    }
}
