//! The answer to one call.

use std::sync::Arc;

use drpc_wire::{Chunker, FrameError, Framing, Message, Response, Status};

use crate::completions::{Completion, Completions};
use crate::peer::Peer;

/// The right and the duty to answer one call, once. Goes to any thread and may take its time. Dropped unsent (also by a panic)
/// it answers FAILURE. If the session is gone by then, the answer is dropped.
#[derive(Debug)]
pub struct Reply {
    ticket: Option<Ticket>,
    sequence: i64,
    peer: Peer,
}

/// What a reply carries back.
pub(crate) struct Ticket {
    pub(crate) completions: Arc<Completions>,
    pub(crate) session: u64,
    pub(crate) framing: Framing,
    pub(crate) call_bytes: usize,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "session {}", self.session)
    }
}

impl Reply {
    pub(crate) fn new(ticket: Ticket, sequence: i64, peer: Peer) -> Reply {
        Reply {
            ticket: Some(ticket),
            sequence,
            peer,
        }
    }

    /// Who called.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Answers. The response's sequence is set to the call's. A response that does not fit goes out as FAILED_MARSHAL.
    pub fn send(mut self, response: Response) {
        self.deliver(response);
    }

    /// Answers SUCCESS with a body.
    pub fn success(self, body: Vec<u8>) {
        let status = Status::Success.into();
        self.send(Response {
            sequence: 0,
            status,
            body,
        });
    }

    /// Answers SUCCESS with a message as its body.
    pub fn message(self, message: &impl Message) {
        self.success(message.encode_to_vec());
    }

    /// Answers with a status and no body.
    pub fn fail(self, status: Status) {
        self.send(Response::with_status(0, status));
    }

    fn deliver(&mut self, mut response: Response) {
        let Some(ticket) = self.ticket.take() else {
            return;
        };
        response.sequence = self.sequence;
        let message = chunker(&response, ticket.framing);
        ticket.completions.push(Completion {
            session: ticket.session,
            message,
            call_bytes: ticket.call_bytes,
        });
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.deliver(Response::with_status(0, Status::Failure));
        }
    }
}

/// A response on its way out; FAILED_MARSHAL in its place if it does not fit the framing.
pub(crate) fn chunker(response: &Response, framing: Framing) -> Chunker {
    try_chunker(response, framing).unwrap_or_else(|error| {
        tracing::warn!(sequence = response.sequence, %error, "dRPC reply does not fit");
        let small = Response::with_status(response.sequence, Status::FailedMarshal);
        try_chunker(&small, framing).expect("a response without a body fits every framing")
    })
}

fn try_chunker(response: &Response, framing: Framing) -> Result<Chunker, FrameError> {
    let mut bytes = response.encode_to_vec();
    if bytes.is_empty() && framing == Framing::Bare {
        // An empty packet reads as end of connection. This is the same message with its first field spelt out.
        bytes = vec![0x08, 0x00];
    }
    Chunker::new(bytes, framing)
}
