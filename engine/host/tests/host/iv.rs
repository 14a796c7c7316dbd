//! Incast variables through the table: a class with hooks, operations in straight-line code and with call-backs, what is refused.
//!
//! Invariant: as `raw.rs`.
#![allow(unsafe_code, reason = "calls through the table, as a C module does")]

use super::fixture::{Engine, WAIT};
use super::places::wait_for;
use super::raw::{RAW, host, plain};
use super::ults::{ULTS, on};
use daos_errno::Der;
use module_abi::*;
use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

const SHARED: u32 = 300;
const NS: [u8; 16] = [5; 16];
const REFUSED: i32 = Der::OP_NOT_PERMITTED.neg();

/// Registers its classes in `sm_init`.
static IVS: dss_module = dss_module {
    sm_init: Some(init),
    ..plain(c"ivs", 53)
};

/// Calls of hooks, in order, and what the hooks' own calls were answered.
static CALLED: Mutex<Vec<&str>> = Mutex::new(vec![]);
static FROM_A_HOOK: Mutex<Vec<i64>> = Mutex::new(vec![]);
/// Answered by `update`.
static VERDICT: AtomicI32 = AtomicI32::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);
/// What `update` made of a value: it lives until the next hook.
static MADE: Mutex<Vec<u8>> = Mutex::new(vec![]);

fn class(id: u32, name: &'static CStr) -> dss_iv_class {
    dss_iv_class {
        size: size_of::<dss_iv_class>() as u32,
        id,
        name: name.as_ptr(),
        max_value: 0,
        lease_ms: 0,
        reserved: 0,
        arg: null_mut(),
        ivc_key_canonical: None,
        ivc_ent_init: None,
        ivc_ent_put: None,
        ivc_ent_fetch: None,
        ivc_ent_update: None,
        ivc_ent_refresh: None,
        ivc_ent_valid: None,
        ivc_pre_sync: None,
    }
}

fn register(class: &dss_iv_class) -> i32 {
    // SAFETY: see the top of the file.
    unsafe { (host().iv_class_register)(&raw const IVS, class) }
}

unsafe extern "C" fn init() -> i32 {
    let hooks = dss_iv_class {
        max_value: 64,
        ivc_key_canonical: Some(canonical),
        ivc_ent_init: Some(ent_init),
        ivc_ent_put: Some(ent_put),
        ivc_ent_fetch: Some(ent_fetch),
        ivc_ent_update: Some(ent_update),
        ivc_ent_valid: Some(ent_valid),
        ivc_pre_sync: Some(pre_sync),
        ..class(SHARED, c"shared")
    };
    assert_eq!(register(&hooks), 0);
    assert_eq!(register(&hooks), Der::EXIST.neg());
    assert_eq!(register(&class(12, c"daos")), 0, "an id of DAOS's");
    let wrong = [
        class(64, c"the_engines_own"),
        class(0, c"none"),
        class(301, c"No-Name"),
        class(301, c""),
        dss_iv_class {
            size: 8,
            ..class(301, c"old")
        },
        dss_iv_class {
            max_value: u64::from(DSS_IV_VALUE_MAX) + 1,
            ..class(301, c"long")
        },
    ];
    for class in wrong {
        assert_eq!(register(&class), Der::INVAL.neg(), "class {}", class.id);
    }
    0
}

/// Case does not matter.
unsafe extern "C" fn canonical(
    _arg: *mut c_void,
    key: *const dss_iv_key,
    out: *mut dss_iv_key,
) -> i32 {
    // SAFETY: see the top of the file.
    unsafe {
        *out = *key;
        (*out).bytes.make_ascii_lowercase();
    }
    0
}

unsafe extern "C" fn ent_init(_arg: *mut c_void, _key: *const dss_iv_key) {
    CALLED.lock().unwrap().push("init");
}

unsafe extern "C" fn ent_put(_arg: *mut c_void, _key: *const dss_iv_key) {
    CALLED.lock().unwrap().push("put");
}

