//! Per-xstream storage, who runs the code, buffers.

use crate::DSS_MODULE_KEYS_NR;
use std::ffi::c_void;
use std::sync::atomic::AtomicI32;

/// A module's TLS key: one value per matching xstream (DAOS `struct dss_module_key`).
#[repr(C)]
pub struct dss_module_key {
    /// Where the key has a value: the key and the xstream share a bit.
    pub dmk_tags: u32,
    /// Set by the engine at registration; -1 before. An atomic on the Rust side, for the key is a plain static.
    pub dmk_index: AtomicI32,
    /// Makes the value of one xstream; NULL fails the xstream's start. \[owner\]
    pub dmk_init: Option<unsafe extern "C" fn(tags: u32, xs_id: i32, tgt_id: i32) -> *mut c_void>,
    /// Destroys it. \[owner\]
    pub dmk_fini: Option<unsafe extern "C" fn(tags: u32, value: *mut c_void)>,
}

/// One xstream's storage. Only that xstream may use it.
#[repr(C)]
pub struct dss_thread_local_storage {
    /// The xstream's tags.
    pub dtls_tag: u32,
    /// Number of slots.
    pub dtls_nr: u32,
    /// By `dmk_index`; NULL where the key has no value here.
    pub dtls_values: [*mut c_void; DSS_MODULE_KEYS_NR as usize],
}

/// Who runs this code.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct dss_module_info {
    /// The xstream's id.
    pub dmi_xs_id: i32,
    /// The target's id; -1 on the system xstream and on pooled offload xstreams.
    pub dmi_tgt_id: i32,
    /// The xstream's tags.
    pub dmi_tag: u32,
    /// Targets in this engine.
    pub dmi_tgt_nr: u32,
}

/// An owned, page-aligned buffer that a device may read and write. Empty when `addr` is NULL. Passing it by value
/// over the border moves it; it is neither `Copy` nor dropped by itself.
#[repr(C)]
#[derive(Debug)]
pub struct dss_buf {
    /// First byte.
    pub addr: *mut c_void,
    /// Bytes in use.
    pub len: u64,
    /// Bytes there.
    pub capacity: u64,
    /// The engine's; modules leave it alone.
    pub owner: *mut c_void,
}

impl dss_buf {
    /// No buffer.
    pub const EMPTY: Self = Self {
        addr: std::ptr::null_mut(),
        len: 0,
        capacity: 0,
        owner: std::ptr::null_mut(),
    };

    /// True when there is no buffer.
    pub fn is_empty(&self) -> bool {
        self.addr.is_null()
    }
}
