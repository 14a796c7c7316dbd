//! Questions to the engine, and results that are owed to it.
//!
//! Invariants: H1, H3 and H4 of `guard.rs`.
#![allow(unsafe_code, reason = "functions that modules call")]

use super::rpc::bytes;
use super::undelivered::{is_offering, offering};
use crate::guard::{Place, bad_handle, coded, entry, module, place};
use crate::handles::Object;
use crate::names::task_name;
use daos_errno::Der;
use module_abi::{dss_done, dss_module, dss_query_done_t};
use std::ffi::c_void;

/// Bytes of a question.
const QUESTION_MAX: u64 = 64 << 20;

pub(crate) unsafe extern "C" fn query(
    this: *const dss_module,
    method: u32,
    question: *const u8,
    len: u64,
    done: dss_query_done_t,
    arg: *mut c_void,
) -> i32 {
    coded("query", || {
        let module = module("query", this)?;
        let here = place("query", Some(module), Place::System)?;
        let xstream = engine_xstream::current().ok_or(Der::OP_NOT_PERMITTED)?;
        let done = done.ok_or(Der::INVAL)?;
        if len > QUESTION_MAX {
            return Err(Der::OVERFLOW);
        }
        // SAFETY: H1.
        let question = unsafe { bytes(question, len) }.to_vec();
        let (owed, lent) = (Owed { done, arg }, here.lent.clone());
        let task = async move {
            let answer = lent.control.query(method, question).await;
            owed.pay(answer);
        };
        let spawned = offering(|| xstream.spawn(task_name(module, c"query"), task));
        spawned
            .map(|handle| handle.detach())
            .map_err(|error| error.der())
    })
}

struct Owed {
    done: unsafe extern "C" fn(*mut c_void, i32, *const u8, u64),
    arg: *mut c_void,
}

impl Owed {
    fn pay(self, answer: Result<Vec<u8>, Der>) {
        let owed = std::mem::ManuallyDrop::new(self);
        let (rc, out) = answer.map_or_else(|der| (der.neg(), Vec::new()), |out| (0, out));
        // SAFETY: H3; the answer is lent for the call.
        unsafe { (owed.done)(owed.arg, rc, out.as_ptr(), out.len() as u64) }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if !is_offering() {
            // SAFETY: H3: the task is dropped; the call-back is still called once.
            unsafe { (self.done)(self.arg, Der::CANCELED.neg(), std::ptr::null(), 0) }
        }
    }
}

pub(crate) unsafe extern "C" fn done(done: *mut dss_done, rc: i32) {
    entry("done", (), || {
        let Ok(here) = place("done", None, Place::System) else {
            return;
        };
        let taken = here
            .handles
            .take(done, |object| matches!(object, Object::Done(_)));
        if let Ok((_, Object::Done(sender))) = taken.map_err(bad_handle("done")) {
            let _ = sender.send(rc); // too late: the deadline has passed
        }
    });
}
