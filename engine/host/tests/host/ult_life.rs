//! The life of ULTs over the table: create, join, wake, abort, execute, everywhere at once.
//!
//! Invariant: as `raw.rs`.
#![allow(unsafe_code, reason = "calls through the table, as a C module does")]

use super::fixture::Engine;
use super::places::{REFUSED, UNKNOWN, wait_for};
use super::raw::{handle, host};
use super::ults::{Handle, ULTS, attr, engine, here, on, spawn};
use daos_errno::Der;
use module_abi::*;
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

unsafe extern "C" fn nothing(_: *mut c_void) {}

unsafe extern "C" fn plus_one(arg: *mut c_void) -> i32 {
    // SAFETY: see the top of the file.
    assert_eq!(unsafe { (host().ult_sleep)(0) }, 0);
    arg.addr() as i32 * 1000 + here()
}

fn create(module: &'static dss_module, attr: &dss_ult_attr, func: dss_func_t) -> i32 {
    // SAFETY: see the top of the file.
    unsafe { (host().ult_create)(module, attr, func, null_mut(), null_mut()) }
}

#[test]
fn what_the_header_forbids_is_refused() {
    let engine = engine();
    let here = attr(c"u", DSS_XS_SELF, -1);
    assert_eq!(create(&ULTS, &here, Some(nothing)), REFUSED, "no xstream");
    let refusals = engine.on(&engine.main(0), || {
        let here = attr(c"u", DSS_XS_SELF, -1);
        [
            create(&UNKNOWN, &here, Some(nothing)),
            create(&ULTS, &here, None),
            create(&ULTS, &attr(c"", DSS_XS_SELF, -1), Some(nothing)),
            create(&ULTS, &attr(c"u", 42, -1), Some(nothing)),
            create(&ULTS, &attr(c"u", DSS_XS_VOS, 9), Some(nothing)),
            create(&ULTS, &dss_ult_attr { flags: 8, ..here }, Some(nothing)),
            // SAFETY: see the top of the file.
            unsafe {
                (host().ult_create)(
                    &raw const ULTS,
                    null(),
                    Some(nothing),
                    null_mut(),
                    null_mut(),
                )
            },
        ]
    });
    assert_eq!(refusals, [Der::INVAL.neg(); 7]);
    engine.stop();
}

/// All that only a ULT with a stack of its own may call.
fn waits() -> Vec<i32> {
    let none = null_mut();
    // SAFETY: see the top of the file: NULL handles; the place is asked first.
    unsafe {
        let a = attr(c"u", DSS_XS_SELF, -1);
        vec![
            (host().ult_yield)(),
            (host().ult_sleep)(1),
            (host().ult_join)(null_mut()),
            (host().ult_execute)(
                &raw const ULTS,
                &raw const a,
                Some(plus_one),
                none,
                None,
                none,
            ),
            (host().collective)(&raw const ULTS, &raw const a, null(), null(), 0),
            (host().eventual_wait)(null_mut(), 0, null_mut()),
            (host().mutex_lock)(null_mut(), 0),
            (host().mutex_unlock)(null_mut()),
            (host().cond_wait)(null_mut(), null_mut(), 0),
            (host().barrier_wait)(null_mut()),
            (host().bdev_io_wait)(null_mut(), null_mut()),
            (host().rpc_call_wait)(&raw const ULTS, 0, 0, null(), 0, null_mut(), null_mut()),
        ]
    }
}

#[test]
fn waiting_outside_a_ult_is_an_error_and_no_crash() {
    let engine = engine();
    assert_eq!(waits(), [REFUSED; 12], "the main thread");
    assert_eq!(
        engine.on(&engine.main(0), waits),
        [REFUSED; 12],
        "a message"
    );
    let none = || {
        // SAFETY: see the top of the file.
        unsafe { (host().ult_self)() }.is_null()
    };
    assert!(engine.on(&engine.system(), none));
    let in_ult = on(&engine, &engine.main(0), waits);
    let (inval, noperm) = (Der::INVAL.neg(), Der::NO_PERM.neg());
    assert_eq!(
        in_ult[..3],
        [0, 0, inval],
        "a ULT may; what it gives has to be right"
    );
    assert!(
        in_ult[4..].iter().all(|rc| *rc == inval || *rc == noperm),
        "{in_ult:?}"
    );
    engine.stop();
}

