//! Eventuals, mutexes, conditions and barriers between ULTs of several xstreams.
//!
//! Invariant: as `raw.rs`.
#![allow(unsafe_code, reason = "calls through the table, as a C module does")]

use super::fixture::Engine;
use super::places::REFUSED;
use super::raw::host;
use super::ults::{Handle, ULTS, attr, engine, here, on, spawn, start};
use daos_errno::Der;
use module_abi::*;
use std::ptr::null_mut;
use std::sync::Mutex;

/// Makes an object on the system xstream.
fn made<T: 'static>(
    engine: &Engine,
    create: unsafe extern "C" fn(*const dss_module, *mut *mut T) -> i32,
) -> Handle<T> {
    engine.on(&engine.system(), move || {
        let mut out = null_mut();
        // SAFETY: see the top of the file.
        assert_eq!(unsafe { create(&raw const ULTS, &raw mut out) }, 0);
        Handle::new(out)
    })
}

#[test]
fn an_eventual_is_set_once_from_anywhere_and_heard_everywhere() {
    let engine = engine();
    let ev = made(&engine, host().eventual_create);
    let far = on(&engine, &engine.main(0), move || {
        // SAFETY: see the top of the file.
        unsafe {
            let mut value = 0;
            assert_eq!((host().eventual_test)(ev.get(), &raw mut value), 0);
            assert_eq!(
                (host().eventual_wait)(ev.get(), 1, &raw mut value),
                Der::TIMEDOUT.neg()
            );
            assert_eq!(
                (host().eventual_wait)(ev.get(), 0, &raw mut value),
                Der::TIMEDOUT.neg()
            );
            let sets = move || assert_eq!((host().eventual_set)(ev.get(), -5), 0);
            assert_eq!(spawn(&attr(c"sets", DSS_XS_VOS, 1), None, sets), 0);
            assert_eq!(
                (host().eventual_wait)(ev.get(), DSS_FOREVER, &raw mut value),
                0
            );
            value
        }
    });
    assert_eq!(far, -5);
    // SAFETY: see the top of the file: from the main thread.
    unsafe {
        assert_eq!((host().eventual_set)(ev.get(), 1), Der::ALREADY.neg());
        assert_eq!((host().eventual_test)(ev.get(), null_mut()), 1);
        assert_eq!((host().eventual_reset)(ev.get()), 0);
        assert_eq!((host().eventual_test)(ev.get(), null_mut()), 0);
        assert_eq!((host().eventual_set)(ev.get(), 1), 0);
        assert_eq!((host().eventual_free)(ev.get()), 0);
        assert_eq!(
            (host().eventual_set)(ev.get(), 1),
            Der::INVAL.neg(),
            "stale"
        );
        let mut out = null_mut();
        assert_eq!(
            (host().eventual_create)(&raw const ULTS, &raw mut out),
            REFUSED
        );
    }
    engine.stop();
}

#[test]
fn a_ult_waits_for_what_a_plain_task_or_message_of_its_xstream_gives() {
    let engine = engine();
    let ev = made(&engine, host().eventual_create);
    let (mutex, cond) = (
        made(&engine, host().mutex_create),
        made(&engine, host().cond_create),
    );
    let main = engine.main(0);
    let waits = start(&engine, &main, move || {
        // SAFETY: see the top of the file.
        unsafe {
            let mut value = 0;
            assert_eq!(
                (host().eventual_wait)(ev.get(), DSS_FOREVER, &raw mut value),
                0
            );
            assert_eq!((host().eventual_reset)(ev.get()), 0);
            assert_eq!((host().mutex_lock)(mutex.get(), DSS_FOREVER), 0);
            let task = move |_: &_| async move {
                // A task may give; what waits is refused.
                assert_eq!((host().mutex_lock)(mutex.get(), 0), REFUSED);
                assert_eq!((host().cond_signal)(cond.get()), 0);
            };
            let here = engine_xstream::current().unwrap();
            here.xref().spawn("gives", task).unwrap();
            assert_eq!((host().cond_wait)(cond.get(), mutex.get(), DSS_FOREVER), 0);
            assert_eq!((host().mutex_unlock)(mutex.get()), 0);
            value
        }
    });
    // SAFETY: see the top of the file.
    let set = engine.on(&main, move || unsafe { (host().eventual_set)(ev.get(), 9) });
    assert_eq!((set, waits.get()), (0, 9));
    engine.stop();
}

