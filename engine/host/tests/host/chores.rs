//! Chores over the table, as a C module registers them.
//!
//! Invariant: as `raw.rs`.
#![allow(unsafe_code, reason = "calls through the table, as a C module does")]

use super::places::UNKNOWN;
use super::raw::host;
use super::ults::{ULTS, engine, here};
use daos_errno::Der;
use module_abi::*;
use std::ffi::{CStr, c_void};
use std::ptr::{from_mut, null, null_mut};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Notes each call as (status, xstream); answers what it is told, then that it is done.
struct Steps {
    calls: Sender<(i32, i32)>,
    answers: Vec<i32>,
}

unsafe extern "C" fn step(arg: *mut c_void, status: i32) -> i32 {
    // SAFETY: a leaked box of the test that registered it, used by one xstream at a time.
    let steps = unsafe { &mut *arg.cast::<Steps>() };
    steps.calls.send((status, here())).unwrap();
    steps.answers.pop().unwrap_or(DSS_CHORE_DONE)
}

fn steps(answers: &[i32]) -> (Steps, Receiver<(i32, i32)>) {
    let (calls, seen) = channel();
    let answers = answers.to_vec();
    (Steps { calls, answers }, seen)
}

fn attr(name: &'static CStr) -> dss_chore_attr {
    dss_chore_attr {
        name: name.as_ptr(),
        xs_type: DSS_XS_IOFW,
        tgt_id: 0,
        credits: 1,
        flags: 0,
    }
}

/// The answer, and what it said of credits.
fn register(
    module: &'static dss_module,
    attr: &dss_chore_attr,
    func: dss_chore_func_t,
    steps: Steps,
) -> (i32, u32) {
    let mut available = u32::MAX;
    let arg = from_mut(Box::leak(Box::new(steps)));
    // SAFETY: see the top of the file.
    let rc = unsafe { (host().chore_register)(module, attr, func, arg.cast(), &raw mut available) };
    (rc, available)
}

#[test]
fn a_chore_is_called_step_by_step_on_the_helper_until_it_is_done() {
    let engine = engine();
    let (work, seen) = steps(&[DSS_CHORE_YIELD, DSS_CHORE_YIELD]);
    // From the main thread, too: credits are atomic and the mailbox is for all.
    assert_eq!(register(&ULTS, &attr(c"steps"), Some(step), work).0, 0);
    let calls: Vec<_> = (0..3).map(|_| seen.recv().unwrap()).collect();
    let helper = calls[0].1;
    let expected = [DSS_CHORE_NEW, DSS_CHORE_YIELD, DSS_CHORE_YIELD].map(|status| (status, helper));
    assert_eq!(calls, expected);
    assert_eq!(engine.xstreams().offload(0).unwrap().id().0 as i32, helper);
    let (odd, seen) = steps(&[42]);
    assert_eq!(register(&ULTS, &attr(c"odd"), Some(step), odd).0, 0);
    assert_eq!(seen.recv().unwrap().0, DSS_CHORE_NEW);
    engine.stop();
    assert!(seen.try_recv().is_err(), "what it answers counts as done");
}

#[test]
fn what_is_not_a_chore_is_refused_and_its_function_never_called() {
    let engine = engine();
    let good = attr(c"steps");
    let refused = |module, attr: &dss_chore_attr, func| {
        let (work, seen) = steps(&[]);
        let (rc, available) = register(module, attr, func, work);
        assert_eq!(available, u32::MAX);
        assert!(seen.try_recv().is_err());
        rc
    };
    let inval = Der::INVAL.neg();
    assert_eq!(refused(&UNKNOWN, &good, Some(step)), inval);
    assert_eq!(refused(&ULTS, &good, None), inval);
    assert_eq!(refused(&ULTS, &attr(c""), Some(step)), inval);
    let wrong: [fn(&mut dss_chore_attr); 4] = [
        |attr| attr.xs_type = DSS_XS_VOS,
        |attr| attr.tgt_id = 9,
        |attr| attr.tgt_id = -1,
        |attr| attr.flags = 2,
    ];
    for spoil in wrong {
        let mut attr = good;
        spoil(&mut attr);
        assert_eq!(refused(&ULTS, &attr, Some(step)), inval);
    }
    // SAFETY: see the top of the file.
    let nothing = unsafe {
        (host().chore_register)(&raw const ULTS, null(), Some(step), null_mut(), null_mut())
    };
    assert_eq!(nothing, inval);
    engine.stop();
}

#[test]
fn short_of_credits_it_says_how_many_there_are() {
    let engine = engine();
    let much = |credits, flags| dss_chore_attr {
        credits,
        flags,
        ..attr(c"much")
    };
    let total = engine_xstream::CHORE_CREDITS;
    let (work, seen) = steps(&[]);
    let short = register(&ULTS, &much(total + 1, 0), Some(step), work);
    assert_eq!(short, (Der::AGAIN.neg(), total));
    assert!(seen.try_recv().is_err());
    let (work, seen) = steps(&[]);
    let urgent = register(
        &ULTS,
        &much(total + 1, DSS_CHORE_PRIORITY),
        Some(step),
        work,
    );
    assert_eq!(urgent.0, 0);
    assert_eq!(seen.recv().unwrap().0, DSS_CHORE_NEW);
    // SAFETY: see the top of the file: nobody has to want the number.
    let unasked = unsafe {
        let attr = much(total * 3, 0);
        (host().chore_register)(&raw const ULTS, &attr, Some(step), null_mut(), null_mut())
    };
    assert_eq!(unasked, Der::AGAIN.neg());
    engine.stop();
}
