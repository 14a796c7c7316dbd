//! Chores: short steps of a module's work on helpers.
//!
//! Invariants: H1, H3 and H4 of `guard.rs`. A chore's function is called by one xstream, one step at a time: what makes moving `func`
//! and `arg` there sound is the module's promise (H3).
#![allow(
    unsafe_code,
    reason = "functions that modules call; module pointers travel between xstreams"
)]

use super::undelivered::{is_offering, offering};
use crate::guard::{coded, module, serving};
use crate::names::{c_text, task_name};
use daos_errno::Der;
use engine_xstream::{Chore, ChoreError, ChoreStep, XsType, Xstream};
use module_abi::{
    DSS_CHORE_CANCELED, DSS_CHORE_DONE, DSS_CHORE_NEW, DSS_CHORE_PRIORITY, DSS_CHORE_YIELD,
    dss_chore_attr, dss_chore_func_t, dss_module,
};
use std::ffi::c_void;

pub(crate) unsafe extern "C" fn register(
    this: *const dss_module,
    attr: *const dss_chore_attr,
    func: dss_chore_func_t,
    arg: *mut c_void,
    available: *mut u32,
) -> i32 {
    coded("chore_register", || {
        let module = module("chore_register", this)?;
        serving("chore_register", module)?;
        // SAFETY: H1.
        let attr = unsafe { attr.as_ref() }.ok_or(Der::INVAL)?;
        let func = func.ok_or(Der::INVAL)?;
        // SAFETY: H1.
        let name = unsafe { c_text(attr.name) };
        if name.is_empty() || attr.flags & !DSS_CHORE_PRIORITY != 0 {
            return Err(Der::INVAL);
        }
        let kind = match XsType::from_raw(attr.xs_type) {
            Some(kind @ (XsType::Iofw | XsType::Offload)) => kind,
            _ => return Err(Der::INVAL),
        };
        let target = u32::try_from(attr.tgt_id).map_err(|_| Der::INVAL)?;
        let current = engine_xstream::current();
        let set = current.as_ref().and_then(Xstream::set);
        let set = set.or(module.lent.xstreams.get()).ok_or(Der::UNINIT)?;
        let priority = attr.flags & DSS_CHORE_PRIORITY != 0;
        let permit = set.reserve_chore(kind, target, attr.credits, priority);
        let permit = permit.map_err(|error| {
            if let (
                ChoreError::Again {
                    available: left, ..
                },
                false,
            ) = (&error, available.is_null())
            {
                // SAFETY: H1.
                unsafe { available.write(*left) }
            }
            error.der()
        })?;
        let steps = Steps {
            name: task_name(module, name),
            func,
            arg,
            next: DSS_CHORE_NEW,
        };
        offering(|| permit.submit(steps.name, Box::new(steps))).map_err(|error| error.der())
    })
}

/// A module's chore.
struct Steps {
    name: &'static str,
    func: unsafe extern "C" fn(*mut c_void, i32) -> i32,
    arg: *mut c_void,
    /// What the next call is told; `DSS_CHORE_DONE`: there is none.
    next: i32,
}

// SAFETY: H3.
unsafe impl Send for Steps {}

impl Chore for Steps {
    fn step(&mut self, _: &Xstream) -> ChoreStep {
        let status = std::mem::replace(&mut self.next, DSS_CHORE_DONE);
        // SAFETY: H3: on one xstream, until it answered that it is done.
        match unsafe { (self.func)(self.arg, status) } {
            DSS_CHORE_YIELD => {
                self.next = DSS_CHORE_YIELD;
                return ChoreStep::Yield;
            }
            DSS_CHORE_DONE => {}
            answer => tracing::error!(
                chore = self.name,
                answer,
                "a chore answers what it may not; it counts as done"
            ),
        }
        ChoreStep::Done
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if self.next != DSS_CHORE_DONE && !is_offering() {
            // SAFETY: H3: once, after the last step.
            let _ = unsafe { (self.func)(self.arg, DSS_CHORE_CANCELED) };
        }
    }
}
