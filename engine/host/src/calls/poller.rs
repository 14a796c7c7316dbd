//! Pollers.
//!
//! Invariants: H1, H3 and H4 of `guard.rs`.
#![allow(unsafe_code, reason = "functions that modules call")]

use crate::guard::{Place, bad_handle, entry, module, place};
use crate::handles::Object;
use crate::names::{c_text, task_name};
use module_abi::{dss_module, dss_poller, dss_poller_fn_t};
use spdk_thread::{Period, PollResult};
use std::ffi::{c_char, c_void};
use std::ptr::null_mut;

pub(crate) unsafe extern "C" fn register(
    this: *const dss_module,
    name: *const c_char,
    period_ns: u64,
    function: dss_poller_fn_t,
    arg: *mut c_void,
) -> *mut dss_poller {
    entry("poller_register", null_mut(), || {
        let Ok(module) = module("poller_register", this) else {
            return null_mut();
        };
        let Ok(here) = place("poller_register", Some(module), Place::Xstream) else {
            return null_mut();
        };
        let (Some(xstream), Some(function)) = (engine_xstream::current(), function) else {
            return null_mut();
        };
        // SAFETY: H1.
        let name = task_name(module, unsafe { c_text(name) });
        let period = if period_ns == 0 {
            Period::EveryTurn
        } else {
            Period::Nanos(period_ns)
        };
        let poller = xstream.thread().register_poller(name, period, move |_| {
            // SAFETY: H3: on its xstream, until it is unregistered.
            if unsafe { function(arg) } > 0 {
                PollResult::Busy
            } else {
                PollResult::Idle
            }
        });
        here.handles
            .insert(module, Object::Poller(poller))
            .unwrap_or(null_mut())
    })
}

pub(crate) unsafe extern "C" fn unregister(poller: *mut dss_poller) {
    entry("poller_unregister", (), || {
        let Ok(here) = place("poller_unregister", None, Place::Xstream) else {
            return;
        };
        let taken = here
            .handles
            .take(poller, |object| matches!(object, Object::Poller(_)));
        if let Ok((_, Object::Poller(poller))) = taken.map_err(bad_handle("poller_unregister")) {
            drop(poller);
        }
    });
}
