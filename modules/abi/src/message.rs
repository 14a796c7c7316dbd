//! RPC, dRPC and engine queries.

use crate::dss_buf;
use std::ffi::{c_char, c_void};

/// One incoming RPC. Opaque.
#[repr(C)]
pub struct dss_rpc {
    _opaque: [u8; 0],
}

/// One incoming dRPC call. Opaque.
#[repr(C)]
pub struct dss_drpc {
    _opaque: [u8; 0],
}

/// A request as received.
#[repr(C)]
#[derive(Debug)]
pub struct dss_rpc_info {
    /// `module << 24 | version << 16 | index`.
    pub opcode: u32,
    /// 0: system xstream; 1 + t: main xstream of target t.
    pub tag: u32,
    /// The sender's number for it.
    pub request_id: u64,
    /// Lives until the reply.
    pub body: *const u8,
    /// Bytes of it.
    pub body_len: u64,
    /// Bytes of bulk data; `dss_host::rpc_bulk` takes them.
    pub bulk_len: u64,
}

/// Runs on the xstream of the request's tag; replies now or later, once. \[xs\]
pub type dss_rpc_handler_t = Option<unsafe extern "C" fn(rpc: *mut dss_rpc)>;

/// One handler of a protocol.
#[repr(C)]
#[derive(Debug)]
pub struct dss_rpc_handler {
    /// Low 16 bits of the opcode.
    pub index: u32,
    /// 0.
    pub flags: u32,
    /// For logs and listings.
    pub name: *const c_char,
    /// The function.
    pub handler: dss_rpc_handler_t,
}

/// One version of a module's protocol.
#[repr(C)]
#[derive(Debug)]
pub struct dss_rpc_proto {
    /// 1 .. 255.
    pub version: u32,
    /// Entries of `handlers`.
    pub count: u32,
    /// The handlers.
    pub handlers: *const dss_rpc_handler,
}

/// Answer to `dss_host::rpc_call`, on the caller's xstream. `body` is borrowed; `bulk` moves to the callee.
pub type dss_rpc_done_t = Option<
    unsafe extern "C" fn(arg: *mut c_void, rc: i32, body: *const u8, body_len: u64, bulk: dss_buf),
>;

/// A dRPC call as received.
#[repr(C)]
#[derive(Debug)]
pub struct dss_drpc_info {
    /// dRPC module id.
    pub module: i32,
    /// Method of that module.
    pub method: i32,
    /// The session's number for the call.
    pub sequence: i64,
    /// Lives until the reply.
    pub body: *const u8,
    /// Bytes of it.
    pub body_len: u64,
}

/// Runs on the system xstream; replies now or later, once. \[xs:sys\]
pub type dss_drpc_handler_t = Option<unsafe extern "C" fn(call: *mut dss_drpc)>;

/// One dRPC module id; a list of them ends with an entry whose handler is NULL.
#[repr(C)]
#[derive(Debug)]
pub struct dss_drpc_handler {
    /// 0 .. `DSS_MAX_DRPC_MODULE` - 1, unique in the engine.
    pub module_id: i32,
    /// 0.
    pub reserved: i32,
    /// The function.
    pub handler: dss_drpc_handler_t,
}

/// Answer to `dss_host::query`; `out` is borrowed.
pub type dss_query_done_t =
    Option<unsafe extern "C" fn(arg: *mut c_void, rc: i32, out: *const u8, out_len: u64)>;
