//! The part of a connection that others on its xstream touch: the answers that wait to be written.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use rpc_wire::{FLAG_RESPONSE, Header};

use super::out_queue::OutQueue;
use crate::bell::Bell;
use crate::bulk::Bulk;
use crate::pull::{Pulls, Ticket};
use crate::request::Answer;

/// One connection as its xstream's other code sees it; its ULT ([`super::runner`]) does the I/O.
pub(crate) struct Session {
    pub(super) peer: SocketAddr,
    /// Whether its calls may carry an engine's stamp.
    pub(super) may_be_engine: bool,
    pub(super) out: OutQueue,
    pub(super) bell: Bell,
    /// Data that its requests offer, on its way here.
    pub(super) pulls: Pulls,
    /// Requests given to handlers and not answered.
    pub(super) in_flight: Cell<usize>,
    /// Stands in the xstream's queue of those that wait for room, perhaps no longer with reason.
    pub(super) waits_for_room: Cell<bool>,
    /// Nothing is read until its xstream has room for another request.
    pub(super) wants_room: Cell<bool>,
    cut: Cell<Option<&'static str>>,
    /// Requests in flight that the peer does not want answered any more.
    canceled: RefCell<Vec<u64>>,
}

impl Session {
    pub(super) fn new(peer: SocketAddr, may_be_engine: bool, max_pulls: usize) -> Rc<Session> {
        Rc::new(Session {
            peer,
            may_be_engine,
            out: OutQueue::default(),
            bell: Bell::default(),
            pulls: Pulls::new(max_pulls),
            in_flight: Cell::new(0),
            waits_for_room: Cell::new(false),
            wants_room: Cell::new(false),
            cut: Cell::new(None),
            canceled: RefCell::default(),
        })
    }

    /// The peer does not want the answer to this request. False: nothing that it could mean is in flight.
    pub(super) fn cancel(&self, request_id: u64) -> bool {
        let mut canceled = self.canceled.borrow_mut();
        // More than are in flight name requests that were answered already.
        if canceled.len() >= self.in_flight.get() || canceled.contains(&request_id) {
            return false;
        }
        canceled.push(request_id);
        true
    }

    /// Whether the peer has canceled this request.
    pub(crate) fn is_canceled(&self, request_id: u64) -> bool {
        self.canceled.borrow().contains(&request_id)
    }

    /// Queues the answer to a request of this connection; a canceled one's comes back.
    pub(crate) fn answer(&self, answer: Answer) -> Option<Answer> {
        self.in_flight.set(self.in_flight.get() - 1);
        let mut canceled = self.canceled.borrow_mut();
        let at = canceled.iter().position(|id| *id == answer.info.request_id);
        if let Some(at) = at {
            canceled.swap_remove(at);
        }
        if self.in_flight.get() == 0 {
            canceled.clear();
        }
        drop(canceled);
        if at.is_some() {
            // There is a place for another one.
            self.bell.ring();
            return Some(answer);
        }
        let header = Header {
            opcode: answer.info.opcode.0,
            tag: answer.info.tag,
            request_id: answer.info.request_id,
            status: answer.status,
            enqueue_id: answer.retry.map_or(0, |retry| retry.enqueue_id),
            after_ms: answer.retry.map_or(0, |retry| retry.retry_after_ms),
            ..Header::default()
        };
        self.queue(header, answer.body, answer.bulk);
        None
    }

    /// Queues a response frame.
    pub(super) fn queue(&self, mut header: Header, body: Vec<u8>, bulk: Option<Bulk>) {
        header.flags = FLAG_RESPONSE;
        self.out.push(header, body, bulk);
        self.bell.ring();
    }

    /// Asks for data that one of its requests offers, in its turn.
    pub(crate) fn pull(&self, ticket: Arc<Ticket>) {
        self.pulls.queue(ticket);
        self.bell.ring();
    }

    /// Makes the connection's ULT look at the phase.
    pub(crate) fn kick(&self) {
        self.bell.ring();
    }

    /// There may be room for its next request. False: it does not want it any more, it is another's.
    pub(crate) fn room(&self) -> bool {
        self.waits_for_room.set(false);
        if self.wants_room.get() {
            self.bell.ring();
        }
        self.wants_room.get()
    }

    /// Closes the connection at the ULT's next turn, whatever it was doing.
    pub(crate) fn cut(&self, why: &'static str) {
        self.cut.set(Some(why));
        self.bell.ring();
    }

    pub(super) fn is_cut(&self) -> Option<&'static str> {
        self.cut.get()
    }
}