#[test]
fn who_waits_for_an_eventual_that_is_freed_is_sent_away() {
    let engine = engine();
    let ev = made(&engine, host().eventual_create);
    let rc = on(&engine, &engine.main(0), move || {
        // SAFETY: see the top of the file.
        unsafe {
            let frees = move || assert_eq!((host().eventual_free)(ev.get()), 0);
            assert_eq!(spawn(&attr(c"frees", DSS_XS_SYS, -1), None, frees), 0);
            (host().eventual_wait)(ev.get(), DSS_FOREVER, null_mut())
        }
    });
    // Gone before or while it waited.
    assert!(
        [Der::CANCELED.neg(), Der::INVAL.neg()].contains(&rc),
        "{rc}"
    );
    engine.stop();
}

#[test]
fn a_mutex_keeps_ults_of_all_xstreams_apart_over_waits() {
    static INSIDE: Mutex<Vec<i32>> = Mutex::new(vec![]);
    let engine = engine();
    let mutex = made(&engine, host().mutex_create);
    on(&engine, &engine.main(0), move || {
        // SAFETY: see the top of the file.
        unsafe {
            assert_eq!((host().mutex_unlock)(mutex.get()), Der::NO_PERM.neg());
            assert_eq!((host().mutex_lock)(mutex.get(), DSS_FOREVER), 0);
            assert_eq!(
                (host().mutex_lock)(mutex.get(), 0),
                Der::BUSY.neg(),
                "its own"
            );
            let mut others = vec![];
            for (kind, target) in [
                (DSS_XS_VOS, 1),
                (DSS_XS_SYS, -1),
                (DSS_XS_SELF, -1),
                (DSS_XS_OFFLOAD, 0),
            ] {
                let mut ult = null_mut();
                let locks = move || {
                    assert_eq!((host().mutex_unlock)(mutex.get()), Der::NO_PERM.neg());
                    assert_eq!((host().mutex_lock)(mutex.get(), DSS_FOREVER), 0);
                    INSIDE.lock().unwrap().push(here());
                    assert_eq!((host().ult_sleep)(1), 0);
                    INSIDE.lock().unwrap().push(here());
                    assert_eq!((host().mutex_unlock)(mutex.get()), 0);
                };
                assert_eq!(
                    spawn(&attr(c"locks", kind, target), Some(&mut ult), locks),
                    0
                );
                others.push(ult);
            }
            assert_eq!((host().ult_sleep)(2), 0);
            assert!(INSIDE.lock().unwrap().is_empty(), "it is held");
            assert_eq!((host().mutex_free)(mutex.get()), Der::BUSY.neg());
            assert_eq!((host().mutex_unlock)(mutex.get()), 0);
            for ult in others {
                assert_eq!((host().ult_join)(ult), 0);
                assert_eq!((host().ult_free)(ult), 0);
            }
            assert_eq!((host().mutex_lock)(mutex.get(), 0), 0);
            assert_eq!((host().mutex_unlock)(mutex.get()), 0);
            assert_eq!((host().mutex_free)(mutex.get()), 0);
        }
    });
    let inside = INSIDE.lock().unwrap().clone();
    assert_eq!(inside.len(), 8);
    assert!(
        inside.chunks(2).all(|pair| pair[0] == pair[1]),
        "one at a time: {inside:?}"
    );
    engine.stop();
}

