//! What there is room for: whether a frame of a connection is taken in, held, or goes by.

use std::rc::Rc;

use rpc_wire::{Buffers, Grant, Header, Opcode};

use super::session::Session;
use crate::bulk::Bulk;
use crate::endpoint::{Endpoint, Phase};
use crate::fabric::ConnectionPermit;
use crate::metrics::Hold;
use crate::table::Key;

/// The connection's place in its xstream; the decoder's memory comes from here.
pub(super) struct Link {
    pub(super) endpoint: Rc<Endpoint>,
    pub(super) session: Rc<Session>,
    pub(super) key: Key,
    /// Charge of the frame that is being received.
    pub(super) partial: Option<u32>,
    /// Why nothing is read now.
    pub(super) held: Option<Hold>,
    pub(super) _permit: ConnectionPermit,
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(charge) = self.partial {
            self.endpoint.budget.release(charge);
        }
        self.session.pulls.fail_all();
        self.endpoint.forget_session(self.key);
    }
}

impl Link {
    /// Notes why nothing is read. A full window and a slow reader end by this connection's own answers and writes, which
    /// wake its ULT; the bulk pool is looked at by a timer; room on the xstream is queued for.
    fn hold(&mut self, why: Hold) {
        if self.held.replace(why) != Some(why) {
            self.endpoint.metrics.held(why);
        }
    }

    /// No room for a frame: it waits, and all behind it. Not while data that was asked for may be among that: who holds the room may
    /// wait for it. Then the frame goes by and is refused.
    fn no_room<T>(&mut self, why: Hold) -> Grant<T> {
        if self.session.pulls.is_under_way() {
            return Grant::Skip;
        }
        self.hold(why);
        Grant::Hold
    }

    fn wait_for_room(&self) {
        self.session.wants_room.set(true);
        if !self.session.waits_for_room.replace(true) {
            self.endpoint.wait_for_room(self.key);
        }
    }
}

/// An answer to a pull.
pub(super) fn is_pulled(header: &Header) -> bool {
    header.is_response() && header.opcode == Opcode::PULL.0 && header.body_len == 0
}

impl Buffers for Link {
    type Bulk = Bulk;

    fn admit(&mut self, header: &Header) -> Grant<Vec<u8>> {
        // It makes room: it waits for none. So does data that was asked for.
        if (header.opcode == Opcode::CANCEL.0 && header.body_len == 0) || is_pulled(header) {
            return Grant::Take(Vec::new());
        }
        let options = &self.endpoint.fabric().options;
        if self.session.out.bytes() > options.max_queued_reply_bytes {
            // It goes on when the peer reads, which needs nothing from here.
            self.hold(Hold::SlowReader);
            return Grant::Hold;
        }
        if self.endpoint.phase() != Phase::Serving {
            return Grant::Skip;
        }
        if self.session.in_flight.get() >= options.max_in_flight_per_connection {
            return self.no_room(Hold::InFlight);
        }
        match self.endpoint.budget.charge(header.body_len) {
            Some(body) => {
                self.partial = Some(header.body_len);
                // What came free may be enough for the next in the queue as well.
                self.endpoint.wake_one_waiting();
                Grant::Take(body)
            }
            None => {
                let grant = self.no_room(Hold::InFlight);
                if matches!(grant, Grant::Hold) {
                    self.wait_for_room();
                }
                grant
            }
        }
    }

    fn bulk(&mut self, header: &Header) -> Grant<Bulk> {
        if is_pulled(header) {
            return self.session.pulls.place(header);
        }
        match self.endpoint.fabric().bulk.get(header.bulk_len as usize) {
            Some(bulk) => Grant::Take(bulk),
            None => self.no_room(Hold::BulkPool),
        }
    }
}
