//! Incoming dRPC calls.
//!
//! Invariants: H1, H2 and H4 of `guard.rs`.
#![allow(unsafe_code, reason = "functions that modules call")]

use super::rpc::bytes;
use crate::guard::{Place, bad_handle, entry, place};
use crate::handles::Object;
use crate::modules::ModuleEntry;
use drpc_wire::{Call, Response, Status};
use engine_drpc::{Handler, Reply};
use module_abi::{dss_drpc, dss_drpc_handler_t, dss_drpc_info};

/// A module's handler in the engine's registry.
pub(crate) struct Served {
    pub(crate) module: &'static ModuleEntry,
    pub(crate) function: dss_drpc_handler_t,
}

impl Handler for Served {
    fn handle(&self, call: Call, reply: Reply) {
        let Ok(here) = place("dRPC handler", Some(self.module), Place::System) else {
            return reply.fail(Status::Failure);
        };
        match (
            here.handles.insert(self.module, Object::Drpc(call, reply)),
            self.function,
        ) {
            // SAFETY: H2: on the system xstream.
            (Ok(handle), Some(function)) => unsafe { function(handle) },
            // At the bound the call and its reply are dropped: FAILURE.
            (_, _) => tracing::warn!(
                module = self.module.name,
                "dRPC call refused: too many objects"
            ),
        }
    }
}

pub(crate) unsafe extern "C" fn info(call: *mut dss_drpc, out: *mut dss_drpc_info) {
    entry("drpc_info", (), || {
        let Ok(here) = place("drpc_info", None, Place::System) else {
            return;
        };
        let described = here.handles.with(call, |_, object| match object {
            Object::Drpc(call, _) => Some(dss_drpc_info {
                module: call.module,
                method: call.method,
                sequence: call.sequence,
                body: call.body.as_ptr(),
                body_len: call.body.len() as u64,
            }),
            _ => None,
        });
        if let (Ok(described), false) = (described.map_err(bad_handle("drpc_info")), out.is_null())
        {
            // SAFETY: H1.
            unsafe { out.write(described) }
        }
    });
}

pub(crate) unsafe extern "C" fn reply(call: *mut dss_drpc, status: i32, body: *const u8, len: u64) {
    entry("drpc_reply", (), || {
        let Ok(here) = place("drpc_reply", None, Place::System) else {
            return;
        };
        let taken = here
            .handles
            .take(call, |object| matches!(object, Object::Drpc(..)));
        if let Ok((_, Object::Drpc(_, reply))) = taken.map_err(bad_handle("drpc_reply")) {
            // SAFETY: H1.
            let body = unsafe { bytes(body, len) }.to_vec();
            reply.send(Response {
                sequence: 0,
                status,
                body,
            });
        }
    });
}
