//! Functions of the table that run or say something: from the right place it works, from the wrong one it answers an error and does nothing.
//!
//! Invariant: as `raw.rs`.
#![allow(unsafe_code, reason = "calls through the table, as a C module does")]

use super::fixture::{Engine, WAIT};
use super::raw::{HELD, KEY, RAW, VALUES, handle, host, plain};
use daos_errno::Der;
use module_abi::*;
use std::ffi::{c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Instant;

pub const REFUSED: i32 = Der::OP_NOT_PERMITTED.neg();
pub static UNKNOWN: dss_module = plain(c"unknown", 63);

pub fn engine() -> Engine {
    let mut engine = Engine::new(WAIT);
    HELD.lock().unwrap().clear();
    engine.load("raw", &RAW).unwrap();
    engine.start();
    engine
}

pub fn wait_for(what: &str, f: impl Fn() -> bool) {
    let end = Instant::now() + WAIT;
    while !f() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn log_time_storage_and_identity() {
    let engine = engine();
    let text = b"said by a test";
    // SAFETY: see the top of the file; so for all sites below.
    unsafe {
        (host().log)(
            &raw const RAW,
            DSS_LOG_INFO,
            text.as_ptr().cast::<c_char>(),
            text.len() as u64,
        );
        (host().log)(
            &raw const UNKNOWN,
            DSS_LOG_INFO,
            text.as_ptr().cast::<c_char>(),
            text.len() as u64,
        );
        (host().log)(null(), DSS_LOG_INFO, null(), 5);
        assert_eq!(
            (host().log_enabled)(&raw const RAW, DSS_LOG_TRACE),
            0,
            "no subscriber here"
        );
        let before = (host().now_ns)();
        assert!((host().now_ns)() >= before);
        assert!(
            (host().tls_get)().is_null() && (host().module_info)().is_null(),
            "this is no xstream"
        );
        assert_eq!((host().shutting_down)(), 0);
    }
    let slot = usize::try_from(KEY.dmk_index.load(Ordering::Acquire)).unwrap();
    for (xs, tgt_id, tag, value) in [
        (engine.main(1), 1, DAOS_TGT_TAG, 1001),
        (engine.system(), -1, DAOS_SYS_TAG, 0),
    ] {
        engine.on(&xs, move || {
            // SAFETY: see the top of the file.
            let (storage, info) = unsafe { (&*(host().tls_get)(), &*(host().module_info)()) };
            assert_eq!((info.dmi_tgt_id, info.dmi_tgt_nr), (tgt_id, 2));
            assert!(info.dmi_tag & tag != 0 && storage.dtls_tag == info.dmi_tag);
            assert_eq!(
                storage.dtls_values[slot].addr(),
                value,
                "the key has a value on main xstreams"
            );
        });
    }
    engine.stop();
    assert_eq!(
        VALUES.load(Ordering::Acquire),
        0,
        "every value was destroyed"
    );
}

static POLLED: AtomicU32 = AtomicU32::new(0);
static DROPPED: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn twice(data: *mut c_void, waker: *const dss_waker) -> i32 {
    // SAFETY: lent by the engine; the clone is woken and given up.
    unsafe {
        let vtbl = &*(*waker).vtbl;
        let kept = (vtbl.clone)((*waker).data);
        (vtbl.wake_by_ref)(kept);
        (vtbl.wake)(kept);
    }
    assert_eq!(data.addr(), 77);
    if POLLED.fetch_add(1, Ordering::AcqRel) == 0 {
        DSS_TASK_PENDING
    } else {
        DSS_TASK_READY
    }
}

unsafe extern "C" fn dropped(_: *mut c_void) {
    DROPPED.fetch_add(1, Ordering::AcqRel);
}

static TASK: dss_task_ops = dss_task_ops {
    poll: Some(twice),
    drop: Some(dropped),
};

fn spawn(module: &'static dss_module, kind: i32, target: i32) -> i32 {
    // SAFETY: see the top of the file.
    unsafe {
        (host().task_spawn)(
            module,
            c"t".as_ptr(),
            kind,
            target,
            &raw const TASK,
            handle(77),
        )
    }
}

#[test]
fn tasks_run_where_they_are_sent_and_a_refused_one_stays_the_callers() {
    let engine = engine();
    assert_eq!(
        spawn(&RAW, DSS_XS_SYS, -1),
        REFUSED,
        "not from a foreign thread"
    );
    let before = (
        POLLED.load(Ordering::Acquire),
        DROPPED.load(Ordering::Acquire),
    );
    let refusals = engine.on(&engine.system(), || {
        [
            spawn(&UNKNOWN, DSS_XS_SELF, -1),
            spawn(&RAW, 42, 0),
            spawn(&RAW, DSS_XS_VOS, 9),
        ]
    });
    assert!(refusals.iter().all(|rc| *rc < 0), "{refusals:?}");
    assert_eq!(
        DROPPED.load(Ordering::Acquire),
        before.1,
        "what was refused is not dropped"
    );
    for (kind, target) in [
        (DSS_XS_SELF, -1),
        (DSS_XS_VOS, 1),
        (DSS_XS_SYS, -1),
        (DSS_XS_OFFLOAD, 0),
    ] {
        let (polled, dropped) = (
            POLLED.load(Ordering::Acquire),
            DROPPED.load(Ordering::Acquire),
        );
        POLLED.store(0, Ordering::Release);
        assert_eq!(
            engine.on(&engine.main(0), move || spawn(&RAW, kind, target)),
            0,
            "kind {kind}"
        );
        wait_for("the drop", || {
            DROPPED.load(Ordering::Acquire) == dropped + 1
        });
        assert_eq!(POLLED.swap(polled, Ordering::AcqRel), 2);
    }
    engine.stop();
}

static RAN: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn ran(arg: *mut c_void) {
    RAN.store(arg.addr(), Ordering::Release);
}

fn tasklet(kind: i32, arg: usize) -> i32 {
    // SAFETY: see the top of the file.
    unsafe {
        (host().tasklet)(
            &raw const RAW,
            c"t".as_ptr(),
            kind,
            0,
            Some(ran),
            handle(arg),
        )
    }
}

#[test]
fn tasklets_run_while_the_module_serves() {
    let engine = engine();
    assert_eq!(tasklet(DSS_XS_VOS, 1), REFUSED, "not before setup");
    engine.setup().unwrap();
    assert_eq!(
        tasklet(DSS_XS_SELF, 1),
        Der::INVAL.neg(),
        "this thread is no xstream"
    );
    assert_eq!(tasklet(DSS_XS_VOS, 42), 0, "from any thread");
    wait_for("the tasklet", || RAN.load(Ordering::Acquire) == 42);
    assert_eq!(engine.cleanup(), Vec::<String>::new());
    assert_eq!(tasklet(DSS_XS_VOS, 1), REFUSED, "not after cleanup");
    engine.stop();
}

static WOKEN: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn same(data: *mut c_void) -> *mut c_void {
    data
}
unsafe extern "C" fn woken(_: *mut c_void) {
    WOKEN.fetch_add(1, Ordering::AcqRel);
}
unsafe extern "C" fn forgotten(_: *mut c_void) {}

static COUNTING: dss_waker_vtbl = dss_waker_vtbl {
    clone: same,
    wake: woken,
    wake_by_ref: woken,
    drop: forgotten,
};

fn arm(after_ns: u64) -> usize {
    let waker = dss_waker {
        data: null_mut(),
        vtbl: &raw const COUNTING,
    };
    // SAFETY: see the top of the file.
    unsafe {
        (host().timer_arm)(
            &raw const RAW,
            (host().now_ns)() + after_ns,
            &raw const waker,
        )
    }
    .addr()
}

#[test]
fn timers_fire_once_and_only_their_xstream_ends_them() {
    let engine = engine();
    assert_eq!(arm(0), 0, "not from a foreign thread");
    let timer = engine.on(&engine.main(0), || arm(1_000_000));
    // SAFETY: see the top of the file.
    unsafe { (host().timer_free)(handle(timer)) };
    // SAFETY: see the top of the file.
    engine.on(&engine.system(), move || unsafe {
        (host().timer_free)(handle(timer))
    });
    wait_for("the timer, which nobody could end", || {
        WOKEN.load(Ordering::Acquire) == 1
    });
    engine.on(&engine.main(0), move || {
        let other = arm(u64::MAX / 2);
        // SAFETY: see the top of the file; the second time each is stale.
        unsafe {
            (host().timer_free)(handle(timer));
            (host().timer_free)(handle(other));
            (host().timer_free)(handle(other));
        }
    });
    assert_eq!(WOKEN.load(Ordering::Acquire), 1);
    engine.stop();
}

static TURNS: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn turn(_: *mut c_void) -> i32 {
    TURNS.fetch_add(1, Ordering::AcqRel);
    1
}

fn poller(period: u64) -> usize {
    // SAFETY: see the top of the file.
    unsafe {
        (host().poller_register)(
            &raw const RAW,
            c"p".as_ptr(),
            period,
            Some(turn),
            null_mut(),
        )
    }
    .addr()
}

#[test]
fn pollers_turn_until_their_xstream_unregisters_them() {
    let engine = engine();
    assert_eq!(poller(0), 0, "not from a foreign thread");
    let first = engine.on(&engine.main(0), || poller(0));
    // SAFETY: see the top of the file.
    engine.on(&engine.main(1), move || unsafe {
        (host().poller_unregister)(handle(first))
    });
    let seen = TURNS.load(Ordering::Acquire);
    wait_for("more turns", || TURNS.load(Ordering::Acquire) > seen + 10);
    // SAFETY: see the top of the file.
    engine.on(&engine.main(0), move || unsafe {
        (host().poller_unregister)(handle(first))
    });
    let seen = TURNS.load(Ordering::Acquire);
    engine.on(&engine.main(0), || ());
    engine.on(&engine.main(0), || ());
    assert_eq!(TURNS.load(Ordering::Acquire), seen);
    engine.stop();
}
