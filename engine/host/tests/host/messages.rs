//! RPC, dRPC, queries and metrics: from the right place it works, from the wrong one it answers an error and does nothing.
//!
//! Invariant: as `raw.rs`.
#![allow(unsafe_code, reason = "calls through the table, as a C module does")]

use super::fixture::WAIT;
use super::places::{REFUSED, UNKNOWN, engine, wait_for};
use super::raw::{CLASSIFIED, HOLD, RAW, handle, host, next_held};
use daos_errno::Der;
use module_abi::*;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
fn requests_are_answered_by_their_own_xstream_once() {
    let engine = engine();
    assert_eq!(
        engine.call(1, HOLD, b"early").0,
        Der::UNINIT.neg(),
        "not before setup"
    );
    engine.setup().unwrap();
    let system = engine.system();
    let (sent, answer) = std::sync::mpsc::channel();
    system
        .spawn("caller", move |_| async move {
            let reply = engine_rpc::call(1, HOLD, b"question".to_vec(), None)
                .await
                .unwrap();
            sent.send((reply.status, reply.body)).unwrap();
        })
        .unwrap();
    let held = next_held();
    assert_eq!(
        CLASSIFIED.load(Ordering::Acquire),
        HOLD,
        "the module's hook has seen it"
    );
    let body = |xs| {
        engine.on(xs, move || {
            // SAFETY: all zeroes is a valid info; see the top of the file.
            let mut info = unsafe { std::mem::zeroed::<dss_rpc_info>() };
            // SAFETY: see the top of the file.
            unsafe { (host().rpc_info)(handle(held), &raw mut info) };
            info.body_len
        })
    };
    assert_eq!((body(&system), body(&engine.main(0))), (0, 8));
    let reply = move |text: &'static [u8]| {
        let (data, len) = (text.as_ptr(), text.len() as u64);
        // SAFETY: see the top of the file.
        unsafe {
            assert!((host().rpc_bulk)(handle(held)).is_empty());
            (host().rpc_reply)(handle(held), 0, data, len, dss_buf::EMPTY);
        }
    };
    engine.on(&system, move || reply(b"wrong"));
    engine.on(&engine.main(0), move || reply(b"right"));
    engine.on(&engine.main(0), move || reply(b"twice"));
    assert_eq!(answer.recv_timeout(WAIT).unwrap(), (0, b"right".to_vec()));
    engine.stop();
}

static ANSWER: AtomicU32 = AtomicU32::new(u32::MAX);

unsafe extern "C" fn answered(_: *mut c_void, rc: i32, _: *const u8, _: u64, bulk: dss_buf) {
    assert!(bulk.is_empty());
    ANSWER.store(rc.unsigned_abs(), Ordering::Release);
}

fn call(opcode: u32, len: u64) -> i32 {
    let done: dss_rpc_done_t = Some(answered);
    // SAFETY: see the top of the file; too long a body is refused before it is read.
    unsafe {
        (host().rpc_call)(
            &raw const RAW,
            0,
            opcode,
            c"x".as_ptr().cast(),
            len,
            dss_buf::EMPTY,
            done,
            null_mut(),
        )
    }
}

#[test]
fn calls_between_modules_need_an_xstream_and_a_serving_module() {
    let engine = engine();
    let nobody = DSS_RPC_OPCODE(61, 1, 1);
    assert_eq!(call(nobody, 1), REFUSED);
    assert_eq!(
        engine.on(&engine.main(0), move || call(nobody, 1)),
        REFUSED,
        "not before setup"
    );
    engine.setup().unwrap();
    assert_eq!(
        engine.on(&engine.main(0), move || call(nobody, 2 << 20)),
        Der::OVERFLOW.neg()
    );
    assert_eq!(engine.on(&engine.main(0), move || call(nobody, 1)), 0);
    wait_for("the answer", || {
        ANSWER.load(Ordering::Acquire) == Der::UNREG.0.unsigned_abs()
    });
    engine.stop();
}

static TOLD: std::sync::Mutex<Vec<(i32, Vec<u8>)>> = std::sync::Mutex::new(vec![]);

unsafe extern "C" fn told(_: *mut c_void, rc: i32, out: *const u8, len: u64) {
    let out = if len == 0 {
        vec![]
    } else {
        // SAFETY: lent by the engine.
        unsafe { std::slice::from_raw_parts(out, len as usize) }.to_vec()
    };
    TOLD.lock().unwrap().push((rc, out));
}

