//! What the engine offers: its table of functions. The tag in brackets says who may call each, and when.

use crate::{
    dss_barrier, dss_bdev, dss_bdev_info, dss_bdev_io, dss_buf, dss_chore_attr, dss_chore_func_t,
    dss_coll_args, dss_coll_ops, dss_cond, dss_drpc, dss_drpc_info, dss_eventual, dss_exec_func_t,
    dss_func_t, dss_iv_class, dss_iv_done_t, dss_iv_key, dss_iv_op, dss_iv_result, dss_iv_version,
    dss_module, dss_module_info, dss_mutex, dss_poller_fn_t, dss_query_done_t, dss_req_attr,
    dss_rpc, dss_rpc_answer, dss_rpc_done_t, dss_rpc_info, dss_task_ops, dss_thread_local_storage,
    dss_ult, dss_ult_attr, dss_waker,
};
use std::ffi::{c_char, c_void};

/// A registered poller. Opaque.
#[repr(C)]
pub struct dss_poller {
    _opaque: [u8; 0],
}

/// An armed timer. Opaque.
#[repr(C)]
pub struct dss_timer {
    _opaque: [u8; 0],
}

/// A result that is owed. Opaque.
#[repr(C)]
pub struct dss_done {
    _opaque: [u8; 0],
}

/// A registered metric. Opaque.
#[repr(C)]
pub struct dss_metric {
    _opaque: [u8; 0],
}

/// A place in a target's scheduler. Opaque.
#[repr(C)]
pub struct dss_sched_req {
    _opaque: [u8; 0],
}

/// The engine's functions. Returns: 0 or positive on success, a negative DAOS error number otherwise; a call from the
/// wrong xstream or state answers `-DER_OP_NOT_PERMITTED` (or NULL), is logged and has no effect.
#[repr(C)]
pub struct dss_host {
    /// `sizeof(struct dss_host)`.
    pub size: u32,
    /// `DSS_ABI_LEVEL` of the engine.
    pub level: u32,

    /// Logs one message. \[any\]
    pub log: unsafe extern "C" fn(*const dss_module, i32, *const c_char, u64),
    /// 1 when the log mask lets messages of this level through. \[any\]
    pub log_enabled: unsafe extern "C" fn(*const dss_module, i32) -> i32,
    /// Monotonic time in nanoseconds. \[any\]
    pub now_ns: unsafe extern "C" fn() -> u64,

    /// This xstream's storage; NULL on a thread that is no xstream. \[any\]
    pub tls_get: unsafe extern "C" fn() -> *mut dss_thread_local_storage,
    /// Who runs this code; NULL on a thread that is no xstream. \[any\]
    pub module_info: unsafe extern "C" fn() -> *const dss_module_info,
    /// 1 once the engine has begun to shut down. \[any\]
    pub shutting_down: unsafe extern "C" fn() -> i32,

    /// Runs a task on an xstream. \[xs\]
    pub task_spawn: unsafe extern "C" fn(
        *const dss_module,
        *const c_char,
        i32,
        i32,
        *const dss_task_ops,
        *mut c_void,
    ) -> i32,
    /// Runs a function once on an xstream. \[any, serving\]
    pub tasklet: unsafe extern "C" fn(
        *const dss_module,
        *const c_char,
        i32,
        i32,
        dss_func_t,
        *mut c_void,
    ) -> i32,
    /// Wakes the waker once, no earlier than the deadline; NULL at the limit. \[xs\]
    pub timer_arm: unsafe extern "C" fn(*const dss_module, u64, *const dss_waker) -> *mut dss_timer,
    /// Ends a timer, fired or not. \[owner\]
    pub timer_free: unsafe extern "C" fn(*mut dss_timer),
    /// Calls a function every turn, or every period. \[xs\]
    pub poller_register: unsafe extern "C" fn(
        *const dss_module,
        *const c_char,
        u64,
        dss_poller_fn_t,
        *mut c_void,
    ) -> *mut dss_poller,
    /// Legal from inside the poller. \[owner\]
    pub poller_unregister: unsafe extern "C" fn(*mut dss_poller),

