//! Modules that call the table by hand.
//!
//! Invariant: what a test passes to the table is what the header asks for, wrong places and stale handles aside: those
//! are what is tested.
#![allow(unsafe_code, reason = "calls through the table, as a C module does")]

use module_abi::*;
use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};

static HOST: AtomicPtr<dss_host> = AtomicPtr::new(null_mut());

pub fn host() -> &'static dss_host {
    // SAFETY: the engine has stored it.
    unsafe { &*HOST.load(Ordering::Acquire) }
}

unsafe extern "C" fn nothing() -> i32 {
    0
}

/// A module that does nothing, to be changed with `..`.
pub const fn plain(name: &'static CStr, id: i32) -> dss_module {
    dss_module {
        sm_magic: DSS_ABI_MAGIC,
        sm_size: size_of::<dss_module>() as u32,
        sm_fingerprint: DSS_ABI_FINGERPRINT,
        sm_level: DSS_ABI_LEVEL,
        sm_mod_id: id,
        sm_ver: 1 << 24,
        sm_reserved: 0,
        sm_name: name.as_ptr(),
        sm_facs: 0,
        sm_host: HOST.as_ptr().cast(),
        sm_key: null(),
        sm_init: Some(nothing),
        sm_fini: Some(nothing),
        sm_setup: None,
        sm_cleanup: None,
        sm_proto_count: 0,
        sm_reserved2: 0,
        sm_proto: [null(), null()],
        sm_drpc_handlers: null(),
        sm_get_req_attr: None,
        sm_needs: null(),
        sm_provides: null(),
        sm_about: null(),
    }
}

/// Holds on to each request and call, for the tests.
pub static RAW: dss_module = dss_module {
    sm_proto_count: 1,
    sm_proto: [&raw const PROTO, null()],
    sm_drpc_handlers: DRPC.as_ptr(),
    sm_key: &raw const KEY,
    sm_get_req_attr: Some(classify),
    ..plain(c"raw", 50)
};
pub const HOLD: u32 = DSS_RPC_OPCODE(50, 1, 3);

static PROTO: dss_rpc_proto = dss_rpc_proto {
    version: 1,
    count: 1,
    handlers: HANDLERS.as_ptr(),
};
static HANDLERS: [dss_rpc_handler; 1] = [dss_rpc_handler {
    index: 3,
    flags: 0,
    name: c"hold".as_ptr(),
    handler: Some(hold),
}];
static DRPC: [dss_drpc_handler; 2] = [
    dss_drpc_handler {
        module_id: 99,
        reserved: 0,
        handler: Some(hold_drpc),
    },
    dss_drpc_handler {
        module_id: 0,
        reserved: 0,
        handler: None,
    },
];
pub static KEY: dss_module_key = dss_module_key {
    dmk_tags: DAOS_TGT_TAG,
    dmk_index: AtomicI32::new(-1),
    dmk_init: Some(key_init),
    dmk_fini: Some(key_fini),
};

/// Handles of requests and calls that wait for a test.
pub static HELD: Mutex<Vec<usize>> = Mutex::new(vec![]);
pub static CLASSIFIED: AtomicU32 = AtomicU32::new(0);
/// Values of `KEY` that live.
pub static VALUES: AtomicI32 = AtomicI32::new(0);

unsafe extern "C" fn hold(rpc: *mut dss_rpc) {
    HELD.lock().unwrap().push(rpc.addr());
}

unsafe extern "C" fn hold_drpc(call: *mut dss_drpc) {
    HELD.lock().unwrap().push(call.addr());
}

unsafe extern "C" fn classify(rpc: *const dss_rpc_info, out: *mut dss_req_attr) -> i32 {
    // SAFETY: lent by the engine.
    unsafe {
        CLASSIFIED.store((*rpc).opcode, Ordering::Release);
        (*out).r#type = 1;
    }
    0
}

unsafe extern "C" fn key_init(tags: u32, _xs_id: i32, tgt_id: i32) -> *mut c_void {
    assert!(tags & DAOS_TGT_TAG != 0);
    VALUES.fetch_add(1, Ordering::AcqRel);
    std::ptr::without_provenance_mut(1000 + tgt_id as usize)
}

unsafe extern "C" fn key_fini(_tags: u32, value: *mut c_void) {
    assert!(value.addr() >= 1000);
    VALUES.fetch_sub(1, Ordering::AcqRel);
}

/// The next held handle.
pub fn next_held() -> usize {
    let end = std::time::Instant::now() + super::fixture::WAIT;
    loop {
        if let Some(handle) = HELD.lock().unwrap().pop() {
            return handle;
        }
        assert!(std::time::Instant::now() < end, "no request came");
        std::thread::yield_now();
    }
}

pub fn handle<T>(number: usize) -> *mut T {
    std::ptr::without_provenance_mut(number)
}
