//! The engine's table, and the wall that panics do not pass.
//!
//! Invariants (cited by number in this crate):
//! - E1: the engine stores its table in `HOST` before it calls anything of the module; the table lives as long as the
//!   process, and every entry of it is set.
//! - E2: `MODULE` is set by `sm_init`'s entry, before any code of the module runs, to the exported descriptor.
//! - E3: functions of the table may be called from the thread their tag names; from elsewhere they answer an error and
//!   have no effect, so that a wrong call is never undefined behaviour.
#![allow(unsafe_code, reason = "holds the pointer that the engine stored")]

use module_abi::{dss_host, dss_module};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicPtr, Ordering};

static HOST: AtomicPtr<dss_host> = AtomicPtr::new(std::ptr::null_mut());
static MODULE: AtomicPtr<dss_module> = AtomicPtr::new(std::ptr::null_mut());

/// Where the engine stores its table: the descriptor's `sm_host`.
pub const fn host_slot() -> *mut *const dss_host {
    HOST.as_ptr().cast()
}

pub(crate) fn try_host() -> Option<&'static dss_host> {
    // SAFETY: E1; NULL outside an engine.
    unsafe { HOST.load(Ordering::Acquire).as_ref() }
}

#[track_caller]
pub(crate) fn host() -> &'static dss_host {
    match try_host() {
        Some(host) => host,
        None => panic!(
            "module_sdk: there is no engine here: this works only in a module that an engine has loaded"
        ),
    }
}

pub(crate) fn module() -> *const dss_module {
    MODULE.load(Ordering::Acquire)
}

pub(crate) fn set_module(module: &'static dss_module) {
    MODULE.store(std::ptr::from_ref(module).cast_mut(), Ordering::Release);
}

/// Monotonic time in nanoseconds; 0 without an engine. Any thread.
pub fn now_ns() -> u64 {
    // SAFETY: E1.
    try_host().map_or(0, |host| unsafe { (host.now_ns)() })
}

/// True once the engine has begun to shut down: long work should end early. Any thread.
pub fn shutting_down() -> bool {
    // SAFETY: E1.
    try_host().is_some_and(|host| unsafe { (host.shutting_down)() } != 0)
}

/// Runs `f` behind the wall: a panic is logged and answered with `default`.
pub(crate) fn contained<R>(what: &str, default: R, f: impl FnOnce() -> R) -> R {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => value,
        Err(panic) => {
            let text = panic_text(&*panic);
            drop(catch_unwind(AssertUnwindSafe(move || drop(panic)))); // a payload's drop may panic, too
            crate::error!("{what} panicked: {text}");
            default
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "(no text)".to_owned(),
    }
}