    /// A zeroed buffer of at least that many bytes. \[xs\]
    pub buf_alloc: unsafe extern "C" fn(u64, *mut dss_buf) -> i32,
    /// Gives a buffer back; an empty one is fine. \[any\]
    pub buf_free: unsafe extern "C" fn(dss_buf),

    /// Opens this target's share of its device. \[xs:main\]
    pub bdev_open:
        unsafe extern "C" fn(*const dss_module, *mut dss_bdev_info, *mut *mut dss_bdev) -> i32,
    /// Starts an I/O. \[owner\]
    pub bdev_submit: unsafe extern "C" fn(*mut dss_bdev, *const dss_bdev_io) -> i32,
    /// Closes it; I/O in flight completes first. \[owner\]
    pub bdev_close: unsafe extern "C" fn(*mut dss_bdev),

    /// The request as received. \[owner\]
    pub rpc_info: unsafe extern "C" fn(*mut dss_rpc, *mut dss_rpc_info),
    /// Takes the request's bulk data; empty when there is none. \[owner\]
    pub rpc_bulk: unsafe extern "C" fn(*mut dss_rpc) -> dss_buf,
    /// Answers and ends the request. \[owner\]
    pub rpc_reply: unsafe extern "C" fn(*mut dss_rpc, i32, *const u8, u64, dss_buf),
    /// Calls a handler in this engine. \[xs, serving or sm_setup\]
    pub rpc_call: unsafe extern "C" fn(
        *const dss_module,
        u32,
        u32,
        *const u8,
        u64,
        dss_buf,
        dss_rpc_done_t,
        *mut c_void,
    ) -> i32,

    /// The call as received. \[owner\]
    pub drpc_info: unsafe extern "C" fn(*mut dss_drpc, *mut dss_drpc_info),
    /// Answers and ends the call. \[owner\]
    pub drpc_reply: unsafe extern "C" fn(*mut dss_drpc, i32, *const u8, u64),

    /// Reports the result of a setup or cleanup that returned `DSS_PENDING`. \[xs:sys\]
    pub done: unsafe extern "C" fn(*mut dss_done, i32),

    /// Asks the engine. \[xs:sys\]
    pub query: unsafe extern "C" fn(
        *const dss_module,
        u32,
        *const u8,
        u64,
        dss_query_done_t,
        *mut c_void,
    ) -> i32,

    /// Registers a metric. \[any\]
    pub metric_register: unsafe extern "C" fn(
        *const dss_module,
        i32,
        *const c_char,
        *const c_char,
        i32,
    ) -> *mut dss_metric,
    /// Adds to a counter, sets a gauge, records into a histogram. \[any\]
    pub metric_record: unsafe extern "C" fn(*mut dss_metric, f64),

    // Level 2.
    /// Creates a ULT with a stack of its own. \[xs\]
    pub ult_create: unsafe extern "C" fn(
        *const dss_module,
        *const dss_ult_attr,
        dss_func_t,
        *mut c_void,
        *mut *mut dss_ult,
    ) -> i32,
    /// Runs a function in a new ULT: waits for its result \[ult\], or calls back \[xs\].
    pub ult_execute: unsafe extern "C" fn(
        *const dss_module,
        *const dss_ult_attr,
        dss_exec_func_t,
        *mut c_void,
        dss_func_t,
        *mut c_void,
    ) -> i32,
    /// Creates a ULT on every xstream, or on every main one. \[xs\]
    pub ult_create_all: unsafe extern "C" fn(
        *const dss_module,
        *const dss_ult_attr,
        dss_func_t,
        *mut c_void,
        i32,
    ) -> i32,
    /// Runs a collective and waits. \[ult\]
    pub collective: unsafe extern "C" fn(
        *const dss_module,
        *const dss_ult_attr,
        *const dss_coll_ops,
        *const dss_coll_args,
        i32,
    ) -> i32,
    /// Runs a function on this target's offload xstream and waits. \[ult, xs:main\]
    pub offload_exec:
        unsafe extern "C" fn(*const dss_module, *const c_char, dss_exec_func_t, *mut c_void) -> i32,
    /// Creates a detached ULT here. \[xs:main, xs:sys\]
    pub main_exec:
        unsafe extern "C" fn(*const dss_module, *const c_char, dss_func_t, *mut c_void) -> i32,

