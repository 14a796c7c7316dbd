//! The part of a connection that others on its xstream touch: the answers that wait to be written.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;

use rpc_wire::{FLAG_RESPONSE, Header, Outgoing};
use spdk_thread::TaskWaker;

use super::socket::Socket;
use crate::budget::Budget;
use crate::bulk::Bulk;
use crate::request::Answer;

/// Pieces given to one write: header, body and bulk of many answers leave in one system call.
const PIECES: usize = 48;

/// The bulk of an answer that may have none.
#[derive(Debug)]
pub(super) struct MaybeBulk(pub Option<Bulk>);

impl AsRef<[u8]> for MaybeBulk {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], AsRef::as_ref)
    }
}

pub(super) type OutFrame = Outgoing<Vec<u8>, MaybeBulk>;

/// One connection as its xstream's other code sees it; its ULT ([`super::runner`]) does the I/O.
pub(crate) struct Session {
    pub(super) peer: SocketAddr,
    out: RefCell<VecDeque<OutFrame>>,
    out_bytes: Cell<usize>,
    /// Requests given to handlers and not answered.
    pub(super) in_flight: Cell<usize>,
    /// Stands in the xstream's list of those that wait for room.
    pub(super) waits_for_room: Cell<bool>,
    kicked: Cell<bool>,
    cut: Cell<Option<&'static str>>,
    waker: RefCell<Option<TaskWaker>>,
}

impl Session {
    pub(super) fn new(peer: SocketAddr) -> Rc<Session> {
        Rc::new(Session {
            peer,
            out: RefCell::default(),
            out_bytes: Cell::new(0),
            in_flight: Cell::new(0),
            waits_for_room: Cell::new(false),
            kicked: Cell::new(false),
            cut: Cell::new(None),
            waker: RefCell::new(None),
        })
    }

    /// Queues the answer to a request of this connection.
    pub(crate) fn answer(&self, answer: Answer) {
        self.in_flight.set(self.in_flight.get() - 1);
        let Answer {
            info,
            status,
            body,
            bulk,
        } = answer;
        self.queue(info.opcode.0, info.tag, info.request_id, status, body, bulk);
    }

    /// Queues a response frame.
    pub(super) fn queue(
        &self,
        opcode: u32,
        tag: u32,
        id: u64,
        status: i32,
        body: Vec<u8>,
        bulk: Option<Bulk>,
    ) {
        let header = Header {
            flags: FLAG_RESPONSE,
            opcode,
            tag,
            request_id: id,
            status,
            ..Header::default()
        };
        let frame = Outgoing::new(header, body, MaybeBulk(bulk));
        self.out_bytes.set(self.out_bytes.get() + frame.total());
        self.out.borrow_mut().push_back(frame);
        self.kick();
    }

    /// Wakes the connection's ULT.
    pub(crate) fn kick(&self) {
        if !self.kicked.replace(true) {
            let waker = self.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// There may be room again for what it holds.
    pub(crate) fn room(&self) {
        self.waits_for_room.set(false);
        self.kick();
    }

    /// Closes the connection at the ULT's next turn, whatever it was doing.
    pub(crate) fn cut(&self, why: &'static str) {
        self.cut.set(Some(why));
        self.kick();
    }

    pub(super) fn is_cut(&self) -> Option<&'static str> {
        self.cut.get()
    }

    /// Notes who to wake; true if a kick has come since the last call.
    pub(super) fn park(&self, waker: TaskWaker) -> bool {
        *self.waker.borrow_mut() = Some(waker);
        self.kicked.replace(false)
    }

    /// Bytes that wait to be written.
    pub(super) fn out_bytes(&self) -> usize {
        self.out_bytes.get()
    }

    /// Writes until everything is out or the socket is full; memory of what is out goes back. Returns the bytes written.
    pub(super) fn flush(&self, socket: &Socket, budget: &Budget) -> io::Result<usize> {
        let mut total = 0;
        while self.out_bytes.get() > 0 {
            let mut out = self.out.borrow_mut();
            let sent = {
                let mut pieces = [IoSlice::new(&[]); PIECES];
                let mut used = 0;
                for (piece, slot) in out.iter().flat_map(Outgoing::slices).zip(pieces.iter_mut()) {
                    *slot = piece;
                    used += 1;
                }
                socket.write(&pieces[..used])?
            };
            if sent == 0 {
                break;
            }
            total += sent;
            self.out_bytes.set(self.out_bytes.get() - sent);
            let mut left = sent;
            while let Some(frame) = out.front_mut() {
                left = frame.advance(left);
                if frame.remaining() > 0 {
                    break;
                }
                if let Some(frame) = out.pop_front() {
                    budget.recycle(frame.into_parts().0);
                }
            }
        }
        Ok(total)
    }
}