unsafe extern "C" fn ent_fetch(
    _arg: *mut c_void,
    at: *const dss_iv_place,
    _key: *const dss_iv_key,
    kept: *const dss_iv_value,
    out: *mut dss_iv_value,
) -> i32 {
    CALLED.lock().unwrap().push("fetch");
    // SAFETY: see the top of the file.
    unsafe {
        assert_eq!(((*at).ns, (*at).root), (NS, 1));
        assert!((*kept).data.is_null());
        // Nothing may be begun or waited for from here.
        let op = op(DSS_IV_FETCH, b"other");
        let begun = (host().iv_call)(&raw const IVS, &raw const op, None, null_mut());
        let waited =
            (host().iv_call_wait)(&raw const IVS, &raw const op, null_mut(), 0, null_mut());
        let slept = (host().ult_sleep)(1);
        let key = key(b"other");
        let looked = (host().iv_cached)(NS.as_ptr(), &raw const key, null_mut(), null_mut(), 0);
        let mut told = FROM_A_HOOK.lock().unwrap();
        *told = vec![begun.into(), waited.into(), slept.into(), looked];
        *out = dss_iv_value {
            data: b"from the authority".as_ptr(),
            len: 18,
        };
    }
    0
}

unsafe extern "C" fn ent_update(
    _arg: *mut c_void,
    _at: *const dss_iv_place,
    _key: *const dss_iv_key,
    request: *const dss_iv_request,
    change: *const dss_iv_value,
    out: *mut dss_iv_value,
) -> i32 {
    CALLED.lock().unwrap().push("update");
    // SAFETY: see the top of the file.
    unsafe {
        assert_eq!((*request).rank, 0);
        if !(*change).data.is_null() {
            let bytes = std::slice::from_raw_parts((*change).data, (*change).len as usize);
            let mut made = MADE.lock().unwrap();
            *made = bytes.to_ascii_uppercase();
            *out = dss_iv_value {
                data: made.as_ptr(),
                len: made.len() as u64,
            };
        }
    }
    VERDICT.load(Ordering::Acquire)
}

unsafe extern "C" fn ent_valid(
    _arg: *mut c_void,
    _key: *const dss_iv_key,
    version: *const dss_iv_version,
) -> i32 {
    // SAFETY: see the top of the file.
    i32::from(unsafe { (*version).term } == 1)
}

unsafe extern "C" fn pre_sync(
    _arg: *mut c_void,
    _at: *const dss_iv_place,
    _key: *const dss_iv_key,
    _change: *const dss_iv_value,
) {
    CALLED.lock().unwrap().push("pre-sync");
}

fn key(bytes: &[u8]) -> dss_iv_key {
    let mut key = dss_iv_key {
        class_id: SHARED,
        len: bytes.len() as u32,
        bytes: [0; 48],
    };
    key.bytes[..bytes.len()].copy_from_slice(bytes);
    key
}

fn op(opcode: u32, name: &[u8]) -> dss_iv_op {
    dss_iv_op {
        opcode,
        sync: DSS_IV_SYNC_NONE,
        shortcut: DSS_IV_SHORTCUT_NONE,
        flags: 0,
        timeout_ms: if opcode < DSS_IV_NS_CREATE { 10_000 } else { 0 },
        ns: NS,
        key: key(name),
        value: dss_iv_value::NONE,
    }
}

fn update(name: &[u8], value: &'static [u8]) -> dss_iv_op {
    dss_iv_op {
        sync: DSS_IV_SYNC_EAGER,
        value: dss_iv_value {
            data: value.as_ptr(),
            len: value.len() as u64,
        },
        ..op(DSS_IV_UPDATE, name)
    }
}

/// Waits; the answer and the value.
fn wait(op: dss_iv_op) -> (i32, Vec<u8>) {
    let mut buf = vec![0; 64];
    // SAFETY: see the top of the file; all zeroes is a valid result.
    unsafe {
        let mut result: dss_iv_result = std::mem::zeroed();
        let (to, len) = (buf.as_mut_ptr().cast(), buf.len() as u64);
        let rc = (host().iv_call_wait)(&raw const IVS, &raw const op, to, len, &raw mut result);
        buf.truncate(if rc == 0 {
            result.value.len as usize
        } else {
            0
        });
        (rc, buf)
    }
}

fn cached(name: &[u8]) -> Result<Vec<u8>, i64> {
    let (key, mut buf) = (key(name), [0u8; 64]);
    // SAFETY: see the top of the file.
    let len = unsafe {
        let to = buf.as_mut_ptr().cast();
        (host().iv_cached)(NS.as_ptr(), &raw const key, null_mut(), to, 64)
    };
    usize::try_from(len)
        .map(|len| buf[..len].to_vec())
        .map_err(|_| len)
}

