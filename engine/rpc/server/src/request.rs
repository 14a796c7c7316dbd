//! A request in the hands of its handler, and where its answer goes.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use daos_errno::Der;
use engine_xstream::sched::{Rejected, ServiceTicket};
use rpc_wire::{MAX_BODY, MAX_BULK, Opcode, Stamp};
use spdk_env::DmaBuf;

use crate::bulk::Bulk;
use crate::endpoint;
use crate::home::{Home, Message};
use crate::pull::{Offered, PullFuture, Ticket};

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP connection.
    Tcp(SocketAddr),
    /// Another module of this engine, on the xstream with this tag (`None`: an xstream without one).
    Local(Option<u32>),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(addr) => write!(f, "{addr}"),
            Peer::Local(Some(tag)) => write!(f, "local tag {tag}"),
            Peer::Local(None) => write!(f, "local"),
        }
    }
}

/// What a request is, without its data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Info {
    pub opcode: Opcode,
    pub tag: u32,
    pub request_id: u64,
    /// Its number in all logs, from engine to engine.
    pub trace: u64,
    pub map_version: u32,
    pub peer: Peer,
    /// When the xstream that received it had all of it, ns.
    pub arrived: u64,
    /// The place that a refusal gave it; 0: a new request.
    pub enqueue_id: u64,
    /// The requester gives up after so many milliseconds; 0: it does not say.
    pub timeout_ms: u32,
    /// Of a call by an engine of the group.
    pub stamp: Option<Stamp>,
    /// Bytes of body that count against the receiving xstream's bound until the answer.
    pub charge: u32,
}

/// An answer on its way back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub info: Info,
    pub status: i32,
    pub body: Vec<u8>,
    pub bulk: Option<Bulk>,
    /// With OVERLOAD_RETRY from the scheduler: how to come back.
    pub retry: Option<Rejected>,
}

/// Where an answer belongs: an entry of a table of the xstream that the request came in on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A connection's send queue.
    Session(crate::table::Key),
    /// A waiting in-process call.
    Call(crate::table::Key),
}

/// The way back.
#[derive(Debug)]
pub(crate) struct Route {
    pub home: Arc<Home>,
    pub slot: Slot,
}

impl Route {
    /// From any thread: straight into the table if its xstream runs on this OS thread, else by message. Never lost
    /// while that xstream serves: beyond the ring's bound answers take its overflow list.
    fn send(self, answer: Answer) {
        match endpoint::on_this_os_thread(&self.home) {
            Some(endpoint) => endpoint.deliver(self.slot, answer),
            None => self.home.post_answer(Message::Answer(self.slot, answer)),
        }
    }

    /// The same way, for data that the request offers.
    fn pull(&self, ticket: Arc<Ticket>) {
        match endpoint::on_this_os_thread(&self.home) {
            Some(endpoint) => endpoint.pull(ticket),
            None => self.home.post_pull(ticket),
        }
    }
}

/// One request. It belongs to its handler, which answers it once, now or later, from any xstream of the engine;
/// dropping it answers MISC.
pub struct Request {
    info: Info,
    body: Vec<u8>,
    bulk: Option<Bulk>,
    offered: Option<Offered>,
    route: Option<Route>,
    /// From its kick by the scheduler on.
    ticket: Option<ServiceTicket>,
}

impl Request {
    pub(crate) fn new(info: Info, body: Vec<u8>, bulk: Option<Bulk>, route: Route) -> Request {
        Request {
            info,
            body,
            bulk,
            offered: None,
            route: Some(route),
            ticket: None,
        }
    }

    /// The requester has data that it does not send by itself.
    pub(crate) fn offering(mut self, offered: Option<Offered>) -> Request {
        self.offered = offered;
        self
    }

    pub(crate) fn info(&self) -> &Info {
        &self.info
    }

    /// The scheduler has kicked it; its answer ends the ticket.
    pub(crate) fn in_service(&mut self, ticket: ServiceTicket) {
        self.ticket = Some(ticket);
    }

    /// The scheduler would not get to it in time.
    pub(crate) fn reject(mut self, rejected: Rejected) {
        self.answer(Der::OVERLOAD_RETRY.neg(), &[], None, Some(rejected));
    }

