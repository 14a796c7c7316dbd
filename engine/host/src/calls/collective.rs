//! Collectives: the same work on the main xstreams of many targets, reduced to one result.
//!
//! Invariants: H1, H3 and H4 of `guard.rs`. `ops`, `args` and the bitmap are the caller's until the call returns, which it
//! does only after every part has ended: the calling ULT waits for all of them.
#![allow(
    unsafe_code,
    reason = "functions that modules call; module pointers travel between xstreams"
)]

use super::ult::spec;
use crate::guard::{entry, module, ult as calling_ult};
use crate::ult::{Spec, Told, run};
use daos_errno::Der;
use engine_xstream::{TargetSet, UltRequest, Xstreams};
use module_abi::{DSS_COLL_LEFT_OUT, dss_coll_args, dss_coll_ops, dss_module, dss_ult_attr};
use std::cell::RefCell;
use std::ffi::c_void;
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::Arc;

pub(crate) unsafe extern "C" fn collective(
    this: *const dss_module,
    attr: *const dss_ult_attr,
    ops: *const dss_coll_ops,
    args: *const dss_coll_args,
    tasklets: i32,
) -> i32 {
    entry("collective", Der::MISC.neg(), || {
        let checked = || {
            let module = module("collective", this)?;
            let ult = calling_ult("collective")?;
            // SAFETY: H1.
            let (spec, _) = unsafe { spec(module, attr) }?;
            // SAFETY: H1.
            let (ops, args) = unsafe { (ops.as_ref(), args.as_ref()) };
            let (ops, args) = (ops.ok_or(Der::INVAL)?, args.ok_or(Der::INVAL)?);
            let func = ops.co_func.ok_or(Der::INVAL)?;
            if ops.co_reduce_arg_alloc.is_some() && ops.co_reduce_arg_free.is_none() {
                return Err(Der::INVAL);
            }
            // SAFETY: H1: so many bytes, or NULL.
            let targets = unsafe { bitmap(args) };
            let set = engine_xstream::current().and_then(|xstream| xstream.set().cloned());
            let set = set.ok_or(Der::UNINIT)?;
            let part = Part {
                func,
                f_args: args.ca_func_args,
                st_arg: null_mut(),
            };
            let running = run_all(&set, spec, targets.as_ref(), ops, args, part, tasklets != 0);
            ult.wait(running)
        };
        checked().map_or_else(Der::neg, |()| 0)
    })
}

/// # Safety
/// As the header says of `ca_tgt_bitmap` (H1).
unsafe fn bitmap(args: &dss_coll_args) -> Option<TargetSet> {
    if args.ca_tgt_bitmap.is_null() {
        return None;
    }
    let len = u64::from(args.ca_tgt_bitmap_sz);
    // SAFETY: the caller's promise.
    Some(TargetSet::from_bytes(unsafe {
        super::rpc::bytes(args.ca_tgt_bitmap, len)
    }))
}

type PartFn = unsafe extern "C" fn(*mut c_void, *mut c_void) -> i32;
type UnwindingPart = unsafe extern "C-unwind" fn(*mut c_void, *mut c_void) -> i32;

/// One target's part.
#[derive(Clone, Copy)]
struct Part {
    func: PartFn,
    f_args: *mut c_void,
    st_arg: *mut c_void,
}

// SAFETY: H3.
unsafe impl Send for Part {}

impl Part {
    fn call(self) -> i32 {
        // SAFETY: the same convention, but for what an exception does: it is stopped at the ULT's base.
        let func = unsafe { transmute::<PartFn, UnwindingPart>(self.func) };
        // SAFETY: H3: on its target's main xstream.
        unsafe { func(self.f_args, self.st_arg) }
    }
}

/// Arguments by target, on the caller's side.
struct Arguments<'a> {
    ops: &'a dss_coll_ops,
    aggregator: *mut c_void,
    made: RefCell<Vec<(u32, *mut c_void)>>,
}

impl Arguments<'_> {
    fn make(&self, target: u32) -> Result<*mut c_void, Der> {
        let mut st_arg = null_mut();
        if let Some(alloc) = self.ops.co_reduce_arg_alloc {
            // SAFETY: H3: on the caller.
            let rc = unsafe { alloc(self.aggregator, target as i32, &raw mut st_arg) };
            Der::check(rc.min(0))?;
            self.made.borrow_mut().push((target, st_arg));
        }
        Ok(st_arg)
    }

    fn reduce(&self, target: u32, rc: i32) {
        let made = self
            .made
            .borrow()
            .iter()
            .find(|(at, _)| *at == target)
            .copied();
        let st_arg = made.map_or(null_mut(), |(_, st_arg)| st_arg);
        if let Some(reduce) = self.ops.co_reduce {
            // SAFETY: H3: on the caller, in target order.
            unsafe { reduce(self.aggregator, target as i32, st_arg, rc) }
        }
        if let (Some(free), Some(_)) = (self.ops.co_reduce_arg_free, made) {
            // SAFETY: H3: once for each that was made.
            unsafe { free(self.aggregator, st_arg) }
        }
    }
}

async fn run_all(
    set: &Xstreams,
    spec: Spec,
    targets: Option<&TargetSet>,
    ops: &dss_coll_ops,
    args: &dss_coll_args,
    part: Part,
    tasklets: bool,
) -> Result<(), Der> {
    let arguments = Arguments {
        ops,
        aggregator: args.ca_aggregator,
        made: RefCell::default(),
    };
    let argument = |target| {
        let st_arg = arguments.make(target)?;
        Ok(Part { st_arg, ..part })
    };
    let reduce = |target, result: Option<Result<(), Der>>| {
        let rc = match result {
            None => DSS_COLL_LEFT_OUT,
            Some(result) => result.map_or_else(Der::neg, |()| 0),
        };
        arguments.reduce(target, rc);
    };
    if tasklets {
        let work = |_: &_, part: Part| Der::check(part.call().min(0));
        return set
            .task_collective(spec.name, targets, argument, work, reduce)
            .await;
    }
    let work = move |_: &_, part: Part| {
        let request = UltRequest::attach(spec.name);
        async move {
            let request = request.ok_or(Der::MISC)?;
            let rc = run(spec, request, Told::new(&Arc::default()), move || {
                part.call()
            })
            .await;
            Der::check(rc.min(0))
        }
    };
    set.collective_with(spec.name, targets, argument, work, reduce)
        .await
}
