//! The end of ULTs over the table: aborts, also of those that wait, and panics.
//!
//! Invariant: as `raw.rs`.
#![allow(unsafe_code, reason = "calls through the table, as a C module does")]

use super::places::REFUSED;
use super::raw::host;
use super::ults::{Handle, ULTS, attr, engine, here, on, spawn};
use daos_errno::Der;
use module_abi::*;
use std::ffi::c_void;
use std::panic::catch_unwind;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

const CANCELED: i32 = Der::CANCELED.neg();
const TIMEDOUT: i32 = Der::TIMEDOUT.neg();

#[test]
fn aborts_reach_the_sleeping_and_the_running_and_leave_the_finished_alone() {
    let engine = engine();
    on(&engine, &engine.system(), || {
        static ROUNDS: AtomicU32 = AtomicU32::new(0);
        let sleeps = || {
            // SAFETY: see the top of the file.
            unsafe {
                assert_eq!((host().ult_sleep)(u64::MAX), 1);
                assert_eq!((host().ult_yield)(), 1);
                assert_eq!((host().ult_sleep)(u64::MAX), 0, "aborted: it only yields");
            }
        };
        let loops = || {
            // SAFETY: see the top of the file.
            while unsafe { (host().ult_yield)() } == 0 {
                ROUNDS.fetch_add(1, Ordering::Relaxed);
            }
        };
        let (mut asleep, mut running) = (null_mut(), null_mut());
        assert_eq!(
            spawn(&attr(c"sleeps", DSS_XS_VOS, 0), Some(&mut asleep), sleeps),
            0
        );
        assert_eq!(
            spawn(&attr(c"loops", DSS_XS_VOS, 0), Some(&mut running), loops),
            0
        );
        while ROUNDS.load(Ordering::Relaxed) < 3 {
            // SAFETY: see the top of the file.
            assert_eq!(unsafe { (host().ult_yield)() }, 0);
        }
        for ult in [asleep, running] {
            // SAFETY: see the top of the file.
            unsafe {
                assert_eq!((host().ult_abort)(ult), 0);
                assert_eq!((host().ult_join)(ult), 0);
                assert_eq!((host().ult_abort)(ult), 0, "finished");
                assert_eq!((host().ult_wake)(ult), 0);
                assert_eq!((host().ult_free)(ult), 0);
            }
        }
    });
    engine.stop();
}

/// Aborts one on target 1 while it waits so, does something, and joins it; what its wait answered.
fn aborted_in(flags: u32, wait: impl FnOnce() -> i32 + Send + 'static, then: impl FnOnce()) -> i32 {
    let (begun, rc) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicI32::new(77)),
    );
    let waits = {
        let (begun, rc) = (Arc::clone(&begun), Arc::clone(&rc));
        move || {
            begun.store(true, Ordering::Release); // it does not give way before it waits
            rc.store(wait(), Ordering::Release);
        }
    };
    let a = dss_ult_attr {
        flags,
        ..attr(c"waits", DSS_XS_VOS, 1)
    };
    let mut ult = null_mut();
    assert_eq!(spawn(&a, Some(&mut ult), waits), 0);
    // SAFETY: see the top of the file.
    unsafe {
        while !begun.load(Ordering::Acquire) {
            assert_eq!((host().ult_yield)(), 0);
        }
        assert_eq!((host().ult_abort)(ult), 0);
        then();
        assert_eq!((host().ult_join)(ult), 0);
        assert_eq!((host().ult_free)(ult), 0);
    }
    rc.load(Ordering::Acquire)
}

/// An object made where this runs.
fn made<T>(create: unsafe extern "C" fn(*const dss_module, *mut *mut T) -> i32) -> Handle<T> {
    let mut out = null_mut();
    // SAFETY: see the top of the file.
    assert_eq!(unsafe { create(&raw const ULTS, &raw mut out) }, 0);
    Handle::new(out)
}