#[test]
fn ults_run_where_they_are_sent_and_are_joined_from_elsewhere() {
    let engine = engine();
    let seen = on(&engine, &engine.main(0), || {
        static SEEN: Mutex<Vec<i32>> = Mutex::new(vec![]);
        let mut handles = vec![];
        for (kind, target) in [
            (DSS_XS_SELF, -1),
            (DSS_XS_VOS, 1),
            (DSS_XS_SYS, -1),
            (DSS_XS_OFFLOAD, 0),
        ] {
            let mut ult = null_mut();
            let body = || {
                // SAFETY: see the top of the file.
                assert_eq!(unsafe { (host().ult_yield)() }, 0);
                SEEN.lock().unwrap().push(here());
            };
            assert_eq!(spawn(&attr(c"far", kind, target), Some(&mut ult), body), 0);
            handles.push(ult);
        }
        for ult in handles {
            // SAFETY: see the top of the file.
            unsafe {
                assert_eq!((host().ult_join)(ult), 0);
                assert_eq!((host().ult_join)(ult), 0, "any number of times");
                assert_eq!((host().ult_free)(ult), 0);
                assert_eq!((host().ult_free)(ult), Der::INVAL.neg(), "stale");
                assert_eq!((host().ult_join)(ult), Der::INVAL.neg());
                assert_eq!((host().ult_join)(handle(12345)), Der::INVAL.neg());
            }
        }
        let mut seen = SEEN.lock().unwrap().clone();
        seen.sort_unstable();
        seen
    });
    assert_eq!(seen, [0, 1, 2, 3]);
    engine.stop();
}

#[test]
fn a_ult_has_itself_as_a_handle_and_does_not_wait_for_itself() {
    let engine = engine();
    on(&engine, &engine.main(0), || {
        // SAFETY: see the top of the file.
        unsafe {
            let me = (host().ult_self)();
            assert!(!me.is_null());
            assert_eq!((host().ult_join)(me), Der::INVAL.neg());
            let me = Handle::new(me);
            let wakes = move || assert_eq!((host().ult_wake)(me.get()), 0);
            assert_eq!(spawn(&attr(c"wakes", DSS_XS_VOS, 1), None, wakes), 0);
            assert_eq!(
                (host().ult_sleep)(u64::MAX),
                1,
                "woken from another xstream"
            );
            assert_eq!((host().ult_free)(me.get()), 0);
        }
    });
    engine.stop();
}

#[test]
fn a_detached_ult_runs_on() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    let engine = engine();
    on(&engine, &engine.main(0), || {
        let mut ult = null_mut();
        let body = || {
            // SAFETY: see the top of the file.
            assert_eq!(unsafe { (host().ult_sleep)(1) }, 0);
            RAN.store(1, Ordering::Release);
        };
        assert_eq!(
            spawn(&attr(c"late", DSS_XS_SELF, -1), Some(&mut ult), body),
            0
        );
        // SAFETY: see the top of the file.
        assert_eq!(unsafe { (host().ult_free)(ult) }, 0);
    });
    wait_for("its end", || RAN.load(Ordering::Acquire) == 1);
    engine.stop();
}

fn execute(kind: i32, target: i32, arg: usize, done: dss_func_t, done_arg: usize) -> i32 {
    let a = attr(c"exec", kind, target);
    // SAFETY: see the top of the file.
    unsafe {
        (host().ult_execute)(
            &raw const ULTS,
            &raw const a,
            Some(plus_one),
            handle(arg),
            done,
            handle(done_arg),
        )
    }
}