    /// It counts for itself alone: another attempt of the same call is the one that is remembered.
    pub(crate) fn forget_stamp(&mut self) {
        self.info.stamp = None;
    }

    /// Who called, if it was an engine of the group, in the version of the group that this engine knows.
    pub fn engine(&self) -> Option<Stamp> {
        self.info.stamp
    }

    /// Module, version and operation.
    pub fn opcode(&self) -> Opcode {
        self.info.opcode
    }

    /// The xstream that it was sent to: 0 = system, 1 + t = main of target t.
    pub fn tag(&self) -> u32 {
        self.info.tag
    }

    /// The requester's number for it, for logs.
    pub fn request_id(&self) -> u64 {
        self.info.request_id
    }

    /// Its number in the engine's logs and lists of tasks, the same on all engines that work for it: given where it came in, from outside
    /// the group, and inherited by all that its handlers start and call.
    pub fn trace(&self) -> u64 {
        self.info.trace
    }

    /// Version of the pool map that the requester acts on; 0 = none.
    pub fn map_version(&self) -> u32 {
        self.info.map_version
    }

    /// When the requester gives up, milliseconds after it asked; 0: it does not say.
    pub fn timeout_ms(&self) -> u32 {
        self.info.timeout_ms
    }

    /// Who asked, for logs and access checks.
    pub fn peer(&self) -> Peer {
        self.info.peer
    }

    /// The module's message, checksum verified.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The raw data, checksum verified; `None` if there is none or it was taken.
    pub fn bulk(&self) -> Option<&[u8]> {
        self.bulk.as_ref().map(AsRef::as_ref)
    }

    /// Bytes of raw data; 0 if there is none or it was taken.
    pub fn bulk_len(&self) -> usize {
        self.bulk.as_ref().map_or(0, Bulk::len)
    }

    /// The raw data's buffer to keep (its `len` is the data's) and the length. It is one of the bounded pool:
    /// while it is held, the engine takes in less.
    pub fn take_bulk(&mut self) -> Option<(DmaBuf, usize)> {
        self.bulk.take().map(Bulk::into_pair)
    }

    /// Bytes that the requester offers instead of sending them; 0: none. They are there until the request is answered.
    pub fn offered(&self) -> u64 {
        self.offered.as_ref().map_or(0, Offered::bytes)
    }

    /// Takes `len` bytes from `offset` of what the requester offers into a buffer of the bounded pool (its `len` is theirs), as soon as
    /// one is free. Any number of parts may be under way; how many of them the requester is asked for at a time is bounded. From any
    /// xstream. Dropped, or ended with the request's ULT when the request is taken back, it leaves nothing behind. Whoever keeps a part
    /// while it waits for another keeps others waiting: use it and let it go.
    ///
    /// The future's errors: INVAL (nothing is offered there), OVERFLOW (longer than any buffer), OVERLOAD_RETRY (too many wait),
    /// CANCELED (the request was taken back), UNREACH (its connection broke), CSUM (damaged on the way), SHUTDOWN, UNINIT (not on an
    /// xstream); NONEXIST or what else a requester says that does not keep to its offer.
    pub fn pull(&self, offset: u64, len: usize) -> PullFuture {
        let (Some(offered), Some(route)) = (&self.offered, &self.route) else {
            return PullFuture::failed(Der::INVAL);
        };
        let Some(here) = endpoint::current() else {
            return PullFuture::failed(Der::UNINIT);
        };
        let end = offset.checked_add(len as u64);
        if len == 0 || end.is_none_or(|end| end > offered.bytes()) {
            return PullFuture::failed(Der::INVAL);
        }
        let memory = &here.fabric().bulk;
        if len > memory.max_len() {
            return PullFuture::failed(Der::OVERFLOW);
        }
        match offered {
            Offered::Here(data) => {
                let start = offset as usize;
                PullFuture::copied(Arc::clone(data), start..start + len, memory.clone())
            }
            Offered::There(_) => {
                let part = (offset, len as u32);
                let (future, ticket) = PullFuture::asked(route.slot, self.info.request_id, part);
                route.pull(ticket);
                future
            }
        }
    }

