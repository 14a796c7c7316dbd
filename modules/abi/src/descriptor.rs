//! What a module offers: its descriptor.
//!
//! Invariant D: a descriptor and all that it points to are immutable for the life of the process (libraries are never
//! unloaded), except `dmk_index`, an atomic, and `*sm_host`, which the engine writes once before `sm_init`.
#![allow(unsafe_code, reason = "descriptors are statics that hold raw pointers")]

use crate::{
    DSS_MAX_PROTO_VERSIONS, dss_done, dss_drpc_handler, dss_host, dss_module_key, dss_rpc_handler,
    dss_rpc_info, dss_rpc_proto,
};
use std::ffi::c_char;

/// What a request is to the scheduler.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct dss_req_attr {
    /// 0 update, 1 fetch, 2 gc, 3 scrub, 4 migrate, 5 anonymous.
    pub r#type: u32,
    /// 0.
    pub flags: u32,
    /// Milliseconds; 0: none.
    pub timeout_ms: u32,
    /// 0.
    pub reserved: u32,
    /// The pool that it works on; zeroes: none.
    pub pool_uuid: [u8; 16],
}

/// The exported symbol `<name>_module` (DAOS `struct dss_module`).
#[repr(C)]
pub struct dss_module {
    /// `DSS_ABI_MAGIC`. The first four fields never move: the loader reads them before it trusts the rest.
    pub sm_magic: u32,
    /// `sizeof(struct dss_module)`.
    pub sm_size: u32,
    /// `DSS_ABI_FINGERPRINT`.
    pub sm_fingerprint: u64,
    /// `DSS_ABI_LEVEL` that the module was built for.
    pub sm_level: u32,

    /// 0 .. `DSS_MAX_MODULE` - 1, unique in the engine.
    pub sm_mod_id: i32,
    /// The module's own version: major << 24 | minor << 16 | patch << 8.
    pub sm_ver: u32,
    /// 0.
    pub sm_reserved: u32,
    /// Equals the name in the file's name.
    pub sm_name: *const c_char,
    /// Facility bits; none is defined at this level: 0.
    pub sm_facs: u64,
    /// The engine stores its table here before `sm_init`.
    pub sm_host: *mut *const dss_host,

    /// NULL: no per-xstream storage.
    pub sm_key: *const dss_module_key,

    /// Once, before any xstream runs; not NULL. \[main-thread\]
    pub sm_init: Option<unsafe extern "C" fn() -> i32>,
    /// Once, after every xstream ended; not NULL. \[main-thread\]
    pub sm_fini: Option<unsafe extern "C" fn() -> i32>,
    /// Storage and xstreams are up, clients are not let in yet. May be NULL. \[xs:sys\]
    pub sm_setup: Option<unsafe extern "C" fn(done: *mut dss_done) -> i32>,
    /// Before the xstreams stop, in reverse order of setup. May be NULL. \[xs:sys\]
    pub sm_cleanup: Option<unsafe extern "C" fn(done: *mut dss_done) -> i32>,

    /// 0 .. `DSS_MAX_PROTO_VERSIONS`.
    pub sm_proto_count: u32,
    /// 0.
    pub sm_reserved2: u32,
    /// The protocols.
    pub sm_proto: [*const dss_rpc_proto; DSS_MAX_PROTO_VERSIONS as usize],
    /// NULL: none. Ends with an entry whose handler is NULL.
    pub sm_drpc_handlers: *const dss_drpc_handler,

    /// Classifies an incoming request for the scheduler; NULL: anonymous. \[xs\]
    pub sm_get_req_attr:
        Option<unsafe extern "C" fn(rpc: *const dss_rpc_info, out: *mut dss_req_attr) -> i32>,

    /// NULL-terminated names of modules or capabilities that come first; NULL: none.
    pub sm_needs: *const *const c_char,
    /// NULL-terminated capabilities beyond the module's own name; NULL: none.
    pub sm_provides: *const *const c_char,
    /// One sentence for `keel modules`; may be NULL.
    pub sm_about: *const c_char,
}

// SAFETY: invariant D; `*sm_host` is written before the module runs and is read-only from then on.
unsafe impl Sync for dss_module {}
// SAFETY: invariant D.
unsafe impl Sync for dss_rpc_handler {}
// SAFETY: invariant D.
unsafe impl Sync for dss_rpc_proto {}
// SAFETY: invariant D.
unsafe impl Sync for dss_drpc_handler {}