fn query(method: u32) -> i32 {
    // SAFETY: see the top of the file.
    unsafe {
        (host().query)(
            &raw const RAW,
            method,
            c"abc".as_ptr().cast(),
            3,
            Some(told),
            null_mut(),
        )
    }
}

#[test]
fn the_engine_answers_queries_of_the_system_xstream() {
    let engine = engine();
    assert_eq!(query(1), REFUSED);
    assert_eq!(engine.on(&engine.main(0), || query(1)), REFUSED);
    assert_eq!(engine.on(&engine.system(), || (query(1), query(2))), (0, 0));
    wait_for("both answers", || TOLD.lock().unwrap().len() == 2);
    assert_eq!(
        *TOLD.lock().unwrap(),
        [(0, b"cba".to_vec()), (Der::NOSYS.neg(), vec![])]
    );
    engine.stop();
}

#[test]
fn drpc_calls_are_answered_on_the_system_xstream() {
    let engine = engine();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drpc.sock");
    let (registry, at) = (engine.drpc.clone(), path.clone());
    let system = engine.system();
    system
        .call_blocking("server", WAIT, move |xs| {
            let mut server =
                engine_drpc::DrpcServer::bind(&at, registry, engine_drpc::Options::default())
                    .unwrap();
            let step = move |_| {
                let _ = server.progress(0);
                spdk_thread::PollResult::Busy
            };
            // Ends with its thread's storage: kept by a task that ends at the shutdown.
            let poller = xs
                .thread()
                .register_poller("drpc", spdk_thread::Period::EveryTurn, step);
            let here = xs.clone();
            let keep = async move {
                while !here.is_shutting_down() {
                    spdk_thread::sleep(1_000_000).await;
                }
                drop(poller);
            };
            xs.spawn("drpc", keep).unwrap().detach();
        })
        .unwrap();
    let client = std::thread::spawn(move || {
        drpc_wire::Client::connect(&path)
            .unwrap()
            .call(99, 5, b"body")
            .unwrap()
    });
    let held = next_held();
    let seen = move || {
        // SAFETY: all zeroes is a valid info; see the top of the file.
        let mut info = unsafe { std::mem::zeroed::<dss_drpc_info>() };
        // SAFETY: see the top of the file.
        unsafe { (host().drpc_info)(handle(held), &raw mut info) };
        (info.module, info.method, info.body_len)
    };
    assert_eq!(
        (engine.on(&engine.main(0), seen), engine.on(&system, seen)),
        ((0, 0, 0), (99, 5, 4))
    );
    let reply = move |status: i32| {
        // SAFETY: see the top of the file.
        unsafe { (host().drpc_reply)(handle(held), status, c"yes".as_ptr().cast(), 3) }
    };
    engine.on(&engine.main(0), move || reply(DSS_DRPC_FAILURE));
    engine.on(&system, move || reply(DSS_DRPC_SUCCESS));
    engine.on(&system, move || reply(DSS_DRPC_FAILURE));
    let response = client.join().unwrap();
    assert_eq!(
        (response.status, response.body),
        (DSS_DRPC_SUCCESS, b"yes".to_vec())
    );
    engine.stop();
}

#[test]
fn metrics_are_named_after_the_module_and_refused_otherwise() {
    let engine = engine();
    let register = |module: &'static dss_module, name: &std::ffi::CStr, target| {
        let help = c"a test".as_ptr();
        // SAFETY: see the top of the file.
        unsafe { (host().metric_register)(module, DSS_METRIC_COUNTER, name.as_ptr(), help, target) }
            .addr()
    };
    assert_eq!(
        (
            register(&UNKNOWN, c"n", -1),
            register(&RAW, c"Bad-Name", -1),
            register(&RAW, c"", -1)
        ),
        (0, 0, 0)
    );
    let metric = register(&RAW, c"tested", 1);
    assert_eq!(register(&RAW, c"tested", 1), metric, "the same again");
    // SAFETY: see the top of the file; the second handle is none.
    unsafe {
        (host().metric_record)(handle(metric), 3.0);
        (host().metric_record)(handle(usize::MAX), 1.0);
    }
    let text = engine_telemetry::render();
    assert!(text.contains("keel_raw_tested{target=\"1\"} 3"), "{text}");
    engine.stop();
}