    /// Waits for a ULT's end. \[ult\]
    pub ult_join: unsafe extern "C" fn(*mut dss_ult) -> i32,
    /// Gives a handle up. \[any\]
    pub ult_free: unsafe extern "C" fn(*mut dss_ult) -> i32,
    /// Ends its sleep. \[xs\]
    pub ult_wake: unsafe extern "C" fn(*mut dss_ult) -> i32,
    /// Asks it to end. \[xs\]
    pub ult_abort: unsafe extern "C" fn(*mut dss_ult) -> i32,
    /// A handle on the calling ULT. \[ult\]
    pub ult_self: unsafe extern "C" fn() -> *mut dss_ult,
    /// 1: come to your end; otherwise lets others run, and 0. \[ult\]
    pub ult_yield: unsafe extern "C" fn() -> i32,
    /// Sleeps: 0 when the time was up, 1 when woken. \[ult\]
    pub ult_sleep: unsafe extern "C" fn(u64) -> i32,

    /// \[xs\]
    pub eventual_create: unsafe extern "C" fn(*const dss_module, *mut *mut dss_eventual) -> i32,
    /// Sets it, once, and wakes all who wait. \[any\]
    pub eventual_set: unsafe extern "C" fn(*mut dss_eventual, i64) -> i32,
    /// Waits for its value. \[ult\]
    pub eventual_wait: unsafe extern "C" fn(*mut dss_eventual, u64, *mut i64) -> i32,
    /// 1: set, 0: not yet. \[any\]
    pub eventual_test: unsafe extern "C" fn(*mut dss_eventual, *mut i64) -> i32,
    /// Unset again. \[any\]
    pub eventual_reset: unsafe extern "C" fn(*mut dss_eventual) -> i32,
    /// Who waits gets `-DER_CANCELED`. \[any\]
    pub eventual_free: unsafe extern "C" fn(*mut dss_eventual) -> i32,

    /// \[xs\]
    pub mutex_create: unsafe extern "C" fn(*const dss_module, *mut *mut dss_mutex) -> i32,
    /// \[ult\]
    pub mutex_lock: unsafe extern "C" fn(*mut dss_mutex, u64) -> i32,
    /// \[ult\]
    pub mutex_unlock: unsafe extern "C" fn(*mut dss_mutex) -> i32,
    /// \[any\]
    pub mutex_free: unsafe extern "C" fn(*mut dss_mutex) -> i32,

    /// \[xs\]
    pub cond_create: unsafe extern "C" fn(*const dss_module, *mut *mut dss_cond) -> i32,
    /// Unlocks, waits, locks. \[ult\]
    pub cond_wait: unsafe extern "C" fn(*mut dss_cond, *mut dss_mutex, u64) -> i32,
    /// Wakes the one that has waited longest. \[any\]
    pub cond_signal: unsafe extern "C" fn(*mut dss_cond) -> i32,
    /// Wakes all. \[any\]
    pub cond_broadcast: unsafe extern "C" fn(*mut dss_cond) -> i32,
    /// \[any\]
    pub cond_free: unsafe extern "C" fn(*mut dss_cond) -> i32,

