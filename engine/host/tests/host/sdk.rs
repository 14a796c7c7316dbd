//! The SDK and the host, end to end.
#![allow(
    unsafe_code,
    reason = "names the exported descriptor, as the loader does"
)]

use super::fixture::{Engine, WAIT};
use super::probe::{self, opcode};
use super::raw::RAW;
use daos_errno::Der;
use module_abi::dss_module;
use std::sync::atomic::Ordering;

unsafe extern "C" {
    static probe_module: dss_module;
}

fn engine() -> Engine {
    let mut engine = Engine::new(WAIT);
    probe::LIFE.store(0, Ordering::Release);
    engine.load("raw", &RAW).unwrap();
    // SAFETY: the macro's static, immutable.
    engine.load("probe", unsafe { &probe_module }).unwrap();
    engine.start();
    engine.setup().unwrap();
    engine
}

#[test]
fn the_life_of_a_module() {
    let engine = engine();
    assert_eq!(
        probe::LIFE.load(Ordering::Acquire),
        0x0101,
        "init and setup"
    );
    assert_eq!(engine.cleanup(), Vec::<String>::new());
    assert_eq!(
        engine.call(1, opcode(probe::ECHO), b"late").0,
        Der::SHUTDOWN.neg()
    );
    engine.stop();
    assert_eq!(
        probe::LIFE.load(Ordering::Acquire),
        0x0101_0101,
        "once each"
    );
}

#[test]
fn requests_tasks_devices_and_calls() {
    let engine = engine();
    let ok = |tag, index, body: &[u8], want: &[u8]| {
        assert_eq!(
            engine.call(tag, opcode(index), body),
            (0, want.to_vec()),
            "handler {index}"
        );
    };
    ok(2, probe::ECHO, b"hello", b"hello");
    ok(0, probe::ECHO, b"", b"");
    ok(1, probe::STORE, b"durable", b"durable");
    ok(1, probe::SPREAD, b"", &[0, 1, 1, 10]);
    ok(1, probe::CALL, b"between", b"between");
    ok(2, probe::REST, b"", b"rested");
    ok(1, probe::FORGET, b"", b"");
    ok(1, probe::POLL, b"", &[3]);
    ok(1, probe::FLOOD, b"", b"");
    ok(1, probe::TASKLET, b"", b"");
    ok(1, probe::STRAIGHT, b"in the middle", b"in the middle");
    ok(0, probe::EVERYWHERE, b"", b"");
    ok(1, probe::MIXED, b"", &[1, 2, 3, 4, 5]);
    ok(1, probe::SHARED, b"", b"");
    ok(2, probe::COUNT, b"", &3u64.to_le_bytes());
    engine.stop();
    assert_eq!(probe::TASKLETS.load(Ordering::Acquire), 1);
    assert!(engine_telemetry::render().contains("keel_probe_requests{target=\"1\"}"));
}

#[test]
fn a_panic_ends_its_request_and_nothing_else() {
    let engine = engine();
    assert_eq!(engine.call(1, opcode(probe::PANIC), b"").0, Der::MISC.neg());
    assert_eq!(
        engine.call(1, opcode(probe::STORE + 100), b"").0,
        Der::UNREG.neg()
    );
    assert_eq!(
        engine.call(2, opcode(probe::STORE), b"x").0,
        Der::NONEXIST.neg(),
        "target 1 has no device"
    );
    assert_eq!(engine.call(1, opcode(probe::ECHO), b"on").1, b"on");
    engine.stop();
}
