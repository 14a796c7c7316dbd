//! A thread's mailbox: a ring of this crate's, or its carrier's.

use crate::carrier::{Carrier, CarrierSeed, Outbox};
use crate::handle::CarryError;
use crate::{Thread, ThreadOptions};
use spdk_ring::Message;
use spdk_ring::mpsc::{self, TrySendError};
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The senders' side.
pub(crate) enum MailboxSender {
    Own(mpsc::Sender<Message<Thread>>),
    Carried(Arc<dyn Outbox>),
}

/// The thread's side, before it lives.
pub(crate) enum Inbox {
    Own(mpsc::Receiver<Message<Thread>>),
    Carried(Box<dyn CarrierSeed>),
}

/// The thread's side.
pub(crate) enum Mailbox {
    Own(RefCell<mpsc::Receiver<Message<Thread>>>),
    Carried(Box<dyn Carrier>),
}

pub(crate) fn new(
    name: &str,
    options: &ThreadOptions,
) -> Result<(MailboxSender, Inbox), CarryError> {
    let Some(provider) = &options.provider else {
        let (sender, receiver) = mpsc::channel(options.mailbox);
        return Ok((MailboxSender::Own(sender), Inbox::Own(receiver)));
    };
    let carried = provider.carry(name, options.mailbox);
    let carried = carried.map_err(|why| CarryError {
        thread: name.to_owned(),
        why,
    })?;
    let sender = MailboxSender::Carried(carried.outbox);
    Ok((sender, Inbox::Carried(carried.seed)))
}

impl MailboxSender {
    #[inline]
    pub(crate) fn try_send(
        &self,
        message: Message<Thread>,
    ) -> Result<(), TrySendError<Message<Thread>>> {
        match self {
            MailboxSender::Own(sender) => sender.try_send(message),
            MailboxSender::Carried(outbox) => outbox.try_send(message),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        match self {
            MailboxSender::Own(sender) => sender.is_closed(),
            MailboxSender::Carried(outbox) => outbox.is_closed(),
        }
    }
}

impl Inbox {
    pub(crate) fn start(self) -> Mailbox {
        match self {
            Inbox::Own(receiver) => Mailbox::Own(RefCell::new(receiver)),
            Inbox::Carried(seed) => Mailbox::Carried(seed.start()),
        }
    }
}

impl Mailbox {
    /// See [`Carrier::wake_fd`].
    pub(crate) fn wake_fd(&self) -> Option<OwnedFd> {
        match self {
            Mailbox::Own(_) => None,
            Mailbox::Carried(carrier) => carrier.wake_fd(),
        }
    }

    /// Whether a message waits; true as well while it is being emptied.
    #[inline]
    pub(crate) fn has_next(&self) -> bool {
        match self {
            // The next slot, not the senders' word: idle turns ask this, and a sender shall find its line where it left it.
            Mailbox::Own(receiver) => receiver
                .try_borrow()
                .map_or(true, |receiver| receiver.has_next()),
            Mailbox::Carried(carrier) => carrier.waiting() > 0,
        }
    }

    /// Ordered against senders: see `spdk_ring::mpsc::Receiver::settle`.
    pub(crate) fn settle(&self) -> bool {
        match self {
            Mailbox::Own(receiver) => receiver
                .try_borrow()
                .is_ok_and(|receiver| receiver.settle()),
            Mailbox::Carried(carrier) => carrier.settle(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Mailbox::Own(receiver) => receiver.try_borrow().map_or(0, |receiver| receiver.len()),
            Mailbox::Carried(carrier) => carrier.waiting(),
        }
    }

    pub(crate) fn close(&self) {
        match self {
            Mailbox::Own(receiver) => receiver.borrow().close(),
            Mailbox::Carried(carrier) => carrier.close(),
        }
    }

    /// Tells a carrier that code of the thread runs, or does not any more.
    #[inline]
    pub(crate) fn set_current(&self, current: bool) {
        if let Mailbox::Carried(carrier) = self {
            carrier.set_current(current);
        }
    }
}