#[test]
fn a_condition_lets_go_of_the_mutex_and_has_it_again() {
    static QUEUE: Mutex<Vec<i32>> = Mutex::new(vec![]);
    let engine = engine();
    let mutex = made(&engine, host().mutex_create);
    let cond = made(&engine, host().cond_create);
    let got = on(&engine, &engine.main(0), move || {
        // SAFETY: see the top of the file.
        unsafe {
            assert_eq!(
                (host().cond_wait)(cond.get(), mutex.get(), 0),
                Der::NO_PERM.neg()
            );
            assert_eq!((host().mutex_lock)(mutex.get(), DSS_FOREVER), 0);
            let timed = (host().cond_wait)(cond.get(), mutex.get(), 1);
            assert_eq!(timed, Der::TIMEDOUT.neg());
            let puts = move || {
                for value in 1..=3 {
                    assert_eq!((host().mutex_lock)(mutex.get(), DSS_FOREVER), 0);
                    QUEUE.lock().unwrap().push(value);
                    assert_eq!((host().mutex_unlock)(mutex.get()), 0);
                    assert_eq!((host().cond_signal)(cond.get()), 0);
                    assert_eq!((host().ult_yield)(), 0);
                }
            };
            assert_eq!(spawn(&attr(c"puts", DSS_XS_VOS, 1), None, puts), 0);
            let mut got = vec![];
            while got.len() < 3 {
                got.append(&mut QUEUE.lock().unwrap());
                if got.len() < 3 {
                    assert_eq!((host().cond_wait)(cond.get(), mutex.get(), DSS_FOREVER), 0);
                }
            }
            assert_eq!((host().mutex_unlock)(mutex.get()), 0, "it has it again");
            assert_eq!((host().cond_broadcast)(cond.get()), 0);
            assert_eq!((host().cond_free)(cond.get()), 0);
            got
        }
    });
    assert_eq!(got, [1, 2, 3]);
    engine.stop();
}

#[test]
fn a_barrier_opens_for_all_when_the_last_has_come() {
    static ARRIVED: Mutex<Vec<i32>> = Mutex::new(vec![]);
    let engine = engine();
    let barrier = engine.on(&engine.system(), || {
        let (mut none, mut out) = (null_mut(), null_mut());
        // SAFETY: see the top of the file.
        unsafe {
            let nobody = (host().barrier_create)(&raw const ULTS, 0, &raw mut none);
            assert_eq!(nobody, Der::INVAL.neg());
            assert_eq!((host().barrier_create)(&raw const ULTS, 3, &raw mut out), 0);
        }
        Handle::new(out)
    });
    on(&engine, &engine.main(0), move || {
        // SAFETY: see the top of the file.
        unsafe {
            let meets = move || {
                ARRIVED.lock().unwrap().push(here());
                let last = (host().barrier_wait)(barrier.get());
                assert_eq!(ARRIVED.lock().unwrap().len(), 3, "all have come");
                last
            };
            let mut ults = vec![null_mut(); 2];
            for (ult, target) in ults.iter_mut().zip(0..) {
                let far = move || assert!(meets() >= 0);
                assert_eq!(
                    spawn(&attr(c"meets", DSS_XS_VOS, target), Some(ult), far),
                    0
                );
            }
            assert!([0, 1].contains(&meets()));
            for ult in ults {
                assert_eq!((host().ult_join)(ult), 0);
                assert_eq!((host().ult_free)(ult), 0);
            }
            assert_eq!((host().barrier_free)(barrier.get()), 0);
        }
    });
    engine.stop();
}

#[test]
fn what_a_module_leaves_behind_is_stale_for_the_next_engine() {
    let first = engine();
    let ev = made(&first, host().eventual_create);
    first.stop();
    let second = engine();
    // SAFETY: see the top of the file.
    let stale = unsafe { (host().eventual_set)(ev.get(), 1) };
    assert_eq!(stale, Der::INVAL.neg());
    second.stop();
}