fn engine() -> Engine {
    let mut engine = Engine::new(WAIT);
    CALLED.lock().unwrap().clear();
    VERDICT.store(0, Ordering::Release);
    DONE.store(0, Ordering::Release);
    engine.load("raw", &RAW).unwrap();
    engine.load("ults", &ULTS).unwrap();
    engine.load("ivs", &IVS).unwrap();
    engine.start();
    engine
}

fn ready() -> Engine {
    let engine = engine();
    engine.setup().unwrap();
    engine
}

const NONE: i64 = Der::NONEXIST.neg() as i64;

/// And the length is told.
fn a_buffer_that_is_too_small_gets_nothing() {
    // SAFETY: see the top of the file; all zeroes is a valid result.
    unsafe {
        let (fetch, mut small) = (op(DSS_IV_FETCH, b"x"), [9u8; 2]);
        let mut result: dss_iv_result = std::mem::zeroed();
        let to = small.as_mut_ptr().cast();
        let rc = (host().iv_call_wait)(&raw const IVS, &raw const fetch, to, 2, &raw mut result);
        assert_eq!((rc, small, result.value.len), (0, [9, 9], 4));
        assert!(result.value.data.is_null() && result.version.term == 1);
    }
}

#[test]
fn a_target_fetches_and_updates_and_reads_its_own_cache() {
    let engine = ready();
    on(&engine, &engine.main(0), || {
        assert_eq!(
            wait(op(DSS_IV_FETCH, b"x")).0,
            Der::NONEXIST.neg(),
            "no namespace"
        );
        assert_eq!(wait(op(DSS_IV_NS_CREATE, b"")).0, 0);
        assert_eq!(cached(b"x"), Err(NONE));
        assert_eq!(
            wait(op(DSS_IV_FETCH, b"X")),
            (0, b"from the authority".to_vec())
        );
        assert_eq!(cached(b"x"), Ok(b"from the authority".to_vec()));
    });
    assert_eq!(
        *CALLED.lock().unwrap(),
        ["fetch", "init"],
        "on the system xstream, which is the root"
    );
    let refused = i64::from(REFUSED);
    assert_eq!(
        *FROM_A_HOOK.lock().unwrap(),
        [refused, refused, refused, NONE]
    );
    on(&engine, &engine.main(1), || {
        assert_eq!(cached(b"x"), Err(NONE), "another xstream's cache");
        let answer = wait(update(b"x", b"new"));
        assert_eq!(answer, (0, vec![]), "the value goes nowhere but down");
        assert_eq!(
            wait(op(DSS_IV_FETCH, b"x")).1,
            b"NEW",
            "as the hook made it"
        );
    });
    on(&engine, &engine.main(0), || {
        assert_eq!(
            cached(b"x"),
            Ok(b"NEW".to_vec()),
            "an eager update that returned is everywhere"
        );
        let back = dss_iv_op {
            sync: DSS_IV_SYNC_BIDIRECTIONAL,
            ..update(b"x", b"back")
        };
        assert_eq!(wait(back), (0, b"BACK".to_vec()));
        a_buffer_that_is_too_small_gets_nothing();
        assert_eq!(wait(op(DSS_IV_INVALIDATE, b"x")).0, 0);
        VERDICT.store(Der::NO_PERM.neg(), Ordering::Release);
        assert_eq!(
            wait(update(b"x", b"never")).0,
            Der::NO_PERM.neg(),
            "the hook's word"
        );
        assert_eq!(wait(op(DSS_IV_NS_DESTROY, b"")).0, 0);
        assert_eq!(wait(op(DSS_IV_NS_DESTROY, b"")).0, Der::NONEXIST.neg());
        assert_eq!(cached(b"x"), Err(NONE));
    });
    let called = CALLED.lock().unwrap().clone();
    assert!(
        called.contains(&"pre-sync") && called.ends_with(&["put"]),
        "{called:?}"
    );
    engine.stop();
}

