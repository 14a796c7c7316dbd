//! A module's work in a target's scheduler: slices that wait for their turn, and what its pools have.
//!
//! Invariants: H1 and H4 of `guard.rs`, W2 of `waker.rs`.
#![allow(unsafe_code, reason = "functions that modules call")]

use super::waker::Kept;
use crate::guard::{Place, bad_handle, coded, entry, module, place, ult as calling_ult};
use crate::handles::Object;
use daos_errno::Der;
use engine_xstream::sched::{Class, Medium, PoolId, RequestSched, SchedReq};
use module_abi::{
    DSS_TASK_PENDING, DSS_TASK_READY, dss_module, dss_req_attr, dss_sched_req, dss_waker,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// A place in the scheduler, and the waker that its task lent last: usually the same again.
pub(crate) struct Turns {
    req: SchedReq,
    waker: RefCell<Option<(Arc<Kept>, Waker)>>,
}

/// This xstream's scheduler; the places that call this are on a main xstream.
fn scheduler() -> Result<Rc<RequestSched>, Der> {
    let xstream = engine_xstream::current().ok_or(Der::OP_NOT_PERMITTED)?;
    xstream.sched().cloned().ok_or(Der::OP_NOT_PERMITTED)
}

/// # Safety
/// `uuid` points to 16 bytes or is NULL (H1).
unsafe fn pool(uuid: *const u8) -> Result<PoolId, Der> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { uuid.cast::<[u8; 16]>().as_ref() };
    bytes.copied().map(PoolId).ok_or(Der::INVAL)
}

fn turns(function: &'static str, req: *mut dss_sched_req) -> Result<Rc<Turns>, Der> {
    let here = place(function, None, Place::Xstream)?;
    let found = here.handles.with(req, |_, object| match object {
        Object::Sched(turns) => Some(Rc::clone(turns)),
        _ => None,
    });
    found.map_err(bad_handle(function))
}

pub(crate) unsafe extern "C" fn get(
    this: *const dss_module,
    attr: *const dss_req_attr,
    out: *mut *mut dss_sched_req,
) -> i32 {
    coded("sched_req_get", || {
        let module = module("sched_req_get", this)?;
        let here = place("sched_req_get", Some(module), Place::Main)?;
        // SAFETY: H1.
        let attr = unsafe { attr.as_ref() }.ok_or(Der::INVAL)?;
        let class = Class::from_raw(attr.r#type).ok_or(Der::INVAL)?;
        if out.is_null() {
            return Err(Der::INVAL);
        }
        let turns = Rc::new(Turns {
            req: SchedReq::new(&scheduler()?, PoolId(attr.pool_uuid), class),
            waker: RefCell::default(),
        });
        let handle = here.handles.insert(module, Object::Sched(turns));
        // SAFETY: H1.
        unsafe { out.write(handle.map_err(|_| Der::NOMEM)?) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn turn(req: *mut dss_sched_req, lent: *const dss_waker) -> i32 {
    entry("sched_req_turn", Der::MISC.neg(), || {
        let turns = match turns("sched_req_turn", req) {
            Ok(turns) => turns,
            Err(der) => return der.neg(),
        };
        let mut cached = turns.waker.borrow_mut();
        // SAFETY: H1, W2.
        let same = cached
            .as_ref()
            .is_some_and(|(kept, _)| unsafe { kept.is(lent) });
        if !same {
            // SAFETY: H1, W2.
            let Some(kept) = (unsafe { Kept::clone_of(lent) }).map(Arc::new) else {
                return Der::INVAL.neg();
            };
            *cached = Some((Arc::clone(&kept), Waker::from(kept)));
        }
        let waker = cached.as_ref().map(|(_, waker)| waker.clone());
        drop(cached);
        let Some(waker) = waker else {
            return Der::INVAL.neg();
        };
        match turns.req.poll_turn(&mut Context::from_waker(&waker)) {
            Poll::Ready(()) => DSS_TASK_READY,
            Poll::Pending => DSS_TASK_PENDING,
        }
    })
}

pub(crate) unsafe extern "C" fn yield_now(req: *mut dss_sched_req) -> i32 {
    coded("sched_req_yield", || {
        let me = calling_ult("sched_req_yield")?;
        let turns = turns("sched_req_yield", req)?;
        me.wait(turns.req.turn());
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn asleep(req: *mut dss_sched_req, asleep: i32) -> i32 {
    coded("sched_req_asleep", || {
        turns("sched_req_asleep", req)?.req.set_asleep(asleep != 0);
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn put(req: *mut dss_sched_req) {
    entry("sched_req_put", (), || {
        let Ok(here) = place("sched_req_put", None, Place::Xstream) else {
            return;
        };
        let taken = here
            .handles
            .take(req, |object| matches!(object, Object::Sched(_)));
        drop(taken.map_err(bad_handle("sched_req_put")));
    });
}

pub(crate) unsafe extern "C" fn space_report(
    this: *const dss_module,
    uuid: *const u8,
    total: u64,
    free: u64,
    gc_gap_ms: u32,
) -> i32 {
    coded("space_report", || {
        let module = module("space_report", this)?;
        place("space_report", Some(module), Place::Main)?;
        // SAFETY: H1.
        let pool = unsafe { pool(uuid) }?;
        let medium = Medium {
            total,
            free,
            reserved: 0,
        };
        scheduler()?.report_space(pool, &[medium], gc_gap_ms.into());
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn space_pressure(this: *const dss_module, uuid: *const u8) -> i32 {
    entry("space_pressure", Der::MISC.neg(), || {
        let level = || {
            let module = module("space_pressure", this)?;
            place("space_pressure", Some(module), Place::Main)?;
            // SAFETY: H1.
            let pool = unsafe { pool(uuid) }?;
            Ok(scheduler()?.space_pressure(pool))
        };
        level().map_or_else(Der::neg, i32::from)
    })
}

pub(crate) unsafe extern "C" fn space_forget(this: *const dss_module, uuid: *const u8) -> i32 {
    coded("space_forget", || {
        let module = module("space_forget", this)?;
        place("space_forget", Some(module), Place::Main)?;
        // SAFETY: H1.
        scheduler()?.pool_gone(unsafe { pool(uuid) }?);
        Ok(())
    })
}
