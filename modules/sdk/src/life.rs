//! Entries of the life cycle.
//!
//! Invariants: E1 to E3 of `engine.rs`. A `dss_done` is completed once, by the task of the setup or cleanup that it
//! was made for, on the system xstream.
#![allow(unsafe_code, reason = "reports to the engine")]

use crate::engine::{self, contained};
use crate::task::{Xs, caught, launch};
use daos_errno::Der;
use module_abi::{DSS_PENDING, dss_done, dss_module};
use std::future::Future;

fn code(result: Result<(), Der>) -> i32 {
    result.map_or_else(Der::neg, |()| 0)
}

/// `sm_init`.
pub fn init(module: &'static dss_module, f: impl FnOnce() -> Result<(), Der>) -> i32 {
    engine::set_module(module);
    contained("init", Der::MISC.neg(), || code(f()))
}

/// `sm_fini`.
pub fn finish(f: impl FnOnce() -> Result<(), Der>) -> i32 {
    contained("fini", Der::MISC.neg(), || code(f()))
}

/// Runs `sm_setup` or `sm_cleanup` as a task.
///
/// # Safety
/// Called by the engine with the `dss_done` that it gave.
pub unsafe fn start<F>(
    what: &'static str,
    done: *mut dss_done,
    f: impl FnOnce() -> F + 'static,
) -> i32
where
    F: Future<Output = Result<(), Der>> + 'static,
{
    contained(what, Der::MISC.neg(), || {
        let owed = Owed(done);
        let launched = launch(what, Xs::Current, async move {
            let result = caught(what, async move { f().await }).await;
            owed.pay(code(result.unwrap_or_else(|panic| Err(panic.into()))));
        });
        match launched {
            Ok(()) => DSS_PENDING,
            Err(der) => der.neg(),
        }
    })
}

struct Owed(*mut dss_done);

impl Owed {
    fn pay(self, rc: i32) {
        // SAFETY: E1; once. A task that the engine drops does not pay: the engine knows.
        unsafe { (engine::host().done)(self.0, rc) }
    }
}
