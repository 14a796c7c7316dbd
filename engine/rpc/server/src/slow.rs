//! Requests that took too long.

use std::fmt;
use std::time::Duration;

use rpc_wire::Opcode;

use crate::request::Peer;

/// A request that was answered later than [`crate::Options::slow_request`] allows.
#[derive(Clone, Debug)]
pub struct SlowRequest<'a> {
    /// Which operation.
    pub opcode: Opcode,
    /// Its registered name.
    pub name: &'a str,
    /// The xstream it was meant for.
    pub tag: u32,
    /// The requester's number for it.
    pub request_id: u64,
    /// The engine's number for it ([`crate::Request::trace`]).
    pub trace: u64,
    /// Who asked.
    pub peer: Peer,
    /// Status of the answer.
    pub status: i32,
    /// From the last byte received to the answer.
    pub took: Duration,
}

impl fmt::Display for SlowRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} request {} from {} for tag {} took {:?}, status {}, trace {:016x}",
            self.name,
            self.opcode,
            self.request_id,
            self.peer,
            self.tag,
            self.took,
            self.status,
            self.trace
        )
    }
}
