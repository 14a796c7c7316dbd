//! ULTs with a stack of their own: creating, executing, joining, waking, aborting, yielding, sleeping.
//!
//! Invariants: H1, H3 and H4 of `guard.rs`. A ULT's function runs on one xstream, on one stack, once at a time: what makes moving
//! `func` and `arg` there sound is the module's promise (H3).
#![allow(
    unsafe_code,
    reason = "functions that modules call; module pointers travel between xstreams"
)]

use super::task::serves;
use crate::guard::{Place, bad_handle, coded, entry, module, place, ult as calling_ult};
use crate::modules::ModuleEntry;
use crate::names::{c_text, task_name};
use crate::shared::{self, Shared, UltHandle};
use crate::sync::Eventual;
use crate::ult::{Spec, Told, run};
use daos_errno::Der;
use engine_xstream::{Role, Slept, UltRequest, XsType, Xstream, XstreamRef};
use module_abi::{
    DSS_DEEP_STACK_SZ, DSS_ULT_CANCEL, DSS_ULT_DEEP_STACK, DSS_ULT_PERIODIC, dss_exec_func_t,
    dss_func_t, dss_module, dss_ult, dss_ult_attr,
};
use std::ffi::{c_char, c_void};
use std::future::Future;
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::Arc;

type PlainFn = unsafe extern "C" fn(*mut c_void);
type ExecFn = unsafe extern "C" fn(*mut c_void) -> i32;
type UnwindingPlain = unsafe extern "C-unwind" fn(*mut c_void);
type UnwindingExec = unsafe extern "C-unwind" fn(*mut c_void) -> i32;

/// What a ULT runs.
#[derive(Clone, Copy)]
enum Func {
    Plain(PlainFn),
    Exec(ExecFn),
}

/// A function with its argument, and perhaps one to call after it.
#[derive(Clone, Copy)]
struct Work {
    func: Func,
    arg: *mut c_void,
    done: Option<(unsafe extern "C" fn(*mut c_void), *mut c_void)>,
}

// SAFETY: H3.
unsafe impl Send for Work {}

impl Work {
    fn plain(func: dss_func_t, arg: *mut c_void) -> Result<Work, Der> {
        let func = Func::Plain(func.ok_or(Der::INVAL)?);
        Ok(Work {
            func,
            arg,
            done: None,
        })
    }

    fn exec(func: dss_exec_func_t, arg: *mut c_void) -> Result<Work, Der> {
        let func = Func::Exec(func.ok_or(Der::INVAL)?);
        Ok(Work {
            func,
            arg,
            done: None,
        })
    }

    fn call(self) -> i32 {
        let rc = match self.func {
            Func::Plain(func) => {
                // SAFETY: H3; the same convention, but for what an exception does: it is caught at the stack's base.
                let func = unsafe { transmute::<PlainFn, UnwindingPlain>(func) };
                // SAFETY: H3.
                unsafe { func(self.arg) };
                0
            }
            Func::Exec(func) => {
                // SAFETY: as above.
                let func = unsafe { transmute::<ExecFn, UnwindingExec>(func) };
                // SAFETY: H3.
                unsafe { func(self.arg) }
            }
        };
        if let Some((done, arg)) = self.done {
            // SAFETY: H3: once, after the function.
            unsafe { done(arg) }
        }
        rc
    }
}

/// Attributes that the header allows.
///
/// # Safety
/// `attr` is NULL or what the header says (H1).
pub(super) unsafe fn spec(
    module: &'static ModuleEntry,
    attr: *const dss_ult_attr,
) -> Result<(Spec, dss_ult_attr), Der> {
    // SAFETY: the caller's promise.
    let attr = unsafe { attr.as_ref() }.ok_or(Der::INVAL)?;
    // SAFETY: H1.
    let name = unsafe { c_text(attr.name) };
    let known = DSS_ULT_PERIODIC | DSS_ULT_DEEP_STACK | DSS_ULT_CANCEL;
    if name.is_empty() || attr.flags & !known != 0 {
        return Err(Der::INVAL);
    }
    let stack_size = match usize::try_from(attr.stack_size).map_err(|_| Der::INVAL)? {
        0 if attr.flags & DSS_ULT_DEEP_STACK != 0 => DSS_DEEP_STACK_SZ as usize,
        size => size,
    };
    let spec = Spec {
        module,
        name: task_name(module, name),
        stack_size,
        cancels: attr.flags & DSS_ULT_CANCEL != 0,
        quiet: attr.flags & DSS_ULT_PERIODIC != 0 || attr.period_ms != 0,
        period_ns: u64::from(attr.period_ms) * 1_000_000,
    };
    Ok((spec, *attr))
}

/// The xstream that the attributes ask for; `None`: the caller's own, which needs no message.
fn wanted(
    module: &ModuleEntry,
    xstream: &Xstream,
    attr: &dss_ult_attr,
) -> Result<Option<XstreamRef>, Der> {
    match XsType::from_raw(attr.xs_type).ok_or(Der::INVAL)? {
        XsType::OnSelf => Ok(None),
        kind => {
            let to = serves(module, xstream.set(), kind, attr.tgt_id)?;
            Ok(Some(to).filter(|to| to.id() != xstream.id()))
        }
    }
}