static CALLED: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn called(arg: *mut c_void) {
    CALLED.store(arg.addr() as u32 * 10 + here() as u32, Ordering::Release);
}

#[test]
fn executing_waits_for_the_result_or_calls_back_in_the_new_ult() {
    let engine = engine();
    // Ids: 0 system, 1 and 2 mains, 3 offload.
    assert_eq!(
        on(&engine, &engine.main(0), || execute(
            DSS_XS_VOS, 1, 7, None, 0
        )),
        7002
    );
    assert_eq!(
        on(&engine, &engine.main(1), || execute(
            DSS_XS_SELF,
            0,
            8,
            None,
            0
        )),
        8002
    );
    assert_eq!(
        on(&engine, &engine.main(1), || execute(77, 0, 8, None, 0)),
        Der::INVAL.neg()
    );
    // With a call-back also from a message: it does not wait.
    assert_eq!(
        engine.on(&engine.system(), || execute(
            DSS_XS_VOS,
            0,
            1,
            Some(called),
            5
        )),
        0
    );
    wait_for("the call-back", || CALLED.load(Ordering::Acquire) == 51);
    engine.stop();
}

fn offload() -> i32 {
    // SAFETY: see the top of the file.
    unsafe { (host().offload_exec)(&raw const ULTS, c"sum".as_ptr(), Some(plus_one), handle(6)) }
}

fn main_exec() -> i32 {
    // SAFETY: see the top of the file.
    unsafe { (host().main_exec)(&raw const ULTS, c"own".as_ptr(), Some(nothing), null_mut()) }
}

#[test]
fn a_main_offloads_and_gets_the_result_back() {
    let engine = engine();
    let offload_xs = engine.xstreams().offload(0).unwrap().clone();
    assert_eq!(on(&engine, &engine.main(0), offload), 6003);
    assert_eq!(on(&engine, &engine.system(), offload), REFUSED);
    assert_eq!(on(&engine, &offload_xs, offload), REFUSED);
    assert_eq!(
        engine.on(&engine.main(0), offload),
        REFUSED,
        "a message cannot wait"
    );
    assert_eq!(engine.on(&engine.main(0), main_exec), 0);
    assert_eq!(engine.on(&engine.system(), main_exec), 0);
    assert_eq!(engine.on(&offload_xs, main_exec), REFUSED);
    engine.stop();
}

static EVERYWHERE: Mutex<Vec<i32>> = Mutex::new(vec![]);

unsafe extern "C" fn notes(_: *mut c_void) {
    // SAFETY: see the top of the file.
    assert_eq!(unsafe { (host().ult_yield)() }, 0);
    EVERYWHERE.lock().unwrap().push(here());
}

fn everywhere(engine: &Engine, main_only: i32, count: usize) -> Vec<i32> {
    let made = engine.on(&engine.system(), move || {
        let a = attr(c"all", DSS_XS_SELF, -1);
        // SAFETY: see the top of the file.
        unsafe {
            (host().ult_create_all)(
                &raw const ULTS,
                &raw const a,
                Some(notes),
                null_mut(),
                main_only,
            )
        }
    });
    assert_eq!(made, 0);
    wait_for("all of them", || EVERYWHERE.lock().unwrap().len() == count);
    let mut seen = std::mem::take(&mut *EVERYWHERE.lock().unwrap());
    seen.sort_unstable();
    seen
}

#[test]
fn one_on_every_xstream_or_on_every_main() {
    let engine = engine();
    assert_eq!(everywhere(&engine, 0, 4), [0, 1, 2, 3]);
    assert_eq!(everywhere(&engine, 1, 2), [1, 2]);
    engine.stop();
}