#[test]
fn an_abort_ends_the_wait_of_one_that_was_made_so_and_leaves_the_object_whole() {
    let engine = engine();
    on(&engine, &engine.main(0), || {
        let cancels =
            |wait: Box<dyn FnOnce() -> i32 + Send>| aborted_in(DSS_ULT_CANCEL, wait, || ());
        let (ev, mutex, own) = (
            made(host().eventual_create),
            made(host().mutex_create),
            made(host().mutex_create),
        );
        let (cond, me) = (made(host().cond_create), Handle::new(me()));
        // SAFETY: see the top of the file.
        unsafe {
            for timeout in [DSS_FOREVER, 3_600_000] {
                let wait = move || (host().eventual_wait)(ev.get(), timeout, null_mut());
                assert_eq!(cancels(Box::new(wait)), CANCELED);
            }
            assert_eq!((host().mutex_lock)(mutex.get(), DSS_FOREVER), 0);
            let locks = move || {
                let rc = (host().mutex_lock)(mutex.get(), DSS_FOREVER);
                assert_eq!((host().mutex_unlock)(mutex.get()), Der::NO_PERM.neg());
                rc
            };
            assert_eq!(cancels(Box::new(locks)), CANCELED);
            assert_eq!(
                (host().mutex_unlock)(mutex.get()),
                0,
                "nobody else was handed it"
            );
            assert_eq!((host().mutex_free)(mutex.get()), 0);
            let signalled = move || {
                assert_eq!((host().mutex_lock)(own.get(), DSS_FOREVER), 0);
                let rc = (host().cond_wait)(cond.get(), own.get(), DSS_FOREVER);
                assert_eq!((host().mutex_unlock)(own.get()), 0, "it has it again");
                rc
            };
            assert_eq!(cancels(Box::new(signalled)), CANCELED);
            assert_eq!((host().cond_free)(cond.get()), 0, "nobody waits");
            let mut barrier = null_mut();
            assert_eq!(
                (host().barrier_create)(&raw const ULTS, 2, &raw mut barrier),
                0
            );
            let barrier = Handle::new(barrier);
            let meets = move || (host().barrier_wait)(barrier.get());
            assert_eq!(cancels(Box::new(meets)), CANCELED);
            assert_eq!((host().barrier_free)(barrier.get()), 0, "it does not count");
            let joins = move || (host().ult_join)(me.get());
            assert_eq!(cancels(Box::new(joins)), CANCELED, "which waits for it");
        }
    });
    engine.stop();
}

fn me() -> *mut dss_ult {
    // SAFETY: see the top of the file.
    unsafe { (host().ult_self)() }
}

#[test]
fn an_abort_is_told_once_so_that_what_cleans_up_can_wait() {
    let engine = engine();
    on(&engine, &engine.main(0), || {
        let ev = made(host().eventual_create);
        // SAFETY: see the top of the file.
        unsafe {
            let wait = move |timeout| (host().eventual_wait)(ev.get(), timeout, null_mut());
            let by_a_wait = move || {
                assert_eq!(wait(DSS_FOREVER), CANCELED);
                assert_eq!((host().ult_yield)(), 1);
                wait(1)
            };
            assert_eq!(aborted_in(DSS_ULT_CANCEL, by_a_wait, || ()), TIMEDOUT);
            let by_a_sleep = move || {
                assert_eq!((host().ult_sleep)(u64::MAX), 1);
                wait(1)
            };
            assert_eq!(aborted_in(DSS_ULT_CANCEL, by_a_sleep, || ()), TIMEDOUT);
            // What is there is given.
            assert_eq!((host().eventual_set)(ev.get(), 5), 0);
            let there = move || {
                while (host().ult_yield)() == 0 {}
                wait(DSS_FOREVER)
            };
            assert_eq!(aborted_in(DSS_ULT_CANCEL, there, || ()), 0);
        }
    });
    engine.stop();
}

#[test]
fn one_that_was_not_made_so_waits_on_after_an_abort() {
    let engine = engine();
    on(&engine, &engine.main(0), || {
        let ev = made(host().eventual_create);
        // SAFETY: see the top of the file.
        unsafe {
            let wait = move || (host().eventual_wait)(ev.get(), DSS_FOREVER, null_mut());
            let sets = move || {
                let (mut ult, nothing) = (null_mut(), || ());
                assert_eq!(
                    spawn(&attr(c"after", DSS_XS_VOS, 1), Some(&mut ult), nothing),
                    0
                );
                assert_eq!((host().ult_join)(ult), 0, "the abort has come before");
                assert_eq!((host().ult_free)(ult), 0);
                assert_eq!((host().eventual_set)(ev.get(), 5), 0);
            };
            assert_eq!(aborted_in(0, wait, sets), 0);
        }
    });
    engine.stop();
}