    /// For so many. \[xs\]
    pub barrier_create: unsafe extern "C" fn(*const dss_module, u32, *mut *mut dss_barrier) -> i32,
    /// 1 for the last to come, 0 for the others. \[ult\]
    pub barrier_wait: unsafe extern "C" fn(*mut dss_barrier) -> i32,
    /// \[any\]
    pub barrier_free: unsafe extern "C" fn(*mut dss_barrier) -> i32,

    /// An I/O, waited for. \[ult, owner\]
    pub bdev_io_wait: unsafe extern "C" fn(*mut dss_bdev, *mut dss_bdev_io) -> i32,
    /// An RPC, waited for. \[ult, serving\]
    pub rpc_call_wait: unsafe extern "C" fn(
        *const dss_module,
        u32,
        u32,
        *const u8,
        u64,
        *mut dss_buf,
        *mut dss_rpc_answer,
    ) -> i32,
    /// Gives an answer back. \[any\]
    pub rpc_answer_free: unsafe extern "C" fn(*mut dss_rpc_answer),

    /// A place in this target's scheduler for work in slices. \[xs:main\]
    pub sched_req_get: unsafe extern "C" fn(
        *const dss_module,
        *const dss_req_attr,
        *mut *mut dss_sched_req,
    ) -> i32,
    /// Asks for the turn of the next slice, from a task's poll. \[owner\]
    pub sched_req_turn: unsafe extern "C" fn(*mut dss_sched_req, *const dss_waker) -> i32,
    /// Waits for the turn. \[ult, owner\]
    pub sched_req_yield: unsafe extern "C" fn(*mut dss_sched_req) -> i32,
    /// It has nothing to do until its next turn. \[owner\]
    pub sched_req_asleep: unsafe extern "C" fn(*mut dss_sched_req, i32) -> i32,
    /// Gives it up. \[owner\]
    pub sched_req_put: unsafe extern "C" fn(*mut dss_sched_req),
    /// What a pool has on this target. \[xs:main\]
    pub space_report: unsafe extern "C" fn(*const dss_module, *const u8, u64, u64, u32) -> i32,
    /// A pool's pressure level, 0 to 5. \[xs:main\]
    pub space_pressure: unsafe extern "C" fn(*const dss_module, *const u8) -> i32,
    /// The pool is gone. \[xs:main\]
    pub space_forget: unsafe extern "C" fn(*const dss_module, *const u8) -> i32,
    /// Gives an offload xstream work in short steps. \[any, serving\]
    pub chore_register: unsafe extern "C" fn(
        *const dss_module,
        *const dss_chore_attr,
        dss_chore_func_t,
        *mut c_void,
        *mut u32,
    ) -> i32,

    // Level 3.
    /// Registers a class of incast variables, in `sm_init`. \[main-thread\]
    pub iv_class_register: unsafe extern "C" fn(*const dss_module, *const dss_iv_class) -> i32,
    /// Starts an operation. \[xs, serving\]
    pub iv_call: unsafe extern "C" fn(
        *const dss_module,
        *const dss_iv_op,
        dss_iv_done_t,
        *mut c_void,
    ) -> i32,
    /// The same, waited for. \[ult, serving\]
    pub iv_call_wait: unsafe extern "C" fn(
        *const dss_module,
        *const dss_iv_op,
        *mut c_void,
        u64,
        *mut dss_iv_result,
    ) -> i32,
    /// What this xstream may serve at once. \[xs\]
    pub iv_cached: unsafe extern "C" fn(
        *const u8,
        *const dss_iv_key,
        *mut dss_iv_version,
        *mut c_void,
        u64,
    ) -> i64,
    /// The namespace that all engines of the system share. \[any\]
    pub iv_system_ns: unsafe extern "C" fn(*const dss_module, *mut u8) -> i32,
    /// 1: the device was evicted or removed, and with it this handle. \[owner\]
    pub bdev_gone: unsafe extern "C" fn(*mut dss_bdev, *const dss_waker) -> i32,
}
