//! The part of an xstream's RPC state that others may touch: its message ring.
//!
//! Requests and answers travel between xstreams as values on a bounded ring of their own (not as closures: a full ring
//! gives the value back, and nothing is boxed). The receiving ULT publishes its waker; waking a sleeping reactor is
//! the executor's business.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Waker;

use daos_errno::Der;
use spdk_ring::mpsc::{self, Receiver, Sender, TrySendError};

use crate::fabric::ConnectionPermit;
use crate::pull::Ticket;
use crate::request::{Answer, Request, Slot};

/// What xstreams send each other.
#[derive(Debug)]
pub(crate) enum Message {
    /// A request whose tag names the receiver.
    Request(Request),
    /// The answer to a request that came in at the receiver.
    Answer(Slot, Answer),
    /// A handler wants data that a request offers which came in at the receiver.
    Pull(Arc<Ticket>),
    /// A connection that has said HELLO for the receiver's tag.
    Adopt(NewConnection),
    /// Control: drain or close.
    Control(Control),
}

/// A socket past its HELLO request.
#[derive(Debug)]
pub(crate) struct NewConnection {
    pub socket: OwnedFd,
    /// What secures it, past its handshake.
    pub tls: Option<Box<rpc_tls::Stream>>,
    /// Whether the peer may speak as an engine of the group.
    pub may_be_engine: bool,
    pub peer: SocketAddr,
    /// Id of the HELLO, which the new owner answers.
    pub hello_id: u64,
    pub permit: ConnectionPermit,
}

/// Steps of the shutdown; each is acknowledged on the channel.
#[derive(Debug, Clone)]
pub(crate) enum Control {
    /// Read no more requests; answer those in flight; then close the connections. Forced after `timeout_ns`.
    Drain {
        timeout_ns: u64,
        done: std::sync::mpsc::Sender<DrainReport>,
    },
    /// Serve no more at all; waiting calls fail with SHUTDOWN.
    Close {
        done: std::sync::mpsc::Sender<DrainReport>,
    },
}

/// What a drained xstream says.
#[derive(Debug, Clone)]
pub(crate) struct DrainReport {
    pub xstream: String,
    /// Connections that were cut with requests or answers still in flight.
    pub cut: usize,
}

/// Address of an xstream's RPC state. Shared by everyone who sends there.
#[derive(Debug)]
pub(crate) struct Home {
    pub name: String,
    pub tag: Option<u32>,
    ring: Sender<Message>,
    overflow: Overflow,
    waker: OnceLock<Waker>,
}

#[derive(Debug, Default)]
struct Overflow {
    filled: AtomicBool,
    closed: AtomicBool,
    list: Mutex<Vec<Message>>,
}

impl Home {
    pub(crate) fn new(
        name: String,
        tag: Option<u32>,
        capacity: usize,
    ) -> (Home, Receiver<Message>) {
        let (ring, receiver) = mpsc::channel(capacity);
        (
            Home {
                name,
                tag,
                ring,
                overflow: Overflow::default(),
                waker: OnceLock::new(),
            },
            receiver,
        )
    }

    /// For requests. One that cannot be taken comes back with the reason: OVERLOAD_RETRY at the ring's bound, SHUTDOWN
    /// after the close.
    pub(crate) fn post_request(&self, request: Request) -> Option<(Request, Der)> {
        let (message, der) = match self.ring.try_send(Message::Request(request)) {
            Ok(()) => {
                self.wake();
                return None;
            }
            Err(TrySendError::Full(message)) => (message, Der::OVERLOAD_RETRY),
            Err(TrySendError::Closed(message)) => (message, Der::SHUTDOWN),
        };
        match message {
            Message::Request(request) => Some((request, der)),
            _ => unreachable!("the ring gives back what it was given"),
        }
    }

    /// For pulls. One that cannot be taken fails as a request does.
    pub(crate) fn post_pull(&self, ticket: Arc<Ticket>) {
        match self.ring.try_send(Message::Pull(Arc::clone(&ticket))) {
            Ok(()) => self.wake(),
            Err(TrySendError::Full(_)) => ticket.finish(Err(Der::OVERLOAD_RETRY)),
            Err(TrySendError::Closed(_)) => ticket.finish(Err(Der::SHUTDOWN)),
        }
    }

    /// For answers, sockets and control, which are bounded by what was admitted before: beyond the ring's bound they
    /// wait in a list. Dropped once the receiver has closed.
    pub(crate) fn post_answer(&self, message: Message) {
        match self.ring.try_send(message) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(message)) => {
                let mut list = self
                    .overflow
                    .list
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if !self.overflow.closed.load(Ordering::Relaxed) {
                    list.push(message);
                    self.overflow.filled.store(true, Ordering::Release);
                }
            }
        }
        self.wake();
    }

    pub(crate) fn publish_waker(&self, waker: &Waker) {
        let published = self.waker.get_or_init(|| waker.clone());
        debug_assert!(published.will_wake(waker), "a ULT keeps its waker");
    }

    /// What did not fit into the ring; one load when there is nothing.
    pub(crate) fn take_overflow(&self) -> Vec<Message> {
        if !self.overflow.filled.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut list = self
            .overflow
            .list
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.overflow.filled.store(false, Ordering::Relaxed);
        std::mem::take(&mut *list)
    }

    /// Nothing more will be received; later overflow is dropped. The ring is closed by its receiver.
    pub(crate) fn close_overflow(&self) -> Vec<Message> {
        let mut list = self
            .overflow
            .list
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.overflow.closed.store(true, Ordering::Relaxed);
        std::mem::take(&mut *list)
    }

    fn wake(&self) {
        // Not yet published: the ULT looks at the ring after it has published.
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}