#[test]
fn one_that_is_aborted_before_it_begins_hears_of_it() {
    static SEEN: Mutex<Vec<i32>> = Mutex::new(vec![]);
    let engine = engine();
    on(&engine, &engine.main(0), || {
        let ev = made(host().eventual_create);
        let a = dss_ult_attr {
            flags: DSS_ULT_CANCEL,
            ..attr(c"early", DSS_XS_SELF, -1)
        };
        // SAFETY: see the top of the file.
        unsafe {
            let body = move || {
                let wait = (host().eventual_wait)(ev.get(), DSS_FOREVER, null_mut());
                SEEN.lock().unwrap().extend([wait, (host().ult_yield)()]);
            };
            let mut ult = null_mut();
            assert_eq!(spawn(&a, Some(&mut ult), body), 0);
            assert_eq!((host().ult_abort)(ult), 0);
            assert!(SEEN.lock().unwrap().is_empty());
            assert_eq!((host().ult_join)(ult), 0);
            assert_eq!((host().ult_free)(ult), 0);
        }
    });
    assert_eq!(*SEEN.lock().unwrap(), [CANCELED, 1]);
    engine.stop();
}

#[test]
fn the_end_of_the_engine_ends_waits_too() {
    static ENDED: AtomicI32 = AtomicI32::new(0);
    let engine = engine();
    let begun = engine.on(&engine.main(0), || {
        let a = dss_ult_attr {
            flags: DSS_ULT_CANCEL,
            ..attr(c"waits", DSS_XS_SELF, -1)
        };
        let ev = made(host().eventual_create);
        spawn(&a, None, move || {
            // SAFETY: see the top of the file.
            let rc = unsafe { (host().eventual_wait)(ev.get(), DSS_FOREVER, null_mut()) };
            ENDED.store(rc, Ordering::Release);
        })
    });
    assert_eq!(begun, 0);
    engine.stop();
    assert_eq!(ENDED.load(Ordering::Acquire), CANCELED);
}

/// An exception, as C++ would throw one: it leaves the module's function.
unsafe extern "C-unwind" fn throws(_: *mut c_void) {
    // SAFETY: see the top of the file.
    if unsafe { (host().ult_yield)() } == 0 {
        panic!("as asked");
    }
}

#[test]
fn an_exception_ends_its_ult_and_all_who_join_hear_of_it() {
    let engine = engine();
    on(&engine, &engine.main(0), || {
        let a = attr(c"throws", DSS_XS_VOS, 1);
        let mut ult = null_mut();
        let throws: unsafe extern "C-unwind" fn(*mut c_void) = throws;
        // SAFETY: the same convention, but for what it throws, which is what is tested; else see the top of the file.
        unsafe {
            let func = std::mem::transmute::<
                unsafe extern "C-unwind" fn(*mut c_void),
                unsafe extern "C" fn(*mut c_void),
            >(throws);
            let made = (host().ult_create)(
                &raw const ULTS,
                &raw const a,
                Some(func),
                null_mut(),
                &raw mut ult,
            );
            assert_eq!(made, 0);
            let far = Handle::new(ult);
            let mut other = null_mut();
            let joins = move || assert_eq!((host().ult_join)(far.get()), Der::MISC.neg());
            assert_eq!(
                spawn(&attr(c"joins", DSS_XS_SYS, -1), Some(&mut other), joins),
                0
            );
            assert_eq!((host().ult_join)(ult), Der::MISC.neg());
            assert_eq!((host().ult_join)(other), 0);
            assert_eq!((host().ult_free)(ult), 0);
            assert_eq!((host().ult_free)(other), 0);
        }
    });
    engine.stop();
}

/// Waits when it is dropped, and keeps the answers.
struct Waits(Arc<Mutex<Vec<i32>>>);

impl Drop for Waits {
    fn drop(&mut self) {
        // SAFETY: see the top of the file.
        let answers = unsafe { [(host().ult_yield)(), (host().ult_sleep)(1)] };
        self.0.lock().unwrap().extend(answers);
    }
}

#[test]
fn what_is_dropped_may_wait_but_not_while_a_panic_unwinds() {
    let engine = engine();
    on(&engine, &engine.main(0), || {
        let answers = Arc::new(Mutex::new(vec![]));
        let waits = Waits(Arc::clone(&answers));
        let panicked = catch_unwind(move || {
            let _waits = waits;
            assert!(here() < 0, "as asked");
        });
        assert!(panicked.is_err());
        assert_eq!(*answers.lock().unwrap(), [REFUSED, REFUSED]);
        drop(Waits(Arc::clone(&answers)));
        assert_eq!(answers.lock().unwrap()[2..], [0, 0]);
    });
    engine.stop();
}