#[test]
fn what_cannot_be_is_refused() {
    let engine = ready();
    let unknown = |name| dss_iv_op {
        key: dss_iv_key {
            class_id: 999,
            ..key(name)
        },
        ..op(DSS_IV_FETCH, name)
    };
    on(&engine, &engine.main(0), move || {
        let inval = Der::INVAL.neg();
        assert_eq!(wait(op(DSS_IV_NS_CREATE, b"")).0, 0);
        assert_eq!(wait(unknown(b"x")).0, Der::NONEXIST.neg(), "no such class");
        assert_eq!(wait(update(b"x", &[7; 65])).0, Der::OVERFLOW.neg());
        assert_eq!(wait(op(DSS_IV_UPDATE, b"x")).0, inval, "a NULL value");
        assert_eq!(wait(op(9, b"x")).0, inval);
        let wrong: [fn(&mut dss_iv_op); 6] = [
            |op| op.sync = 4,
            |op| op.shortcut = 2,
            |op| op.flags = DSS_IV_GROUP,
            |op| op.timeout_ms = 0,
            |op| op.key.len = 49,
            |op| (op.opcode, op.sync) = (DSS_IV_INVALIDATE, DSS_IV_SYNC_BIDIRECTIONAL),
        ];
        for (nr, change) in wrong.into_iter().enumerate() {
            let mut op = update(b"x", b"v");
            change(&mut op);
            assert_eq!(wait(op).0, inval, "wrong {nr}");
        }
        let mut fetch = op(DSS_IV_FETCH, b"x");
        fetch.shortcut = DSS_IV_SHORTCUT_TO_ROOT;
        assert_eq!(wait(fetch).0, inval, "only changes take the shortcut");
        assert_eq!(register(&class(301, c"late")), REFUSED, "after sm_init");
        // SAFETY: see the top of the file.
        unsafe {
            let call = |op| (host().iv_call)(&raw const IVS, op, None, null_mut());
            assert_eq!(call(null()), inval);
            assert_eq!(
                (host().iv_cached)(null(), null(), null_mut(), null_mut(), 0),
                i64::from(inval)
            );
            assert_eq!((host().iv_class_register)(&raw const IVS, null()), REFUSED);
            assert_eq!((host().iv_system_ns)(&raw const IVS, null_mut()), inval);
            let mut ns = [1; 16];
            assert_eq!((host().iv_system_ns)(&raw const IVS, ns.as_mut_ptr()), 0);
            assert_eq!(u128::from_le_bytes(ns), 77);
        }
    });
    // No ULT, and no xstream.
    assert_eq!(
        engine.on(&engine.main(0), || wait(op(DSS_IV_FETCH, b"x")).0),
        REFUSED
    );
    assert_eq!(cached(b"x"), Err(REFUSED.into()));
    let fetch = op(DSS_IV_FETCH, b"x");
    // SAFETY: see the top of the file.
    let rc = unsafe { (host().iv_call)(&raw const IVS, &raw const fetch, None, null_mut()) };
    assert_eq!(rc, REFUSED);
    engine.stop();
}

unsafe extern "C" fn done(arg: *mut c_void, result: *const dss_iv_result) {
    // SAFETY: see the top of the file.
    unsafe {
        assert_eq!(arg.addr(), 8);
        assert_eq!(((*result).rc, (*result).value.len), (0, 18));
    }
    DONE.fetch_add(1, Ordering::AcqRel);
}

#[test]
fn a_call_back_hears_and_what_a_module_forgets_ends_with_its_cleanup() {
    let engine = engine();
    let create = |op: dss_iv_op| {
        // SAFETY: see the top of the file.
        unsafe { (host().iv_call)(&raw const IVS, &raw const op, None, null_mut()) }
    };
    let early = engine.on(&engine.main(0), move || create(op(DSS_IV_NS_CREATE, b"")));
    assert_eq!(early, REFUSED, "before setup");
    engine.setup().unwrap();
    for _ in 0..2 {
        let rc = engine.on(&engine.main(0), move || create(op(DSS_IV_NS_CREATE, b"")));
        assert_eq!(rc, 0);
    }
    let incast = engine.incast.clone();
    let spaces = |engine: &Engine| {
        let incast = incast.clone();
        engine.run(&engine.system(), move |_| async move {
            incast.list(1).await.unwrap().len()
        })
    };
    wait_for("the namespace", || spaces(&engine) == 1);
    let rc = engine.on(&engine.main(0), || {
        let fetch = op(DSS_IV_FETCH, b"y");
        let arg = std::ptr::without_provenance_mut(8);
        // SAFETY: see the top of the file.
        unsafe { (host().iv_call)(&raw const IVS, &raw const fetch, Some(done), arg) }
    });
    assert_eq!(rc, 0);
    wait_for("the answer", || DONE.load(Ordering::Acquire) == 1);
    assert_eq!(engine.cleanup(), Vec::<String>::new());
    assert_eq!(spaces(&engine), 0);
    engine.stop();
}
