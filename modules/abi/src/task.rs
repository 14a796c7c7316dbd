//! Tasks and their wakers.

use std::ffi::c_void;

/// The four operations of a waker.
#[repr(C)]
#[derive(Debug)]
pub struct dss_waker_vtbl {
    /// One more reference.
    pub clone: unsafe extern "C" fn(data: *mut c_void) -> *mut c_void,
    /// Wakes, and gives the reference up.
    pub wake: unsafe extern "C" fn(data: *mut c_void),
    /// Wakes, and keeps the reference.
    pub wake_by_ref: unsafe extern "C" fn(data: *mut c_void),
    /// Gives the reference up.
    pub drop: unsafe extern "C" fn(data: *mut c_void),
}

/// Wakes one task; may be used and dropped from any thread.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct dss_waker {
    /// Argument of the four operations.
    pub data: *mut c_void,
    /// The operations; lives as long as the process.
    pub vtbl: *const dss_waker_vtbl,
}

/// A task (a ULT without a stack of its own): polled on its xstream until it is ready, then dropped there.
#[repr(C)]
#[derive(Debug)]
pub struct dss_task_ops {
    /// Runs it on; answers `DSS_TASK_*`. The waker is borrowed: clone it to keep it.
    pub poll: Option<unsafe extern "C" fn(data: *mut c_void, waker: *const dss_waker) -> i32>,
    /// Frees it, on its xstream.
    pub drop: Option<unsafe extern "C" fn(data: *mut c_void)>,
}

/// A function that runs once.
pub type dss_func_t = Option<unsafe extern "C" fn(arg: *mut c_void)>;
/// A poller: 1 when it did something, 0 when idle.
pub type dss_poller_fn_t = Option<unsafe extern "C" fn(arg: *mut c_void) -> i32>;
