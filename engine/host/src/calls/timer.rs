//! Timers: each is a small task that sleeps and wakes.
//!
//! Invariants: H1 and H4 of `guard.rs`, W2 of `waker.rs`.
#![allow(unsafe_code, reason = "functions that modules call")]

use super::waker::Kept;
use crate::guard::{Place, bad_handle, entry, module, place};
use crate::handles::Object;
use crate::names::task_name;
use module_abi::{dss_module, dss_timer, dss_waker};
use std::ptr::null_mut;

pub(crate) unsafe extern "C" fn arm(
    this: *const dss_module,
    deadline_ns: u64,
    lent: *const dss_waker,
) -> *mut dss_timer {
    entry("timer_arm", null_mut(), || {
        let Ok(module) = module("timer_arm", this) else {
            return null_mut();
        };
        let Ok(here) = place("timer_arm", Some(module), Place::Xstream) else {
            return null_mut();
        };
        let Some(xstream) = engine_xstream::current() else {
            return null_mut();
        };
        // SAFETY: H1.
        let Some(waker) = (unsafe { Kept::clone_of(lent) }) else {
            return null_mut();
        };
        let sleeper = async move {
            spdk_thread::sleep_until(deadline_ns).await;
            waker.wake();
        };
        let Ok(task) = xstream.thread().spawn(task_name(module, c"timer"), sleeper) else {
            return null_mut();
        };
        here.handles
            .insert(module, Object::Timer(task))
            .unwrap_or(null_mut())
    })
}

pub(crate) unsafe extern "C" fn free(timer: *mut dss_timer) {
    entry("timer_free", (), || {
        let Ok(here) = place("timer_free", None, Place::Xstream) else {
            return;
        };
        let taken = here
            .handles
            .take(timer, |object| matches!(object, Object::Timer(_)));
        if let Ok((_, Object::Timer(task))) = taken.map_err(bad_handle("timer_free")) {
            task.abort();
        }
    });
}