/// Creates the ULT; at once on the own xstream, by message on another.
fn start(
    xstream: &Xstream,
    to: Option<XstreamRef>,
    spec: Spec,
    work: Work,
) -> Result<UltHandle, Der> {
    let ended = Arc::new(Eventual::default());
    let body = move || work.call();
    let told = Told::new(&ended);
    let make = move |request: UltRequest| run(spec, request, told, body);
    let address = match to {
        None => {
            let (ult, request) = xstream.create(spec.name, make).map_err(|e| e.der())?;
            ult.detach();
            request.address()
        }
        Some(to) => {
            let made = to.create(spec.name, move |_, request| make(request));
            made.map_err(|error| error.der())?.detach()
        }
    };
    Ok(UltHandle { address, ended })
}

pub(crate) unsafe extern "C" fn create(
    this: *const dss_module,
    attr: *const dss_ult_attr,
    func: dss_func_t,
    arg: *mut c_void,
    out: *mut *mut dss_ult,
) -> i32 {
    coded("ult_create", || {
        let module = module("ult_create", this)?;
        let here = place("ult_create", Some(module), Place::Xstream)?;
        let xstream = engine_xstream::current().ok_or(Der::OP_NOT_PERMITTED)?;
        // SAFETY: H1.
        let (spec, attr) = unsafe { spec(module, attr) }?;
        let work = Work::plain(func, arg)?;
        let to = wanted(module, &xstream, &attr)?;
        if out.is_null() {
            return start(&xstream, to, spec, work).map(drop);
        }
        shared::room(here.info.dmi_xs_id)?;
        let ult = Shared::Ult(Arc::new(start(&xstream, to, spec, work)?));
        let handle = shared::insert(here.info.dmi_xs_id, module, ult)?;
        // SAFETY: H1.
        unsafe { out.write(handle) };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn execute(
    this: *const dss_module,
    attr: *const dss_ult_attr,
    func: dss_exec_func_t,
    arg: *mut c_void,
    done: dss_func_t,
    done_arg: *mut c_void,
) -> i32 {
    entry("ult_execute", Der::MISC.neg(), || {
        let started = || {
            let module = module("ult_execute", this)?;
            place("ult_execute", Some(module), Place::Xstream)?;
            let xstream = engine_xstream::current().ok_or(Der::OP_NOT_PERMITTED)?;
            let waits = match done {
                None => Some(calling_ult("ult_execute")?),
                Some(_) => None,
            };
            // SAFETY: H1.
            let (spec, attr) = unsafe { spec(module, attr) }?;
            let work = Work {
                done: done.map(|done| (done, done_arg)),
                ..Work::exec(func, arg)?
            };
            let to = wanted(module, &xstream, &attr)?;
            Ok((waits, start(&xstream, to, spec, work)?))
        };
        match started() {
            Err(der) => Der::neg(der),
            Ok((None, _)) => 0,
            Ok((Some(ult), made)) => result(ult.wait(made.ended.wait("execute"))),
        }
    })
}

/// What a ULT ended with.
fn result(ended: Result<i64, Der>) -> i32 {
    ended.map_or_else(Der::neg, |rc| i32::try_from(rc).unwrap_or(Der::MISC.neg()))
}

pub(crate) unsafe extern "C" fn create_all(
    this: *const dss_module,
    attr: *const dss_ult_attr,
    func: dss_func_t,
    arg: *mut c_void,
    main_only: i32,
) -> i32 {
    coded("ult_create_all", || {
        let module = module("ult_create_all", this)?;
        place("ult_create_all", Some(module), Place::Xstream)?;
        let xstream = engine_xstream::current().ok_or(Der::OP_NOT_PERMITTED)?;
        // SAFETY: H1.
        let (spec, _) = unsafe { spec(module, attr) }?;
        let work = Work::plain(func, arg)?;
        let set = xstream.set().ok_or(Der::UNINIT)?;
        let made = set.create_all(spec.name, main_only != 0, move |_| named(spec, work));
        made.map_err(|(_, error)| error.der())
    })
}

/// A ULT that the xstream layer has created without a handle.
fn named(spec: Spec, work: Work) -> impl Future<Output = ()> {
    let request = UltRequest::attach(spec.name);
    async move {
        if let Some(request) = request {
            run(spec, request, Told::new(&Arc::default()), move || {
                work.call()
            })
            .await;
        }
    }
}

pub(crate) unsafe extern "C" fn offload_exec(
    this: *const dss_module,
    name: *const c_char,
    func: dss_exec_func_t,
    arg: *mut c_void,
) -> i32 {
    entry("offload_exec", Der::MISC.neg(), || {
        let started = || {
            let module = module("offload_exec", this)?;
            let here = place("offload_exec", Some(module), Place::Main)?;
            let ult = calling_ult("offload_exec")?;
            let xstream = engine_xstream::current().ok_or(Der::OP_NOT_PERMITTED)?;
            // SAFETY: H1.
            let spec = unsafe { plain_spec(module, name) }?;
            let target = here.info.dmi_tgt_id;
            let to = serves(module, xstream.set(), XsType::Offload, target)?;
            let made = start(&xstream, Some(to), spec, Work::exec(func, arg)?)?;
            Ok((ult, made))
        };
        match started() {
            Err(der) => Der::neg(der),
            Ok((ult, made)) => result(ult.wait(made.ended.wait("offload"))),
        }
    })
}

pub(crate) unsafe extern "C" fn main_exec(
    this: *const dss_module,
    name: *const c_char,
    func: dss_func_t,
    arg: *mut c_void,
) -> i32 {
    coded("main_exec", || {
        let module = module("main_exec", this)?;
        place("main_exec", Some(module), Place::Xstream)?;
        let xstream = engine_xstream::current().ok_or(Der::OP_NOT_PERMITTED)?;
        if xstream.role() == Role::Offload {
            place("main_exec", Some(module), Place::Main)?; // says so in the log
        }
        // SAFETY: H1.
        let spec = unsafe { plain_spec(module, name) }?;
        start(&xstream, None, spec, Work::plain(func, arg)?).map(drop)
    })
}

/// # Safety
/// `name` is NULL or a C string (H1).
unsafe fn plain_spec(module: &'static ModuleEntry, name: *const c_char) -> Result<Spec, Der> {
    let attr = dss_ult_attr {
        name,
        xs_type: module_abi::DSS_XS_SELF,
        tgt_id: -1,
        stack_size: 0,
        flags: 0,
        period_ms: 0,
    };
    // SAFETY: ours, with the caller's promise for the name.
    unsafe { spec(module, &raw const attr) }.map(|(spec, _)| spec)
}

fn handle_of(function: &'static str, ult: *mut dss_ult) -> Result<Arc<UltHandle>, Der> {
    let found = shared::get(ult, |object| match object {
        Shared::Ult(ult) => Some(Arc::clone(ult)),
        _ => None,
    });
    found.map_err(bad_handle(function))
}

pub(crate) unsafe extern "C" fn join(ult: *mut dss_ult) -> i32 {
    entry("ult_join", Der::MISC.neg(), || {
        let joined = || {
            let me = calling_ult("ult_join")?;
            let ult = handle_of("ult_join", ult)?;
            if ult.address.is(&me.request.address()) {
                return Err(Der::INVAL); // it would wait for itself
            }
            me.wait_or_stop(ult.ended.wait("join"))
        };
        result(joined())
    })
}

pub(crate) unsafe extern "C" fn free(ult: *mut dss_ult) -> i32 {
    coded("ult_free", || {
        let taken = shared::take(ult, |object| {
            matches!(object, Shared::Ult(_)).then_some(Ok(()))
        });
        taken.map(drop).map_err(bad_handle("ult_free"))
    })
}

pub(crate) unsafe extern "C" fn wake(ult: *mut dss_ult) -> i32 {
    coded("ult_wake", || {
        place("ult_wake", None, Place::Xstream)?;
        let ult = handle_of("ult_wake", ult)?;
        ult.address.wake().map_err(|error| error.der())
    })
}

pub(crate) unsafe extern "C" fn abort(ult: *mut dss_ult) -> i32 {
    coded("ult_abort", || {
        place("ult_abort", None, Place::Xstream)?;
        let ult = handle_of("ult_abort", ult)?;
        ult.address.abort().map_err(|error| error.der())
    })
}

pub(crate) unsafe extern "C" fn this() -> *mut dss_ult {
    entry("ult_self", null_mut(), || {
        let Ok(here) = place("ult_self", None, Place::Xstream) else {
            return null_mut();
        };
        let Ok(me) = calling_ult("ult_self") else {
            return null_mut();
        };
        let handle = Shared::Ult(Arc::new(me.handle()));
        shared::insert(here.info.dmi_xs_id, me.module, handle).unwrap_or(null_mut())
    })
}

pub(crate) unsafe extern "C" fn yield_now() -> i32 {
    entry("ult_yield", Der::MISC.neg(), || {
        match calling_ult("ult_yield") {
            Ok(me) => {
                let stop = me.wait(me.request.yield_or_stop());
                if stop {
                    me.heard();
                }
                i32::from(stop)
            }
            Err(der) => der.neg(),
        }
    })
}

pub(crate) unsafe extern "C" fn sleep(ms: u64) -> i32 {
    entry("ult_sleep", Der::MISC.neg(), || {
        match calling_ult("ult_sleep") {
            Ok(me) => {
                let slept = me.wait(me.request.sleep(ms.saturating_mul(1_000_000)));
                let woken = slept == Slept::Woken;
                if woken && me.request.must_stop() {
                    me.heard();
                }
                i32::from(woken)
            }
            Err(der) => der.neg(),
        }
    })
}
