//! Incoming RPCs.
//!
//! Invariants, besides E1 to E3 of `engine.rs` and B1 of `buffer.rs`:
//! - R1: an `Incoming` owns its `dss_rpc` until it is dropped, which replies; it is reached through `Rc`s only, so all of
//!   this happens on the xstream of the request. The body lives as long as the `dss_rpc`: no borrow of it outlives the
//!   `Incoming`.
#![allow(unsafe_code, reason = "holds the engine's requests")]

use crate::DmaBuf;
use crate::engine::{self, contained};
use crate::task::{Xs, caught, launch};
use daos_errno::Der;
use module_abi::{dss_rpc, dss_rpc_info};
use prost::Message;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::rc::Rc;

/// One incoming RPC. It is answered when the handler has returned and the request has been dropped.
pub struct Request(Rc<Incoming>);

struct Incoming {
    raw: *mut dss_rpc,
    info: dss_rpc_info,
    reply: RefCell<Reply>,
}

impl Request {
    /// `module << 24 | version << 16 | index`.
    pub fn opcode(&self) -> u32 {
        self.0.info.opcode
    }

    /// The handler's number within the protocol.
    pub fn index(&self) -> u32 {
        self.opcode() & 0xffff
    }

    /// The protocol's version.
    pub fn version(&self) -> u32 {
        (self.opcode() >> 16) & 0xff
    }

    /// The sender's number for it.
    pub fn id(&self) -> u64 {
        self.0.info.request_id
    }

    /// The target it was sent to; `None`: the system xstream.
    pub fn target(&self) -> Option<u32> {
        self.0.info.tag.checked_sub(1)
    }

    /// The body's bytes.
    pub fn body(&self) -> &[u8] {
        // SAFETY: R1; the borrow ends with `self`, which keeps the `Incoming`.
        unsafe { bytes(self.0.info.body, self.0.info.body_len) }
    }

    /// The body as a protobuf message.
    ///
    /// # Errors
    /// `DER_PROTO` when it is none.
    pub fn decode<M: Message + Default>(&self) -> Result<M, Der> {
        M::decode(self.body()).map_err(|_| Der::PROTO)
    }

    /// Bytes of bulk data that came with it.
    pub fn bulk_len(&self) -> usize {
        usize::try_from(self.0.info.bulk_len).unwrap_or(0)
    }

    /// Takes the bulk data; empty when there was none, or at the second call.
    pub fn take_bulk(&self) -> DmaBuf {
        // SAFETY: E1, R1.
        DmaBuf::take(unsafe { (engine::host().rpc_bulk)(self.0.raw) })
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Request").field(&self.0.info).finish()
    }
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub struct Reply {
    rc: i32,
    body: Vec<u8>,
    bulk: DmaBuf,
}

impl Reply {
    /// Success, without a body.
    pub const fn ok() -> Reply {
        Reply {
            rc: 0,
            body: Vec::new(),
            bulk: DmaBuf::empty(),
        }
    }

    /// Success, with a protobuf message.
    pub fn message(message: &impl Message) -> Reply {
        Reply::ok().with_body(message.encode_to_vec())
    }

    /// Failure.
    pub const fn error(der: Der) -> Reply {
        Reply {
            rc: der.neg(),
            body: Vec::new(),
            bulk: DmaBuf::empty(),
        }
    }

    /// With these bytes as its body; failures may have one, too.
    #[must_use]
    pub fn with_body(mut self, body: Vec<u8>) -> Reply {
        self.body = body;
        self
    }

    /// With bulk data: the first [`len`](slice::len) bytes of the buffer.
    #[must_use]
    pub fn with_bulk(mut self, bulk: DmaBuf) -> Reply {
        self.bulk = bulk;
        self
    }
}

impl From<Der> for Reply {
    fn from(der: Der) -> Reply {
        Reply::error(der)
    }
}

impl<R: Into<Reply>, E: Into<Reply>> From<Result<R, E>> for Reply {
    fn from(result: Result<R, E>) -> Reply {
        result.map_or_else(Into::into, Into::into)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let Reply { rc, body, bulk } = self.reply.replace(Reply::ok());
        // SAFETY: E1, R1; the body is borrowed for the call, the bulk data moves.
        unsafe {
            (engine::host().rpc_reply)(self.raw, rc, body.as_ptr(), body.len() as u64, bulk.give())
        }
    }
}

/// Runs a handler as a task of this xstream.
///
/// # Safety
/// Called by the engine, as a `dss_rpc_handler_t`.
pub unsafe fn enter<H, F>(name: &'static str, raw: *mut dss_rpc, handler: H)
where
    H: FnOnce(Request) -> F + 'static,
    F: Future + 'static,
    F::Output: Into<Reply>,
{
    contained(name, (), || {
        let (body, body_len) = (std::ptr::null(), 0);
        let mut info = dss_rpc_info {
            opcode: 0,
            tag: 0,
            request_id: 0,
            body,
            body_len,
            bulk_len: 0,
        };
        // SAFETY: E1, R1.
        unsafe { (engine::host().rpc_info)(raw, &raw mut info) };
        // What is sent when the task never ends: the engine dropped it.
        let incoming = Rc::new(Incoming {
            raw,
            info,
            reply: RefCell::new(Reply::error(Der::CANCELED)),
        });
        let answer = Rc::clone(&incoming);
        let launched = launch(name, Xs::Current, async move {
            let result = caught(name, async move { handler(Request(incoming)).await.into() }).await;
            *answer.reply.borrow_mut() = result.unwrap_or_else(|panic| Reply::error(panic.into()));
        });
        if let Err(der) = launched {
            crate::warn!("{name} refused: no task: {der}");
        }
    });
}

/// # Safety
/// `data` points to `len` bytes that live for `'a`, or is NULL.
pub(crate) unsafe fn bytes<'a>(data: *const u8, len: u64) -> &'a [u8] {
    match usize::try_from(len) {
        // SAFETY: the caller's promise.
        Ok(len) if len > 0 && !data.is_null() => unsafe { std::slice::from_raw_parts(data, len) },
        _ => &[],
    }
}
