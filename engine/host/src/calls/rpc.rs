//! RPC: incoming requests, and calls between modules.
//!
//! Invariants: H1, H3 and H4 of `guard.rs`, B1 of `buffer.rs`.
#![allow(unsafe_code, reason = "functions that modules call")]

use super::buffer::{Covered, give, taken};
use super::undelivered::{is_offering, offering};
use crate::guard::{Place, bad_handle, coded, entry, module, place, serving};
use crate::handles::Object;
use crate::modules::{ModuleEntry, ModuleState};
use crate::names::task_name;
use daos_errno::Der;
use engine_rpc::{Opcode, Request, RpcHandler};
use engine_xstream::sched::{Attr, Class, Flags, PoolId};
use module_abi::{
    DSS_RPC_BODY_MAX, DSS_RPC_BULK_MAX, dss_buf, dss_module, dss_req_attr, dss_rpc, dss_rpc_done_t,
    dss_rpc_info,
};
use std::ffi::c_void;

/// A module's handler in the engine's registry.
pub(crate) struct Served {
    pub(crate) module: &'static ModuleEntry,
    pub(crate) function: unsafe extern "C" fn(*mut dss_rpc),
}

impl RpcHandler for Served {
    fn handle(&self, request: Request) {
        let state = self.module.state();
        if !state.serves() {
            let early = matches!(state, ModuleState::Loaded | ModuleState::Registered);
            return request.reply_error(if early { Der::UNINIT } else { Der::SHUTDOWN });
        }
        let Ok(here) = place("rpc handler", Some(self.module), Place::Xstream) else {
            return request.reply_error(Der::MISC);
        };
        match here.handles.insert(self.module, Object::Rpc(request)) {
            // SAFETY: H2: on the xstream of the request's tag.
            Ok(handle) => unsafe { (self.function)(handle) },
            Err(Object::Rpc(request)) => request.reply_error(Der::NOMEM),
            Err(_) => {}
        }
    }

    fn classify(&self, request: &Request) -> Option<Attr> {
        let hook = self.module.descriptor.sm_get_req_attr?;
        if !self.module.state().serves() {
            return None;
        }
        let (info, mut told) = (described(request), dss_req_attr::default());
        // SAFETY: H2; both are ours for the call.
        let rc = unsafe { hook(&raw const info, &raw mut told) };
        // DAOS: a hook that fails makes the request anonymous.
        if rc < 0 {
            return None;
        }
        attr(self.module, &told)
    }
}

