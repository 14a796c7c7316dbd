//! ULTs with a stack of their own, and what they wait with.

use crate::dss_buf;
use std::ffi::{c_char, c_void};

/// A ULT, by handle. Opaque.
#[repr(C)]
pub struct dss_ult {
    _opaque: [u8; 0],
}

/// A value that comes later. Opaque.
#[repr(C)]
pub struct dss_eventual {
    _opaque: [u8; 0],
}

/// Held over waits. Opaque.
#[repr(C)]
pub struct dss_mutex {
    _opaque: [u8; 0],
}

/// A condition variable. Opaque.
#[repr(C)]
pub struct dss_cond {
    _opaque: [u8; 0],
}

/// A barrier. Opaque.
#[repr(C)]
pub struct dss_barrier {
    _opaque: [u8; 0],
}

/// Where and how a ULT runs.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct dss_ult_attr {
    /// Copied; not empty.
    pub name: *const c_char,
    /// `DSS_XS_*`.
    pub xs_type: i32,
    /// Where `xs_type` needs one.
    pub tgt_id: i32,
    /// Bytes, rounded up; 0: the default.
    pub stack_size: u64,
    /// `DSS_ULT_*`.
    pub flags: u32,
    /// Not 0: the function runs every so often until the ULT is aborted or its xstream stops; implies `DSS_ULT_PERIODIC`.
    pub period_ms: u32,
}

/// A function with a result: 0 or a negative error.
pub type dss_exec_func_t = Option<unsafe extern "C" fn(arg: *mut c_void) -> i32>;

/// A collective's functions.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct dss_coll_ops {
    /// Runs on each target's main xstream. Not NULL. \[xs:main\]
    pub co_func: Option<unsafe extern "C" fn(f_args: *mut c_void, st_arg: *mut c_void) -> i32>,
    /// On the caller, for every target in order; rc 0 or negative, or `DSS_COLL_LEFT_OUT`. May be NULL. \[owner\]
    pub co_reduce: Option<
        unsafe extern "C" fn(aggregator: *mut c_void, tgt_id: i32, st_arg: *mut c_void, rc: i32),
    >,
    /// On the caller, for each target in the bitmap. May be NULL. \[owner\]
    pub co_reduce_arg_alloc: Option<
        unsafe extern "C" fn(aggregator: *mut c_void, tgt_id: i32, st_arg: *mut *mut c_void) -> i32,
    >,
    /// On the caller, after `co_reduce`. Not NULL when there is an alloc. \[owner\]
    pub co_reduce_arg_free:
        Option<unsafe extern "C" fn(aggregator: *mut c_void, st_arg: *mut c_void)>,
}

/// What a collective works on.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct dss_coll_args {
    /// Given to `co_func`.
    pub ca_func_args: *mut c_void,
    /// Given to the other functions.
    pub ca_aggregator: *mut c_void,
    /// A bit per target, least significant first; NULL: all.
    pub ca_tgt_bitmap: *const u8,
    /// Its bytes.
    pub ca_tgt_bitmap_sz: u32,
    /// 0.
    pub ca_reserved: u32,
}

/// Work in short steps for an offload xstream.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct dss_chore_attr {
    /// Copied; not empty.
    pub name: *const c_char,
    /// `DSS_XS_IOFW` or `DSS_XS_OFFLOAD`.
    pub xs_type: i32,
    /// The target that it is done for.
    pub tgt_id: i32,
    /// What it takes of the xstream's, until its last step.
    pub credits: u32,
    /// `DSS_CHORE_PRIORITY`.
    pub flags: u32,
}

/// A chore's step: `DSS_CHORE_*` in and out. It must not wait.
pub type dss_chore_func_t = Option<unsafe extern "C" fn(arg: *mut c_void, status: i32) -> i32>;

/// The answer to an RPC that was waited for.
#[repr(C)]
pub struct dss_rpc_answer {
    /// The handler's: 0 or negative.
    pub status: i32,
    /// 0.
    pub reserved: u32,
    /// Lives until the answer is given back.
    pub body: *const u8,
    /// Its bytes.
    pub body_len: u64,
    /// The caller's now.
    pub bulk: dss_buf,
    /// The engine's.
    pub owner: *mut c_void,
}
