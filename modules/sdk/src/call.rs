//! Calls to other modules (in-process RPC) and to the engine itself.
//!
//! Invariants, besides E1 to E3 of `engine.rs` and B1 of `buffer.rs`:
//! - Q1: `arg` of an accepted call is a boxed sender that the engine holds; it calls `done` exactly once, on the
//!   xstream that called. Dropping the future forgets the answer. A refused call leaves `arg` and the bulk data here.
#![allow(unsafe_code, reason = "hands a continuation to the engine")]

use crate::engine::{self, contained};
use crate::rpc::bytes;
use crate::sync::oneshot;
use crate::{DmaBuf, Reply};
use daos_errno::Der;
use module_abi::dss_buf;
use prost::Message;
use std::ffi::c_void;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Where an RPC goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// The system xstream.
    System,
    /// The main xstream of a target.
    Target(u32),
}

impl Tag {
    fn number(self) -> u32 {
        match self {
            Tag::System => 0,
            Tag::Target(target) => target.saturating_add(1),
        }
    }
}

/// A successful answer.
#[derive(Debug)]
pub struct Answer {
    /// Its body.
    pub body: Vec<u8>,
    /// Its bulk data; empty when there is none.
    pub bulk: DmaBuf,
}

impl Answer {
    /// The body as a protobuf message.
    ///
    /// # Errors
    /// `DER_PROTO` when it is none.
    pub fn decode<M: Message + Default>(&self) -> Result<M, Der> {
        M::decode(&*self.body).map_err(|_| Der::PROTO)
    }
}

/// A call that failed: the number, and what the handler said to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// Why.
    pub der: Der,
    /// The body of the failed reply; empty when the engine refused the call.
    pub body: Vec<u8>,
}

impl From<Der> for CallError {
    fn from(der: Der) -> CallError {
        CallError {
            der,
            body: Vec::new(),
        }
    }
}

impl From<CallError> for Der {
    fn from(error: CallError) -> Der {
        error.der
    }
}

impl From<CallError> for Reply {
    fn from(error: CallError) -> Reply {
        Reply::error(error.der).with_body(error.body)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.der.fmt(f)
    }
}

impl std::error::Error for CallError {}

/// Answer to [`rpc_call`].
#[derive(Debug)]
pub struct CallFuture(Result<oneshot::Receiver<Result<Answer, CallError>>, Der>);

/// Calls a handler of this engine; starts at once. From any xstream, in setup and while the module serves. `body` holds
/// at most 1 MiB, `bulk` (empty: none) its first [`len`](slice::len) bytes.
///
/// # Errors
/// What the handler replied; `DER_UNREG` for an unknown opcode, `DER_BAD_TARGET` for an unknown target, `DER_AGAIN` or
/// `DER_NOMEM` at a bound, `DER_OP_NOT_PERMITTED` in the wrong state.
pub fn rpc_call(tag: Tag, opcode: u32, body: &[u8], bulk: DmaBuf) -> CallFuture {
    let (sender, receiver) = oneshot::channel::<Result<Answer, CallError>>();
    let arg = Box::into_raw(Box::new(sender));
    let bulk = bulk.give();
    let (addr, len, capacity, owner) = (bulk.addr, bulk.len, bulk.capacity, bulk.owner);
    // SAFETY: E1, E2, Q1; the body is borrowed for the call.
    let rc = unsafe {
        let (body, body_len) = (body.as_ptr(), body.len() as u64);
        let host = engine::host();
        (host.rpc_call)(
            engine::module(),
            tag.number(),
            opcode,
            body,
            body_len,
            bulk,
            Some(rpc_done),
            arg.cast(),
        )
    };
    CallFuture(Der::check(rc).map(|()| receiver).inspect_err(|_| {
        // SAFETY: Q1: refused.
        drop(unsafe { Box::from_raw(arg) });
        drop(DmaBuf::take(dss_buf {
            addr,
            len,
            capacity,
            owner,
        }));
    }))
}

unsafe extern "C" fn rpc_done(
    arg: *mut c_void,
    rc: i32,
    body: *const u8,
    body_len: u64,
    bulk: dss_buf,
) {
    let bulk = DmaBuf::take(bulk);
    // SAFETY: Q1.
    let sender = unsafe { Box::from_raw(arg.cast::<oneshot::Sender<Result<Answer, CallError>>>()) };
    contained("an RPC's answer", (), || {
        // SAFETY: lent for this call.
        let body = unsafe { bytes(body, body_len) }.to_vec();
        sender.send(match Der::check(rc) {
            Ok(()) => Ok(Answer { body, bulk }),
            Err(der) => Err(CallError { der, body }),
        });
    });
}

impl Future for CallFuture {
    type Output = Result<Answer, CallError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        poll_answer(&mut self.0, cx)
    }
}

/// Answer to [`query`].
#[derive(Debug)]
pub struct QueryFuture(Result<oneshot::Receiver<Result<Vec<u8>, Der>>, Der>);

/// Asks the engine: method numbers and messages of Keel's dRPC module. On the system xstream; starts at once.
///
/// # Errors
/// What the engine answered; `DER_OP_NOT_PERMITTED` elsewhere.
pub fn query(method: u32, body: &[u8]) -> QueryFuture {
    let (sender, receiver) = oneshot::channel::<Result<Vec<u8>, Der>>();
    let arg = Box::into_raw(Box::new(sender));
    let (data, len) = (body.as_ptr(), body.len() as u64);
    // SAFETY: E1, E2, Q1; the body is borrowed for the call.
    let rc = unsafe {
        (engine::host().query)(
            engine::module(),
            method,
            data,
            len,
            Some(query_done),
            arg.cast(),
        )
    };
    QueryFuture(Der::check(rc).map(|()| receiver).inspect_err(|_| {
        // SAFETY: Q1: refused.
        drop(unsafe { Box::from_raw(arg) });
    }))
}

unsafe extern "C" fn query_done(arg: *mut c_void, rc: i32, out: *const u8, out_len: u64) {
    // SAFETY: Q1.
    let sender = unsafe { Box::from_raw(arg.cast::<oneshot::Sender<Result<Vec<u8>, Der>>>()) };
    contained("a query's answer", (), || {
        // SAFETY: lent for this call.
        let out = unsafe { bytes(out, out_len) };
        sender.send(Der::check(rc).map(|()| out.to_vec()));
    });
}

impl Future for QueryFuture {
    type Output = Result<Vec<u8>, Der>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        poll_answer(&mut self.0, cx)
    }
}

fn poll_answer<T, E: From<Der>>(
    state: &mut Result<oneshot::Receiver<Result<T, E>>, Der>,
    cx: &mut Context<'_>,
) -> Poll<Result<T, E>> {
    match state {
        Ok(receiver) => Pin::new(receiver)
            .poll(cx)
            .map(|answer| answer.unwrap_or(Err(Der::CANCELED.into()))),
        Err(der) => Poll::Ready(Err((*der).into())),
    }
}