/// What a module said, as far as it makes sense: an unknown class is anonymous, unknown flags are dropped; the log says so.
fn attr(module: &ModuleEntry, told: &dss_req_attr) -> Option<Attr> {
    let class = Class::from_raw(told.r#type);
    let (flags, unknown) = Flags::from_raw(told.flags);
    if class.is_none() && told.r#type != Class::ANONYMOUS || unknown != 0 {
        module.note_bad_attr(told.r#type, told.flags);
    }
    Some(Attr {
        flags,
        timeout_ms: told.timeout_ms,
        ..Attr::new(PoolId(told.pool_uuid), class?)
    })
}

fn described(request: &Request) -> dss_rpc_info {
    dss_rpc_info {
        opcode: request.opcode().into(),
        tag: request.tag(),
        request_id: request.request_id(),
        body: request.body().as_ptr(),
        body_len: request.body().len() as u64,
        bulk_len: request.bulk_len() as u64,
    }
}

pub(crate) unsafe extern "C" fn info(rpc: *mut dss_rpc, out: *mut dss_rpc_info) {
    entry("rpc_info", (), || {
        let Ok(here) = place("rpc_info", None, Place::Xstream) else {
            return;
        };
        let described = here.handles.with(rpc, |_, object| match object {
            Object::Rpc(request) => Some(described(request)),
            _ => None,
        });
        if let (Ok(described), false) = (described.map_err(bad_handle("rpc_info")), out.is_null()) {
            // SAFETY: H1.
            unsafe { out.write(described) }
        }
    });
}

pub(crate) unsafe extern "C" fn bulk(rpc: *mut dss_rpc) -> dss_buf {
    entry("rpc_bulk", dss_buf::EMPTY, || {
        let Ok(here) = place("rpc_bulk", None, Place::Xstream) else {
            return dss_buf::EMPTY;
        };
        let bulk = here.handles.with(rpc, |_, object| match object {
            Object::Rpc(request) => Some(request.take_bulk()),
            _ => None,
        });
        match bulk.map_err(bad_handle("rpc_bulk")) {
            Ok(Some((buf, _))) => give(buf),
            _ => dss_buf::EMPTY,
        }
    })
}

pub(crate) unsafe extern "C" fn reply(
    rpc: *mut dss_rpc,
    rc: i32,
    body: *const u8,
    len: u64,
    bulk: dss_buf,
) {
    entry("rpc_reply", (), || {
        let bulk = taken("rpc_reply", &bulk).map(|buf| {
            let len = buf.len();
            (buf, len)
        });
        let Ok(here) = place("rpc_reply", None, Place::Xstream) else {
            return;
        };
        let request = here
            .handles
            .take(rpc, |object| matches!(object, Object::Rpc(_)));
        if let Ok((_, Object::Rpc(request))) = request.map_err(bad_handle("rpc_reply")) {
            // SAFETY: H1.
            request.reply(rc.min(0), unsafe { bytes(body, len) }, bulk);
        }
    });
}

pub(crate) unsafe extern "C" fn call(
    this: *const dss_module,
    tag: u32,
    opcode: u32,
    body: *const u8,
    len: u64,
    bulk: dss_buf,
    done: dss_rpc_done_t,
    arg: *mut c_void,
) -> i32 {
    coded("rpc_call", || {
        let module = module("rpc_call", this)?;
        place("rpc_call", Some(module), Place::Xstream)?;
        serving("rpc_call", module)?;
        let xstream = engine_xstream::current().ok_or(Der::OP_NOT_PERMITTED)?;
        let done = done.ok_or(Der::INVAL)?;
        if len > u64::from(DSS_RPC_BODY_MAX) || bulk.len > u64::from(DSS_RPC_BULK_MAX) {
            return Err(Der::OVERFLOW);
        }
        Covered::of(&bulk)?;
        // SAFETY: H1.
        let body = unsafe { bytes(body, len) }.to_vec();
        let (owed, moved) = (Owed { done, arg }, Moved(bulk));
        let task = async move {
            let bulk = moved.take().map(|buf| {
                let len = buf.len();
                (buf, len)
            });
            let answer = engine_rpc::call(tag, Opcode::from(opcode), body, bulk).await;
            owed.pay(answer);
        };
        let spawned = offering(|| xstream.spawn(task_name(module, c"call"), task));
        spawned
            .map(|handle| handle.detach())
            .map_err(|error| error.der())
    })
}

/// Bulk data on its way; still the module's when the task was refused.
struct Moved(dss_buf);

impl Moved {
    fn take(mut self) -> Option<spdk_env::DmaBuf> {
        let raw = std::mem::replace(&mut self.0, dss_buf::EMPTY);
        taken("rpc_call", &raw)
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        if !is_offering() {
            drop(taken("rpc_call", &self.0));
        }
    }
}

/// A call-back that is called exactly once, also when the task that owes it is dropped.
struct Owed {
    done: unsafe extern "C" fn(*mut c_void, i32, *const u8, u64, dss_buf),
    arg: *mut c_void,
}

impl Owed {
    fn pay(self, answer: Result<engine_rpc::Reply, Der>) {
        let owed = std::mem::ManuallyDrop::new(self);
        match answer {
            Ok(reply) => {
                let bulk = reply.bulk.map_or(dss_buf::EMPTY, |(mut buf, len)| {
                    buf.set_len(len.min(buf.capacity()));
                    give(buf)
                });
                let body = &reply.body;
                // SAFETY: H3; the body is lent for the call.
                unsafe {
                    (owed.done)(
                        owed.arg,
                        reply.status,
                        body.as_ptr(),
                        body.len() as u64,
                        bulk,
                    )
                }
            }
            Err(der) => owed.fail(der),
        }
    }

    fn fail(&self, der: Der) {
        // SAFETY: H3.
        unsafe { (self.done)(self.arg, der.neg(), std::ptr::null(), 0, dss_buf::EMPTY) }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if !is_offering() {
            self.fail(Der::CANCELED);
        }
    }
}

/// # Safety
/// `data` points to `len` bytes that live for `'a`, or is NULL (H1).
pub(crate) unsafe fn bytes<'a>(data: *const u8, len: u64) -> &'a [u8] {
    match usize::try_from(len) {
        // SAFETY: the caller's promise.
        Ok(len) if len > 0 && !data.is_null() => unsafe { std::slice::from_raw_parts(data, len) },
        _ => &[],
    }
}
