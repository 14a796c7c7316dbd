//! Incoming dRPC calls.
//!
//! Invariants, besides E1 to E3 of `engine.rs`:
//! - C1: as R1 of `rpc.rs`, for a `dss_drpc`.
#![allow(unsafe_code, reason = "holds the engine's calls")]

use crate::engine::{self, contained};
use crate::rpc::bytes;
use crate::task::{Xs, caught, launch};
use module_abi::{
    DSS_DRPC_FAILED_MARSHAL, DSS_DRPC_FAILED_UNMARSHAL_PAYLOAD, DSS_DRPC_FAILURE,
    DSS_DRPC_SUBMITTED, DSS_DRPC_SUCCESS, DSS_DRPC_UNKNOWN_METHOD, dss_drpc, dss_drpc_info,
};
use prost::Message;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::rc::Rc;

/// One incoming dRPC call, on the system xstream. It is answered when the handler has returned and the call has been
/// dropped.
pub struct DrpcCall(Rc<Incoming>);

struct Incoming {
    raw: *mut dss_drpc,
    info: dss_drpc_info,
    reply: RefCell<DrpcReply>,
}

impl DrpcCall {
    /// The dRPC module id.
    pub fn module(&self) -> i32 {
        self.0.info.module
    }

    /// The method of that module.
    pub fn method(&self) -> i32 {
        self.0.info.method
    }

    /// The session's number for the call.
    pub fn sequence(&self) -> i64 {
        self.0.info.sequence
    }

    /// The body's bytes.
    pub fn body(&self) -> &[u8] {
        // SAFETY: C1; the borrow ends with `self`, which keeps the `Incoming`.
        unsafe { bytes(self.0.info.body, self.0.info.body_len) }
    }

    /// The body as a protobuf message.
    ///
    /// # Errors
    /// The status that DAOS answers when it is none: `FAILED_UNMARSHAL_PAYLOAD`.
    pub fn decode<M: Message + Default>(&self) -> Result<M, DrpcStatus> {
        M::decode(self.body()).map_err(|_| DrpcStatus::FailedUnmarshalPayload)
    }
}

impl fmt::Debug for DrpcCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DrpcCall").field(&self.0.info).finish()
    }
}

/// drpc.Status, as far as a handler answers it. Domain errors are no statuses: they stand in a successful body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum DrpcStatus {
    /// Understood.
    Success = DSS_DRPC_SUCCESS,
    /// Accepted, not finished.
    Submitted = DSS_DRPC_SUBMITTED,
    /// Failed.
    Failure = DSS_DRPC_FAILURE,
    /// The module has no such method.
    UnknownMethod = DSS_DRPC_UNKNOWN_METHOD,
    /// The body could not be decoded.
    FailedUnmarshalPayload = DSS_DRPC_FAILED_UNMARSHAL_PAYLOAD,
    /// The answer could not be encoded.
    FailedMarshal = DSS_DRPC_FAILED_MARSHAL,
}

/// The answer to a [`DrpcCall`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrpcReply {
    status: DrpcStatus,
    body: Vec<u8>,
}

impl DrpcReply {
    /// Success, with these bytes.
    pub fn success(body: Vec<u8>) -> DrpcReply {
        DrpcReply {
            status: DrpcStatus::Success,
            body,
        }
    }

    /// Success, with a protobuf message.
    pub fn message(message: &impl Message) -> DrpcReply {
        DrpcReply::success(message.encode_to_vec())
    }

    /// A status alone.
    pub const fn status(status: DrpcStatus) -> DrpcReply {
        DrpcReply {
            status,
            body: Vec::new(),
        }
    }
}

impl From<DrpcStatus> for DrpcReply {
    fn from(status: DrpcStatus) -> DrpcReply {
        DrpcReply::status(status)
    }
}

impl<R: Into<DrpcReply>, E: Into<DrpcReply>> From<Result<R, E>> for DrpcReply {
    fn from(result: Result<R, E>) -> DrpcReply {
        result.map_or_else(Into::into, Into::into)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let DrpcReply { status, body } = self.reply.replace(DrpcReply::status(DrpcStatus::Failure));
        // SAFETY: E1, C1; the body is borrowed for the call.
        unsafe {
            (engine::host().drpc_reply)(self.raw, status as i32, body.as_ptr(), body.len() as u64)
        }
    }
}

/// Runs a handler as a task of the system xstream.
///
/// # Safety
/// Called by the engine, as a `dss_drpc_handler_t`.
pub unsafe fn enter<H, F>(name: &'static str, raw: *mut dss_drpc, handler: H)
where
    H: FnOnce(DrpcCall) -> F + 'static,
    F: Future + 'static,
    F::Output: Into<DrpcReply>,
{
    contained(name, (), || {
        let mut info = dss_drpc_info {
            module: 0,
            method: 0,
            sequence: 0,
            body: std::ptr::null(),
            body_len: 0,
        };
        // SAFETY: E1, C1.
        unsafe { (engine::host().drpc_info)(raw, &raw mut info) };
        let incoming = Rc::new(Incoming {
            raw,
            info,
            reply: RefCell::new(DrpcStatus::Failure.into()),
        });
        let answer = Rc::clone(&incoming);
        let launched = launch(name, Xs::Current, async move {
            let result = caught(
                name,
                async move { handler(DrpcCall(incoming)).await.into() },
            )
            .await;
            *answer.reply.borrow_mut() = result.unwrap_or_else(|_| DrpcStatus::Failure.into());
        });
        if let Err(der) = launched {
            crate::warn!("{name} refused: no task: {der}");
        }
    });
}
