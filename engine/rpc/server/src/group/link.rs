//! The connection to one xstream of another rank: made when it is first needed, and again when it breaks.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use daos_errno::Der;
use spdk_thread::Thread;
use spdk_thread::sync::Notify;

use crate::endpoint::Endpoint;
use crate::fabric::Fabric;
use crate::tcp::{ConnectError, TcpTransport};

/// For a connection and its HELLO.
const CONNECT: Duration = Duration::from_secs(5);
/// Calls in flight on one link (fewer if the other engine says so).
const MAX_CALLS: usize = 128;
/// Pause after a failed attempt to connect; doubles up to the longest.
const FIRST_PAUSE_NS: u64 = 10_000_000;
const LONGEST_PAUSE_NS: u64 = 1_000_000_000;
/// So many calls in a row without an answer in their time, and the connection is given up: its other end may be gone without a word.
const SILENT_CALLS: u32 = 3;

/// The end of the service on one xstream, for calls and connections under way.
#[derive(Default)]
pub(crate) struct Closing {
    closed: Cell<bool>,
    told: Notify,
}

impl Closing {
    fn close(&self) {
        self.closed.set(true);
        self.told.notify_all();
    }

    /// Until the service ends.
    pub(crate) async fn wait(&self) {
        while !self.closed.get() {
            self.told.notified().await;
        }
    }

    /// The result of `work`; `None` if the service ends first: `work` is dropped then.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, mut closed) = (pin!(work), pin!(self.wait()));
        poll_fn(|cx| {
            if closed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

/// The links of one xstream, by rank and tag.
#[derive(Default)]
pub(crate) struct Links {
    links: RefCell<HashMap<(u32, u32), Rc<Link>>>,
    closing: Rc<Closing>,
}

impl Links {
    /// The link to `tag` of `rank` at this address; one to a former address is left to those who use it.
    pub(crate) fn get(&self, rank: u32, tag: u32, address: SocketAddr) -> Rc<Link> {
        let mut links = self.links.borrow_mut();
        let new = || Link::new(address, Rc::clone(&self.closing));
        let link = links.entry((rank, tag)).or_insert_with(new);
        if link.address != address {
            *link = new();
        }
        Rc::clone(link)
    }

    pub(crate) fn closing(&self) -> &Closing {
        &self.closing
    }

    /// The service ends: calls under way fail, connections close.
    pub(crate) fn close(&self) {
        self.closing.close();
        let all = std::mem::take(&mut *self.links.borrow_mut());
        for link in all.into_values() {
            link.transport.borrow_mut().take();
        }
    }
}

/// Own xstream only.
pub(crate) struct Link {
    address: SocketAddr,
    closing: Rc<Closing>,
    transport: RefCell<Option<TcpTransport>>,
    connecting: Cell<bool>,
    /// An attempt to connect has ended.
    ended: Notify,
    pause_ns: Cell<u64>,
    not_before: Cell<u64>,
    why: Cell<Der>,
    silent: Cell<u32>,
    /// The last attempt to connect was refused.
    is_refused: Cell<bool>,
}

impl Link {
    fn new(address: SocketAddr, closing: Rc<Closing>) -> Rc<Link> {
        Rc::new(Link {
            address,
            closing,
            transport: RefCell::new(None),
            connecting: Cell::new(false),
            ended: Notify::new(),
            pause_ns: Cell::new(FIRST_PAUSE_NS),
            not_before: Cell::new(0),
            why: Cell::new(Der::UNREACH),
            silent: Cell::new(0),
            is_refused: Cell::new(false),
        })
    }

    /// The open connection, or one that is made now. `Err`: it cannot be made, or not before that time.
    pub(crate) async fn open(
        self: &Rc<Self>,
        endpoint: &Endpoint,
        tag: u32,
    ) -> Result<TcpTransport, (Der, u64)> {
        let thread = endpoint.thread();
        let mut tried = false;
        loop {
            if let Some(open) = self
                .transport
                .borrow()
                .as_ref()
                .filter(|open| !open.is_closed())
            {
                return Ok(open.clone());
            }
            if !self.connecting.get() {
                if tried || thread.now() < self.not_before.get() {
                    return Err((self.why.get(), self.not_before.get()));
                }
                self.connecting.set(true);
                endpoint.metrics.connects.increment(1);
                // In a task of its own: who asks may give up, and others wait for it too.
                let fabric = Arc::clone(endpoint.fabric());
                let task = Rc::clone(self).connect(thread.clone(), tag, fabric);
                if thread.spawn("rpc connect", task).is_err() {
                    self.connecting.set(false);
                    return Err((Der::NOMEM, thread.now() + FIRST_PAUSE_NS));
                }
            }
            self.ended.notified().await;
            tried = true;
        }
    }

    async fn connect(self: Rc<Self>, thread: Thread, tag: u32, fabric: Arc<Fabric>) {
        let (memory, security) = (fabric.bulk.clone(), fabric.options.tls.as_ref());
        let made = TcpTransport::connect(self.address, tag, CONNECT, MAX_CALLS, memory, security);
        let Some(made) = self.closing.or(made).await else {
            return;
        };
        self.connecting.set(false);
        match made {
            Ok(transport) => {
                *self.transport.borrow_mut() = Some(transport);
                self.pause_ns.set(FIRST_PAUSE_NS);
                self.silent.set(0);
                self.is_refused.set(false);
            }
            Err(error) => {
                let pause = self.pause_ns.get();
                let is_silence = matches!(error, ConnectError::Unreachable { .. });
                // Somebody is there and does not want us: said once in a row.
                match !self.is_refused.replace(!is_silence) && !is_silence {
                    true => tracing::warn!("{error}"),
                    false => tracing::debug!(pause_ms = pause / 1_000_000, "{error}"),
                }
                self.why.set(match error {
                    ConnectError::Refused { der, .. } | ConnectError::Here(der) => der,
                    ConnectError::Unreachable { .. } => Der::UNREACH,
                    ConnectError::Tls { .. } => Der::NO_PERM,
                });
                self.not_before.set(thread.now() + pause);
                self.pause_ns.set((pause * 2).min(LONGEST_PAUSE_NS));
            }
        }
        self.ended.notify_all();
    }

    /// A call had its answer.
    pub(crate) fn answered(&self) {
        self.silent.set(0);
    }

    /// A call had no answer in its time.
    pub(crate) fn unanswered(&self) {
        let silent = self.silent.get() + 1;
        self.silent.set(silent);
        if silent >= SILENT_CALLS {
            self.silent.set(0);
            self.transport.borrow_mut().take();
        }
    }
}
