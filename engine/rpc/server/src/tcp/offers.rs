//! The other side of pulls: what calls over one connection offer, and the answers to who asks for it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use daos_errno::Der;
use rpc_wire::{FLAG_RESPONSE, Header, Opcode, Pull};
use spdk_env::DmaBuf;

use super::out_queue::{OutQueue, Piece};

/// By the id of the call. Own xstream only.
#[derive(Default)]
pub(super) struct Offers(RefCell<HashMap<u64, Arc<DmaBuf>>>);

impl Offers {
    pub(super) fn add(&self, id: u64, data: Arc<DmaBuf>) {
        self.0.borrow_mut().insert(id, data);
    }

    /// The call has its answer, or nobody waits for it.
    pub(super) fn remove(&self, id: u64) {
        let mut offers = self.0.borrow_mut();
        if !offers.is_empty() {
            offers.remove(&id);
        }
    }

    /// Queues the answer to a pull of what call `id` offers; the data leaves from where it is.
    pub(super) fn answer(&self, id: u64, pull: &Pull, out: &OutQueue) {
        let part = match self.0.borrow().get(&id) {
            None => Err(Der::NONEXIST),
            Some(data) => match pull.range(data.len()) {
                Some(range) => Ok(Piece::Part(Arc::clone(data), range)),
                None => Err(Der::OVERFLOW),
            },
        };
        let (status, piece) = match part {
            Ok(piece) => (0, piece),
            Err(der) => (der.neg(), Piece::None),
        };
        let header = Header {
            flags: FLAG_RESPONSE,
            opcode: Opcode::PULL.0,
            request_id: pull.number,
            status,
            ..Header::default()
        };
        out.push(header, Vec::new(), piece);
    }
}