#[test]
fn a_periodic_ult_repeats_until_it_is_aborted() {
    static BEATS: AtomicU32 = AtomicU32::new(0);
    unsafe extern "C" fn beat(_: *mut c_void) {
        BEATS.fetch_add(1, Ordering::AcqRel);
    }
    let engine = engine();
    on(&engine, &engine.main(0), || {
        let a = dss_ult_attr {
            period_ms: 1,
            ..attr(c"beat", DSS_XS_VOS, 1)
        };
        let mut ult = null_mut();
        // SAFETY: see the top of the file.
        unsafe {
            let made = (host().ult_create)(
                &raw const ULTS,
                &raw const a,
                Some(beat),
                null_mut(),
                &raw mut ult,
            );
            assert_eq!(made, 0);
            while BEATS.load(Ordering::Acquire) < 3 {
                assert_eq!((host().ult_yield)(), 0);
            }
            assert_eq!((host().ult_abort)(ult), 0);
            assert_eq!((host().ult_join)(ult), 0);
            assert_eq!((host().ult_free)(ult), 0);
        }
    });
    engine.stop();
}

#[test]
fn nothing_is_created_once_the_engine_stops_and_sleepers_see_it() {
    static LATE: AtomicI32 = AtomicI32::new(0);
    let engine = engine();
    let made = engine.on(&engine.main(0), || {
        spawn(&attr(c"last", DSS_XS_SELF, -1), None, || {
            // SAFETY: see the top of the file.
            assert!(unsafe { (host().ult_sleep)(u64::MAX) } <= 1);
            let late = create(&ULTS, &attr(c"late", DSS_XS_SELF, -1), Some(nothing));
            LATE.store(late, Ordering::Release);
        })
    });
    assert_eq!(made, 0);
    engine.stop();
    assert_eq!(LATE.load(Ordering::Acquire), Der::SHUTDOWN.neg());
}

type Reduced = Vec<(i32, usize, i32)>;

struct Sum {
    allocs: Vec<i32>,
    frees: Vec<usize>,
    reduced: Reduced,
}

unsafe extern "C" fn part(f_args: *mut c_void, st_arg: *mut c_void) -> i32 {
    assert_eq!(f_args.addr(), 5);
    match (st_arg.addr(), here()) {
        (100, 1) => Der::NOSPACE.neg(),
        (101, 2) | (0, _) => 0,
        other => panic!("{other:?}"),
    }
}

unsafe extern "C" fn reduce(aggregator: *mut c_void, tgt_id: i32, st_arg: *mut c_void, rc: i32) {
    // SAFETY: the test's, on its stack.
    let sum = unsafe { &mut *aggregator.cast::<Sum>() };
    sum.reduced.push((tgt_id, st_arg.addr(), rc));
}

unsafe extern "C" fn alloc(aggregator: *mut c_void, tgt_id: i32, st_arg: *mut *mut c_void) -> i32 {
    // SAFETY: the test's, on its stack; `st_arg` is lent by the engine.
    unsafe {
        (*aggregator.cast::<Sum>()).allocs.push(tgt_id);
        st_arg.write(handle(100 + tgt_id as usize));
    }
    0
}

unsafe extern "C" fn free(aggregator: *mut c_void, st_arg: *mut c_void) {
    // SAFETY: the test's, on its stack.
    unsafe { &mut *aggregator.cast::<Sum>() }
        .frees
        .push(st_arg.addr());
}

const OPS: dss_coll_ops = dss_coll_ops {
    co_func: Some(part),
    co_reduce: Some(reduce),
    co_reduce_arg_alloc: Some(alloc),
    co_reduce_arg_free: Some(free),
};

fn collective(ops: &dss_coll_ops, bitmap: Option<&[u8]>, tasklets: i32) -> (i32, Sum) {
    let mut sum = Sum {
        allocs: vec![],
        frees: vec![],
        reduced: vec![],
    };
    let args = dss_coll_args {
        ca_func_args: handle(5),
        ca_aggregator: (&raw mut sum).cast(),
        ca_tgt_bitmap: bitmap.map_or(null(), <[u8]>::as_ptr),
        ca_tgt_bitmap_sz: bitmap.map_or(0, |bitmap| bitmap.len() as u32),
        ca_reserved: 0,
    };
    let a = attr(c"coll", DSS_XS_VOS, -1);
    // SAFETY: see the top of the file.
    let rc = unsafe {
        (host().collective)(
            &raw const ULTS,
            &raw const a,
            ops,
            &raw const args,
            tasklets,
        )
    };
    (rc, sum)
}

