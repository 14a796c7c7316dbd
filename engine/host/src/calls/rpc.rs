//! RPC: incoming requests, and calls between modules.
//!
//! Invariants: H1, H3 and H4 of `guard.rs`, B1 of `buffer.rs`.
#![allow(unsafe_code, reason = "functions that modules call")]

use super::buffer::{Covered, give, taken};
use super::undelivered::{is_offering, offering};
use crate::guard::{Place, bad_handle, coded, entry, module, place, serving, ult as calling_ult};
use crate::handles::Object;
use crate::here::Here;
use crate::modules::{ModuleEntry, ModuleState};
use crate::names::task_name;
use crate::shared::{self, Shared};
use crate::ult::{Spec, Told, run};
use daos_errno::Der;
use engine_rpc::{Opcode, Request, RpcHandler};
use engine_xstream::sched::{Attr, Class, Flags, PoolId};
use module_abi::{
    DSS_RPC_BODY_MAX, DSS_RPC_BULK_MAX, dss_buf, dss_module, dss_req_attr, dss_rpc, dss_rpc_answer,
    dss_rpc_done_t, dss_rpc_info,
};
use std::ffi::{CString, c_void};
use std::mem::transmute;
use std::rc::Rc;
use std::sync::Arc;

/// A module's handler in the engine's registry.
pub(crate) struct Served {
    module: &'static ModuleEntry,
    function: unsafe extern "C" fn(*mut dss_rpc),
    /// The name of the ULT that each request gets, if it gets one.
    ult: Option<&'static str>,
}

impl Served {
    pub(crate) fn new(
        module: &'static ModuleEntry,
        function: unsafe extern "C" fn(*mut dss_rpc),
        ult: Option<&str>,
    ) -> Served {
        let name = ult.map(|name| CString::new(name).unwrap_or_default());
        let ult = name.map(|name| task_name(module, &name));
        Served {
            module,
            function,
            ult,
        }
    }

    /// A ULT of its own for a request, which is answered when there is none.
    fn serve_in_ult(&self, here: &Rc<Here>, name: &'static str, handle: *mut dss_rpc) {
        let (function, request) = (self.function, handle.addr());
        let spec = Spec {
            module: self.module,
            name,
            stack_size: 0,
            cancels: false,
            quiet: false,
            period_ns: 0,
        };
        // SAFETY: the same convention, but for what an exception does: it is stopped at the stack's base.
        let function = unsafe {
            transmute::<unsafe extern "C" fn(*mut dss_rpc), unsafe extern "C-unwind" fn(*mut dss_rpc)>(
                function,
            )
        };
        let body = move || {
            // SAFETY: H2: on the xstream of the request's tag.
            unsafe { function(std::ptr::without_provenance_mut(request)) };
            0
        };
        let make = |ult| async move {
            let rc = run(spec, ult, Told::new(&Arc::default()), body).await;
            // It did not begin, or not come to its end.
            if let (Err(der), Some(here)) = (Der::check(rc), crate::here::current()) {
                refuse(&here, std::ptr::without_provenance_mut(request), der);
            }
        };
        let made = engine_xstream::current()
            .ok_or(Der::MISC)
            .and_then(|here| here.create(name, make).map_err(|error| error.der()));
        match made {
            Ok((ult, _)) => ult.detach(),
            Err(der) => refuse(here, handle, der),
        }
    }
}

/// Answers a request with an error, unless it has been answered.
fn refuse(here: &Here, handle: *mut dss_rpc, der: Der) {
    let taken = here
        .handles
        .take(handle, |object| matches!(object, Object::Rpc(_)));
    if let Ok((_, Object::Rpc(request))) = taken {
        request.reply_error(der);
    }
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
            Ok(handle) => match self.ult {
                // SAFETY: H2: on the xstream of the request's tag.
                None => unsafe { (self.function)(handle) },
                Some(name) => self.serve_in_ult(&here, name, handle),
            },
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
            let body = unsafe { bytes(body, len) };
            // The answer takes the request's memory: what a module answers out of the request leaves it first.
            if request.body().as_ptr_range().contains(&body.as_ptr()) {
                let copy = body.to_vec();
                return request.reply(rc.min(0), &copy, bulk);
            }
            request.reply(rc.min(0), body, bulk);
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

pub(crate) unsafe extern "C" fn call_wait(
    this: *const dss_module,
    tag: u32,
    opcode: u32,
    body: *const u8,
    len: u64,
    bulk: *mut dss_buf,
    out: *mut dss_rpc_answer,
) -> i32 {
    coded("rpc_call_wait", || {
        let module = module("rpc_call_wait", this)?;
        let me = calling_ult("rpc_call_wait")?;
        let here = place("rpc_call_wait", Some(module), Place::Xstream)?;
        serving("rpc_call_wait", module)?;
        let mut none = dss_buf::EMPTY;
        // SAFETY: H1: NULL or the caller's.
        let bulk = unsafe { bulk.as_mut() }.unwrap_or(&mut none);
        if out.is_null() {
            return Err(Der::INVAL);
        }
        if len > u64::from(DSS_RPC_BODY_MAX) || bulk.len > u64::from(DSS_RPC_BULK_MAX) {
            return Err(Der::OVERFLOW);
        }
        Covered::of(bulk)?;
        shared::room(here.info.dmi_xs_id)?;
        // SAFETY: H1.
        let body = unsafe { bytes(body, len) }.to_vec();
        let sent = taken("rpc_call_wait", &std::mem::replace(bulk, dss_buf::EMPTY)).map(|buf| {
            let len = buf.len();
            (buf, len)
        });
        let reply = me.wait(engine_rpc::call(tag, Opcode::from(opcode), body, sent))?;
        let kept = Shared::Answer(reply.body);
        let owner = shared::insert(here.info.dmi_xs_id, module, kept)?;
        let (body, body_len) = shared::get(owner, |object| match object {
            Shared::Answer(body) => Some((body.as_ptr(), body.len() as u64)),
            _ => None,
        })?;
        let bulk = reply.bulk.map_or(dss_buf::EMPTY, |(mut buf, len)| {
            buf.set_len(len.min(buf.capacity()));
            give(buf)
        });
        let answer = dss_rpc_answer {
            status: reply.status,
            reserved: 0,
            body,
            body_len,
            bulk,
            owner,
        };
        // SAFETY: H1.
        unsafe { out.write(answer) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn answer_free(answer: *mut dss_rpc_answer) {
    entry("rpc_answer_free", (), || {
        // SAFETY: H1: NULL or the caller's.
        let Some(answer) = (unsafe { answer.as_mut() }) else {
            return;
        };
        let bulk = std::mem::replace(&mut answer.bulk, dss_buf::EMPTY);
        drop(taken("rpc_answer_free", &bulk));
        let owner = std::mem::replace(&mut answer.owner, std::ptr::null_mut());
        (answer.body, answer.body_len) = (std::ptr::null(), 0);
        if owner.is_null() {
            return; // given back before
        }
        let kept = shared::take(owner, |object| {
            matches!(object, Shared::Answer(_)).then_some(Ok(()))
        });
        let _ = kept.map_err(bad_handle("rpc_answer_free"));
    });
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
