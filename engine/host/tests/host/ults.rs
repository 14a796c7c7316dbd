//! A module whose tests are straight-line code in ULTs with stacks of their own.
//!
//! Invariant: as `raw.rs`.
#![allow(unsafe_code, reason = "calls through the table, as a C module does")]

use super::fixture::{Engine, WAIT};
use super::raw::{RAW, handle, host, plain};
use engine_xstream::XstreamRef;
use module_abi::*;
use std::ffi::{CStr, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{null, null_mut};
use std::sync::mpsc;

/// Answers in a ULT of its own, after having waited.
pub static ULTS: dss_module = dss_module {
    sm_proto_count: 1,
    sm_proto: [&raw const PROTO, null()],
    ..plain(c"ults", 52)
};
pub const SERVE: u32 = DSS_RPC_OPCODE(52, 1, 1);

static PROTO: dss_rpc_proto = dss_rpc_proto {
    version: 1,
    count: 1,
    handlers: HANDLERS.as_ptr(),
};
static HANDLERS: [dss_rpc_handler; 1] = [dss_rpc_handler {
    index: 1,
    flags: DSS_RPC_ULT,
    name: c"serve".as_ptr(),
    handler: Some(serve),
}];

unsafe extern "C" fn serve(rpc: *mut dss_rpc) {
    // SAFETY: see the top of the file: all zeroes is a valid info.
    unsafe {
        let mut info: dss_rpc_info = std::mem::zeroed();
        assert_eq!((host().ult_sleep)(1), 0, "it may wait");
        (host().rpc_info)(rpc, &raw mut info);
        (host().rpc_reply)(rpc, 0, info.body, info.body_len, dss_buf::EMPTY);
    }
}

pub fn engine() -> Engine {
    let mut engine = Engine::new(WAIT);
    engine.load("raw", &RAW).unwrap();
    engine.load("ults", &ULTS).unwrap();
    engine.start();
    engine.setup().unwrap();
    engine
}

pub fn attr(name: &'static CStr, kind: i32, target: i32) -> dss_ult_attr {
    dss_ult_attr {
        name: name.as_ptr(),
        xs_type: kind,
        tgt_id: target,
        stack_size: 256 << 10, // the assertions' panics want room
        flags: 0,
        period_ms: 0,
    }
}

/// What a ULT runs: a closure, and a place for its panic.
type Body = Box<dyn FnOnce() + Send>;

unsafe extern "C" fn run(arg: *mut c_void) {
    // SAFETY: boxed by `spawn`, run once.
    let body = unsafe { Box::from_raw(arg.cast::<Body>()) };
    body();
}

/// Creates a ULT from where this is called.
pub fn spawn(
    attr: &dss_ult_attr,
    ult: Option<&mut *mut dss_ult>,
    body: impl FnOnce() + Send + 'static,
) -> i32 {
    let body: Box<Body> = Box::new(Box::new(body));
    let (arg, out) = (
        Box::into_raw(body),
        ult.map_or(null_mut(), std::ptr::from_mut),
    );
    // SAFETY: see the top of the file.
    let rc = unsafe { (host().ult_create)(&raw const ULTS, attr, Some(run), arg.cast(), out) };
    if rc != 0 {
        // SAFETY: refused, so it is still ours.
        drop(unsafe { Box::from_raw(arg) });
    }
    rc
}

/// What straight-line code will return, or its panic.
pub struct Later<T>(mpsc::Receiver<std::thread::Result<T>>);

impl<T> Later<T> {
    pub fn get(self) -> T {
        match self.0.recv_timeout(WAIT).expect("the ULT ends") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// Starts straight-line code in a ULT of an xstream.
pub fn start<T: Send + 'static>(
    engine: &Engine,
    xs: &XstreamRef,
    f: impl FnOnce() -> T + Send + 'static,
) -> Later<T> {
    let (sender, receiver) = mpsc::channel();
    let rc = engine.on(xs, move || {
        spawn(&attr(c"test", DSS_XS_SELF, -1), None, move || {
            let result = catch_unwind(AssertUnwindSafe(f));
            sender.send(result).unwrap();
        })
    });
    assert_eq!(rc, 0);
    Later(receiver)
}

/// Runs it to its end.
pub fn on<T: Send + 'static>(
    engine: &Engine,
    xs: &XstreamRef,
    f: impl FnOnce() -> T + Send + 'static,
) -> T {
    start(engine, xs, f).get()
}

/// Who runs this.
pub fn here() -> i32 {
    // SAFETY: see the top of the file: on an xstream.
    unsafe { (*(host().module_info)()).dmi_xs_id }
}

/// A handle that goes to another xstream: a number.
pub struct Handle<T>(usize, PhantomData<fn() -> T>);

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Handle<T> {}

impl<T> Handle<T> {
    pub fn new(raw: *mut T) -> Self {
        Handle(raw.addr(), PhantomData)
    }

    pub fn get(self) -> *mut T {
        handle(self.0)
    }
}
