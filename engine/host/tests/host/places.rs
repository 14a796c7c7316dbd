//! Every function of the table: from the right place it works, from the wrong one it answers an error and does nothing.
//!
//! Invariant: as `raw.rs`.
#![allow(unsafe_code, reason = "calls through the table, as a C module does")]

use super::fixture::{BLOCK, Engine, SHARE, WAIT};
use super::raw::{CLASSIFIED, HELD, HOLD, KEY, RAW, VALUES, handle, host, next_held, plain};
use daos_errno::Der;
use module_abi::*;
use std::ffi::{c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Instant;

const REFUSED: i32 = Der::OP_NOT_PERMITTED.neg();
static UNKNOWN: dss_module = plain(c"unknown", 63);

fn engine() -> Engine {
    let mut engine = Engine::new(WAIT);
    HELD.lock().unwrap().clear();
    engine.load("raw", &RAW).unwrap();
    engine.start();
    engine
}

fn wait_for(what: &str, f: impl Fn() -> bool) {
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

fn alloc(len: u64) -> Result<dss_buf, i32> {
    let mut buf = dss_buf::EMPTY;
    // SAFETY: see the top of the file.
    let rc = unsafe { (host().buf_alloc)(len, &raw mut buf) };
    if rc == 0 { Ok(buf) } else { Err(rc) }
}

#[test]
fn buffers_come_zeroed_and_go_back_once() {
    let engine = engine();
    assert_eq!(alloc(10).unwrap_err(), REFUSED);
    engine.on(&engine.main(0), || {
        assert_eq!(alloc(0).unwrap_err(), Der::INVAL.neg());
        assert_eq!(alloc(1 << 40).unwrap_err(), Der::NOMEM.neg());
        let buf = alloc(5000).unwrap();
        assert!(buf.len == 5000 && buf.capacity >= 5000 && buf.addr.addr().is_multiple_of(4096));
        // SAFETY: ours, 5000 bytes.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buf.addr.cast::<u8>(), 5000) };
        assert!(bytes.iter().all(|b| *b == 0));
        bytes.fill(9);
        let again = dss_buf { ..buf };
        // SAFETY: see the top of the file; the second is a double free, which is caught.
        unsafe {
            (host().buf_free)(buf);
            (host().buf_free)(again);
            (host().buf_free)(dss_buf::EMPTY);
        }
    });
    engine.stop();
}

static DONE: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn io_done(arg: *mut c_void, rc: i32, buf: dss_buf) {
    assert_eq!(rc, 0);
    // SAFETY: moves back to the engine.
    unsafe { (host().buf_free)(buf) };
    DONE.store(arg.addr(), Ordering::Release);
}

fn open() -> Result<(usize, dss_bdev_info), i32> {
    // SAFETY: all zeroes is a valid info.
    let (mut info, mut bdev) = (unsafe { std::mem::zeroed::<dss_bdev_info>() }, null_mut());
    // SAFETY: see the top of the file.
    let rc = unsafe { (host().bdev_open)(&raw const RAW, &raw mut info, &raw mut bdev) };
    if rc == 0 {
        Ok((bdev.addr(), info))
    } else {
        Err(rc)
    }
}

fn submit(bdev: usize, op: u32, lba: u64, blocks: u32, len: u64, arg: usize) -> i32 {
    let buf = if len > 0 {
        alloc(len).unwrap_or(dss_buf::EMPTY)
    } else {
        dss_buf::EMPTY
    };
    let io = dss_bdev_io {
        op,
        flags: 0,
        lba,
        blocks,
        reserved: 0,
        buf,
        done: Some(io_done),
        arg: handle(arg),
    };
    // SAFETY: see the top of the file.
    let rc = unsafe { (host().bdev_submit)(handle(bdev), &raw const io) };
    if rc < 0 {
        // SAFETY: refused: still ours.
        unsafe { (host().buf_free)(io.buf) };
    }
    rc
}

#[test]
fn shares_are_opened_on_main_xstreams_and_bounded() {
    let engine = engine();
    assert_eq!(open().unwrap_err(), REFUSED);
    assert_eq!(engine.on(&engine.system(), open).unwrap_err(), REFUSED);
    assert_eq!(
        engine.on(&engine.main(1), open).unwrap_err(),
        Der::NONEXIST.neg(),
        "no device"
    );
    let (bdev, info) = engine.on(&engine.main(0), open).unwrap();
    assert_eq!((info.num_blocks, info.block_size), (SHARE, BLOCK));
    assert_eq!(
        (info.device_uuid, info.engine_uuid, info.device_name[0]),
        ([7; 16], [9; 16], b'm' as c_char)
    );
    let block = u64::from(BLOCK);
    assert_eq!(
        engine.on(&engine.system(), move || submit(
            bdev,
            DSS_BDEV_FLUSH,
            0,
            0,
            0,
            1
        )),
        REFUSED
    );
    // SAFETY: see the top of the file: of another xstream.
    engine.on(&engine.system(), move || unsafe {
        (host().bdev_close)(handle(bdev))
    });
    engine.on(&engine.main(0), move || {
        let refused = Der::INVAL.neg();
        for (op, lba, blocks, len) in [
            (DSS_BDEV_READ, SHARE - 1, 2, 2 * block), // past the share, not past the device
            (DSS_BDEV_READ, u64::MAX, 1, block),
            (DSS_BDEV_WRITE, 0, 2, block), // short buffer
            (DSS_BDEV_WRITE, 0, 1, 0),     // none
            (DSS_BDEV_UNMAP, SHARE, 1, 0),
            (9, 0, 1, block),
        ] {
            assert_eq!(
                submit(bdev, op, lba, blocks, len, 1),
                refused,
                "op {op} at {lba}"
            );
        }
        assert_eq!(submit(bdev, DSS_BDEV_WRITE, SHARE - 1, 1, block, 33), 0);
    });
    wait_for("the write", || DONE.load(Ordering::Acquire) == 33);
    engine.on(&engine.main(0), move || {
        assert_eq!(submit(bdev, DSS_BDEV_READ, 0, 1, block, 34), 0);
        // SAFETY: see the top of the file; with I/O in flight.
        unsafe { (host().bdev_close)(handle(bdev)) };
        assert_eq!(
            submit(bdev, DSS_BDEV_READ, 0, 1, block, 35),
            Der::INVAL.neg(),
            "stale"
        );
    });
    wait_for("the read that was in flight", || {
        DONE.load(Ordering::Acquire) == 34
    });
    engine.stop();
}

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
