//! Setup and cleanup: order, deadlines, what a failure undoes.
//!
//! Invariant: as `raw.rs`.
#![allow(unsafe_code, reason = "calls through the table, as a C module does")]

use super::fixture::{Engine, WAIT};
use super::raw::{handle, host as host_table, plain};
use daos_errno::Der;
use engine_host::ModuleState;
use module_abi::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

static EVENTS: Mutex<Vec<&str>> = Mutex::new(vec![]);

macro_rules! phase {
    ($name:ident, $text:literal, $rc:expr) => {
        unsafe extern "C" fn $name(_: *mut dss_done) -> i32 {
            EVENTS.lock().unwrap().push($text);
            $rc
        }
    };
}

/// What the second module's setup answers.
static ANSWER: AtomicI32 = AtomicI32::new(0);
static OWED: AtomicUsize = AtomicUsize::new(0);

phase!(first_setup, "+first", 0);
phase!(first_cleanup, "-first", 0);
phase!(second_cleanup, "-second", Der::IO.neg());
phase!(third_setup, "+third", 0);

unsafe extern "C" fn second_setup(done: *mut dss_done) -> i32 {
    EVENTS.lock().unwrap().push("+second");
    OWED.store(done.addr(), Ordering::Release);
    ANSWER.load(Ordering::Acquire)
}

static FIRST: dss_module = dss_module {
    sm_setup: Some(first_setup),
    sm_cleanup: Some(first_cleanup),
    ..plain(c"first", 41)
};
static SECOND: dss_module = dss_module {
    sm_setup: Some(second_setup),
    sm_cleanup: Some(second_cleanup),
    ..plain(c"second", 42)
};
static THIRD: dss_module = dss_module {
    sm_setup: Some(third_setup),
    ..plain(c"third", 43)
};

fn engine(deadline: Duration, answer: i32) -> Engine {
    EVENTS
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clear();
    let mut engine = Engine::new(deadline);
    ANSWER.store(answer, Ordering::Release);
    for (name, module) in [("first", &FIRST), ("second", &SECOND), ("third", &THIRD)] {
        engine.load(name, module).unwrap();
    }
    engine.start();
    EVENTS.lock().unwrap().clear();
    engine
}

fn events() -> Vec<&'static str> {
    std::mem::take(&mut *EVENTS.lock().unwrap())
}

fn states(engine: &Engine) -> Vec<ModuleState> {
    engine
        .host
        .modules()
        .iter()
        .map(|module| module.state)
        .collect()
}

#[test]
fn a_failed_setup_undoes_what_came_before_and_can_run_again() {
    let engine = engine(WAIT, Der::NOSPACE.neg());
    let error = engine.setup().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("module second: setup failed: {}", Der::NOSPACE)
    );
    assert_eq!(events(), ["+first", "+second", "-first"]);
    use ModuleState::{Cleaned, Failed, Registered, Serving};
    assert_eq!(states(&engine), [Registered, Failed, Registered]);
    assert_eq!(engine.host.modules()[1].error, error.to_string());
    ANSWER.store(0, Ordering::Release);
    engine.setup().unwrap();
    assert_eq!(events(), ["+first", "+second", "+third"]);
    assert_eq!(states(&engine), [Serving; 3]);
    let failures = engine.cleanup();
    assert_eq!(
        failures,
        [format!("module second: cleanup failed: {}", Der::IO)],
        "the rest goes on"
    );
    assert_eq!(events(), ["-second", "-first"]);
    assert_eq!(states(&engine), [Cleaned; 3]);
    engine.stop();
}

/// Answers for the module whose setup is pending, from an xstream.
fn pay(engine: &Engine, xs: &engine_xstream::XstreamRef, rc: i32) {
    let owed = OWED.load(Ordering::Acquire);
    // SAFETY: see the top of the file.
    engine.on(xs, move || unsafe { (host_table().done)(handle(owed), rc) });
}

#[test]
fn a_pending_setup_ends_with_done_on_the_system_xstream_only() {
    let engine = engine(WAIT, DSS_PENDING);
    let (host, (told, result)) = (engine.host.clone(), std::sync::mpsc::channel());
    let setup = move |xs: &engine_xstream::Xstream| {
        let xs = xs.clone();
        async move { drop(told.send(host.setup_all(&xs).await)) }
    };
    engine.system().spawn("setup", setup).unwrap();
    while !EVENTS.lock().unwrap().contains(&"+second") {
        std::thread::yield_now();
    }
    pay(&engine, &engine.main(0), Der::BUSY.neg());
    // SAFETY: see the top of the file: no xstream.
    unsafe { (host_table().done)(handle(OWED.load(Ordering::Acquire)), Der::BUSY.neg()) };
    assert!(!EVENTS.lock().unwrap().contains(&"+third"), "still pending");
    pay(&engine, &engine.system(), 0);
    result.recv_timeout(WAIT).unwrap().unwrap();
    pay(&engine, &engine.system(), Der::BUSY.neg());
    assert_eq!(events(), ["+first", "+second", "+third"]);
    assert_eq!(engine.cleanup().len(), 1);
    engine.stop();
}

#[test]
fn a_setup_that_misses_its_deadline_is_named_and_its_late_answer_ignored() {
    let engine = engine(Duration::from_millis(20), DSS_PENDING);
    assert_eq!(engine.setup().unwrap_err().der, Der::TIMEDOUT);
    pay(&engine, &engine.system(), 0);
    assert_eq!(states(&engine)[1], ModuleState::Failed);
    engine.stop();
}
