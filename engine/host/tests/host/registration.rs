//! Registration is all or nothing.
#![allow(unsafe_code, reason = "handlers with the header's signatures")]

use super::fixture::{Engine, WAIT};
use super::raw::{RAW, plain};
use module_abi::*;
use std::ptr::null;
use std::sync::atomic::{AtomicI32, Ordering};

unsafe extern "C" fn on_rpc(_: *mut dss_rpc) {}
unsafe extern "C" fn on_drpc(_: *mut dss_drpc) {}

const fn handler(index: u32) -> dss_rpc_handler {
    dss_rpc_handler {
        index,
        flags: 0,
        name: c"h".as_ptr(),
        handler: Some(on_rpc),
    }
}
const fn drpc(module_id: i32) -> dss_drpc_handler {
    dss_drpc_handler {
        module_id,
        reserved: 0,
        handler: Some(on_drpc),
    }
}
const END: dss_drpc_handler = dss_drpc_handler {
    module_id: 0,
    reserved: 0,
    handler: None,
};

static HANDLERS: [dss_rpc_handler; 1] = [handler(1)];
static GOOD: dss_rpc_proto = dss_rpc_proto {
    version: 1,
    count: 1,
    handlers: HANDLERS.as_ptr(),
};
static SAME: dss_rpc_proto = dss_rpc_proto {
    version: 1,
    count: 1,
    handlers: HANDLERS.as_ptr(),
};
static ZERO: dss_rpc_proto = dss_rpc_proto {
    version: 0,
    count: 1,
    handlers: HANDLERS.as_ptr(),
};
static EMPTY: [dss_rpc_handler; 1] = [dss_rpc_handler {
    handler: None,
    ..handler(4)
}];
static HOLLOW: dss_rpc_proto = dss_rpc_proto {
    version: 2,
    count: 1,
    handlers: EMPTY.as_ptr(),
};
static KEY: dss_module_key = dss_module_key {
    dmk_tags: DAOS_TGT_TAG,
    dmk_index: AtomicI32::new(-1),
    dmk_init: None,
    dmk_fini: None,
};

/// The first two are free, the third is `raw`'s: DAOS leaves the first two registered.
static HALF: [dss_drpc_handler; 4] = [drpc(20), drpc(21), drpc(99), END];
static HIGH: [dss_drpc_handler; 2] = [drpc(128), END];

const fn with(proto: [*const dss_rpc_proto; 2], drpc: *const dss_drpc_handler) -> dss_module {
    dss_module {
        sm_key: &raw const KEY,
        sm_proto_count: 2,
        sm_proto: proto,
        sm_drpc_handlers: drpc,
        ..plain(c"bad", 44)
    }
}

static TAKEN: dss_module = with([&raw const GOOD, null()], HALF.as_ptr());
static OUTSIDE: dss_module = with([&raw const GOOD, null()], HIGH.as_ptr());
static TWICE: dss_module = with([&raw const GOOD, &raw const SAME], null());
static VERSION: dss_module = with([&raw const GOOD, &raw const ZERO], null());
static NO_FUNCTION: dss_module = with([&raw const GOOD, &raw const HOLLOW], null());

#[test]
fn a_failure_takes_back_exactly_what_was_registered() {
    let mut engine = Engine::new(WAIT);
    engine.load("raw", &RAW).unwrap();
    let before = (
        engine.keys.list().len(),
        engine.rpc.list(),
        engine.drpc.ids(),
    );
    for (module, message) in [
        (&TAKEN, "dRPC module id 99: another handler has it"),
        (&OUTSIDE, "dRPC module id 128: ids are 0 to 127"),
        (
            &TWICE,
            "RPC protocol version 1: version 1 of module 44 is already registered",
        ),
        (&VERSION, "RPC protocol version 0: versions are 1 to 255"),
        (
            &NO_FUNCTION,
            "RPC protocol version 2: handler h (4) has no function",
        ),
    ] {
        assert_eq!(engine.load("bad", module).unwrap_err(), message);
        assert_eq!(
            before,
            (
                engine.keys.list().len(),
                engine.rpc.list(),
                engine.drpc.ids()
            ),
            "after {message}"
        );
        assert_eq!(KEY.dmk_index.load(Ordering::Acquire), -1);
    }
    assert_eq!(
        engine.load("raw", &RAW).unwrap_err(),
        "an engine has this module already"
    );
    engine.stop();
}
