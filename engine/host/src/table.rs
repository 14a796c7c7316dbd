//! The table itself, and the functions that anybody may call anywhere.
//!
//! Invariants: H1 and H4 of `guard.rs`.
#![allow(unsafe_code, reason = "functions that modules call")]

use crate::calls::{
    bdev, buffer, chore, collective, drpc, iv, metric, poller, query, rpc, sched, sync, task,
    timer, ult,
};
use crate::guard::{entry, module};
use crate::here;
use module_abi::{
    DSS_ABI_LEVEL, DSS_LOG_DEBUG, DSS_LOG_ERROR, DSS_LOG_INFO, DSS_LOG_WARN, dss_host, dss_module,
    dss_module_info, dss_thread_local_storage,
};
use spdk_env::Clock;
use std::ffi::c_char;
use std::sync::OnceLock;
use tracing::Level;

pub(crate) static TABLE: dss_host = dss_host {
    size: size_of::<dss_host>() as u32,
    level: DSS_ABI_LEVEL,
    log,
    log_enabled,
    now_ns,
    tls_get,
    module_info,
    shutting_down,
    task_spawn: task::spawn,
    tasklet: task::tasklet,
    timer_arm: timer::arm,
    timer_free: timer::free,
    poller_register: poller::register,
    poller_unregister: poller::unregister,
    buf_alloc: buffer::alloc,
    buf_free: buffer::free,
    bdev_open: bdev::open,
    bdev_submit: bdev::submit,
    bdev_close: bdev::close,
    rpc_info: rpc::info,
    rpc_bulk: rpc::bulk,
    rpc_reply: rpc::reply,
    rpc_call: rpc::call,
    drpc_info: drpc::info,
    drpc_reply: drpc::reply,
    done: query::done,
    query: query::query,
    metric_register: metric::register,
    metric_record: metric::record,
    ult_create: ult::create,
    ult_execute: ult::execute,
    ult_create_all: ult::create_all,
    collective: collective::collective,
    offload_exec: ult::offload_exec,
    main_exec: ult::main_exec,
    ult_join: ult::join,
    ult_free: ult::free,
    ult_wake: ult::wake,
    ult_abort: ult::abort,
    ult_self: ult::this,
    ult_yield: ult::yield_now,
    ult_sleep: ult::sleep,
    eventual_create: sync::eventual_create,
    eventual_set: sync::eventual_set,
    eventual_wait: sync::eventual_wait,
    eventual_test: sync::eventual_test,
    eventual_reset: sync::eventual_reset,
    eventual_free: sync::eventual_free,
    mutex_create: sync::mutex_create,
    mutex_lock: sync::mutex_lock,
    mutex_unlock: sync::mutex_unlock,
    mutex_free: sync::mutex_free,
    cond_create: sync::cond_create,
    cond_wait: sync::cond_wait,
    cond_signal: sync::cond_signal,
    cond_broadcast: sync::cond_broadcast,
    cond_free: sync::cond_free,
    barrier_create: sync::barrier_create,
    barrier_wait: sync::barrier_wait,
    barrier_free: sync::barrier_free,
    bdev_io_wait: bdev::io_wait,
    rpc_call_wait: rpc::call_wait,
    rpc_answer_free: rpc::answer_free,
    sched_req_get: sched::get,
    sched_req_turn: sched::turn,
    sched_req_yield: sched::yield_now,
    sched_req_asleep: sched::asleep,
    sched_req_put: sched::put,
    space_report: sched::space_report,
    space_pressure: sched::space_pressure,
    space_forget: sched::space_forget,
    chore_register: chore::register,
    iv_class_register: iv::class_register,
    iv_call: iv::call,
    iv_call_wait: iv::call_wait,
    iv_cached: iv::cached,
    iv_system_ns: iv::system_ns,
    bdev_gone: bdev::gone,
};

/// Bytes of one message that are kept.
const MESSAGE_MAX: u64 = 16 << 10;

unsafe extern "C" fn log(this: *const dss_module, level: i32, text: *const c_char, len: u64) {
    entry("log", (), || {
        let Ok(module) = module("log", this) else {
            return;
        };
        // SAFETY: H1: `len` bytes.
        let text = unsafe { rpc::bytes(text.cast(), len.min(MESSAGE_MAX)) };
        let (module, text) = (module.name.as_str(), String::from_utf8_lossy(text));
        match level {
            DSS_LOG_ERROR => tracing::error!(target: "keel_module", module, "{text}"),
            DSS_LOG_WARN => tracing::warn!(target: "keel_module", module, "{text}"),
            DSS_LOG_INFO => tracing::info!(target: "keel_module", module, "{text}"),
            DSS_LOG_DEBUG => tracing::debug!(target: "keel_module", module, "{text}"),
            _ => tracing::trace!(target: "keel_module", module, "{text}"),
        }
    });
}

unsafe extern "C" fn log_enabled(_this: *const dss_module, level: i32) -> i32 {
    entry("log_enabled", 0, || {
        i32::from(match level {
            DSS_LOG_ERROR => tracing::enabled!(target: "keel_module", Level::ERROR),
            DSS_LOG_WARN => tracing::enabled!(target: "keel_module", Level::WARN),
            DSS_LOG_INFO => tracing::enabled!(target: "keel_module", Level::INFO),
            DSS_LOG_DEBUG => tracing::enabled!(target: "keel_module", Level::DEBUG),
            _ => tracing::enabled!(target: "keel_module", Level::TRACE),
        })
    })
}

unsafe extern "C" fn now_ns() -> u64 {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    CLOCK.get_or_init(Clock::tsc).now()
}

unsafe extern "C" fn tls_get() -> *mut dss_thread_local_storage {
    engine_tls::current_storage().cast_mut().cast()
}

unsafe extern "C" fn module_info() -> *const dss_module_info {
    entry("module_info", std::ptr::null(), here::info)
}

unsafe extern "C" fn shutting_down() -> i32 {
    entry("shutting_down", 0, || {
        i32::from(engine_xstream::current().is_some_and(|xstream| xstream.is_shutting_down()))
    })
}

// `tls_get` hands the engine's storage out under the header's name.
const _: () = assert!(size_of::<engine_tls::Storage>() == size_of::<dss_thread_local_storage>());