#[test]
fn collectives_reduce_in_target_order_in_both_forms() {
    let engine = engine();
    for tasklets in [0, 1] {
        on(&engine, &engine.system(), move || {
            let nospace = Der::NOSPACE.neg();
            let (rc, sum) = collective(&OPS, None, tasklets);
            assert_eq!(
                (rc, sum.allocs, sum.frees),
                (nospace, vec![0, 1], vec![100, 101])
            );
            assert_eq!(sum.reduced, [(0, 100, nospace), (1, 101, 0)]);
            let (rc, sum) = collective(&OPS, Some(&[0b10]), tasklets);
            assert_eq!((rc, sum.allocs, sum.frees), (0, vec![1], vec![101]));
            assert_eq!(sum.reduced, [(0, 0, DSS_COLL_LEFT_OUT), (1, 101, 0)]);
            let (rc, sum) = collective(&OPS, Some(&[]), tasklets);
            assert_eq!((rc, sum.allocs.len()), (0, 0), "an empty bitmap");
            assert_eq!(
                sum.reduced,
                [(0, 0, DSS_COLL_LEFT_OUT), (1, 0, DSS_COLL_LEFT_OUT)]
            );
            let plain = dss_coll_ops {
                co_reduce_arg_alloc: None,
                co_reduce: None,
                ..OPS
            };
            assert_eq!(collective(&plain, None, tasklets).0, 0);
        });
    }
    engine.stop();
}

#[test]
fn a_collective_during_shutdown_fails_everywhere_and_gives_its_arguments_back() {
    static SAID: Mutex<Vec<(i32, Reduced, Vec<usize>)>> = Mutex::new(vec![]);
    let engine = engine();
    let made = engine.on(&engine.main(0), || {
        spawn(&attr(c"last", DSS_XS_SELF, -1), None, || {
            // SAFETY: see the top of the file: until the engine stops.
            assert!(unsafe { (host().ult_sleep)(u64::MAX) } <= 1);
            for tasklets in [0, 1] {
                let (rc, sum) = collective(&OPS, None, tasklets);
                SAID.lock().unwrap().push((rc, sum.reduced, sum.frees));
            }
        })
    });
    assert_eq!(made, 0);
    engine.stop();
    let shutdown = Der::SHUTDOWN.neg();
    let reduced = vec![(0, 100, shutdown), (1, 101, shutdown)];
    let said = (shutdown, reduced, vec![100, 101]);
    assert_eq!(*SAID.lock().unwrap(), [said.clone(), said]);
}

#[test]
fn a_collective_that_is_not_whole_is_invalid() {
    let engine = engine();
    on(&engine, &engine.main(0), || {
        let no_func = dss_coll_ops {
            co_func: None,
            ..OPS
        };
        let no_free = dss_coll_ops {
            co_reduce_arg_free: None,
            ..OPS
        };
        assert_eq!(collective(&no_func, None, 0).0, Der::INVAL.neg());
        assert_eq!(collective(&no_free, None, 0).0, Der::INVAL.neg());
        let a = attr(c"coll", DSS_XS_VOS, -1);
        // SAFETY: see the top of the file.
        unsafe {
            let whole = OPS;
            let (this, ops) = (&raw const ULTS, &raw const whole);
            assert_eq!(
                (host().collective)(this, &raw const a, ops, null(), 0),
                Der::INVAL.neg()
            );
            assert_eq!(
                (host().collective)(this, &raw const a, null(), null(), 0),
                Der::INVAL.neg()
            );
        }
    });
    engine.stop();
}