    /// Answers: `status` 0 or a negative DAOS error number, `body` the module's message, `bulk` a buffer and how many
    /// of its bytes count. The buffer is written to the socket from where it is and dropped when the kernel has it.
    /// A body or bulk over the limits answers OVERFLOW instead.
    pub fn reply(mut self, status: i32, body: &[u8], bulk: Option<(DmaBuf, usize)>) {
        let bulk_len = bulk.as_ref().map_or(0, |(_, len)| *len);
        if body.len() > MAX_BODY
            || bulk_len > MAX_BULK
            || bulk.as_ref().is_some_and(|(b, len)| *len > b.capacity())
        {
            tracing::error!(
                opcode = %self.info.opcode, body = body.len(), bulk = bulk_len,
                "a handler answered with more than a frame or its buffer holds; the peer gets OVERFLOW"
            );
            return self.finish(Der::OVERFLOW.neg(), &[], None);
        }
        let bulk = bulk
            .filter(|(_, len)| *len > 0)
            .map(|(buf, len)| Bulk::new(buf, len));
        self.finish(status, body, bulk);
    }

    /// Answers with an error alone.
    pub fn reply_error(mut self, der: Der) {
        self.finish(der.neg(), &[], None);
    }

    /// Serves the request in a ULT of the current xstream. Where the request came in on the same xstream, the ULT is aborted when the
    /// requester takes it back or its connection ends: what it holds is dropped at the point where it waits.
    pub fn serve_in_ult<F, Fut>(self, name: &'static str, serve: F)
    where
        F: FnOnce(Request) -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let Some(thread) = spdk_thread::current() else {
            return self.reply_error(Der::MISC);
        };
        let id = self.info.request_id;
        // A numbered call is carried out whatever becomes of an attempt.
        let route = self
            .route
            .as_ref()
            .filter(|_| self.info.stamp.is_none_or(|s| s.number == 0));
        let origin = route.map(|route| (Arc::clone(&route.home), route.slot));
        // Refused, the future is dropped and with it the request, which is answered then.
        let ult = thread.spawn(name, async move { serve(self).await });
        if let (Ok(ult), Some((home, slot))) = (ult, origin)
            && let Some(endpoint) = endpoint::of_this_xstream(&home)
        {
            endpoint.works(slot, id, ult);
        }
    }

    /// Whether the requester has taken it back, as far as the current xstream knows: it does where the request came in on it.
    pub fn is_canceled(&self) -> bool {
        let Some(route) = &self.route else {
            return false;
        };
        endpoint::on_this_os_thread(&route.home)
            .is_some_and(|endpoint| endpoint.is_canceled(route.slot, self.info.request_id))
    }

    fn is_unwanted(&self) -> bool {
        let Some(route) = &self.route else {
            return false;
        };
        endpoint::on_this_os_thread(&route.home)
            .is_some_and(|endpoint| endpoint.is_unwanted(route.slot, self.info.request_id))
    }

    fn finish(&mut self, status: i32, body: &[u8], bulk: Option<Bulk>) {
        self.answer(status, body, bulk, None);
    }

    fn answer(&mut self, status: i32, body: &[u8], bulk: Option<Bulk>, retry: Option<Rejected>) {
        self.ticket = None;
        if let Some(route) = self.route.take() {
            // The request's body has served; its memory carries the answer's, so that no request allocates.
            let mut memory = std::mem::take(&mut self.body);
            memory.clear();
            memory.extend_from_slice(body);
            self.bulk = None;
            route.send(Answer {
                info: self.info,
                status,
                body: memory,
                bulk,
                retry,
            });
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.is_unwanted() {
            // Its ULT was aborted.
            self.finish(Der::CANCELED.neg(), &[], None);
        }
        if self.route.is_some() {
            tracing::warn!(
                opcode = %self.info.opcode, request = self.info.request_id, peer = %self.info.peer,
                "request dropped unanswered (its handler panicked or forgot it); the peer gets MISC"
            );
            self.finish(Der::MISC.neg(), &[], None);
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("opcode", &self.info.opcode)
            .field("tag", &self.info.tag)
            .field("request_id", &self.info.request_id)
            .field("peer", &self.info.peer)
            .field("body_len", &self.body.len())
            .field("bulk_len", &self.bulk_len())
            .finish_non_exhaustive()
    }
}
