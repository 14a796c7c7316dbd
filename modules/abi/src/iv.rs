//! Incast variables: values that all engines of a group share.

use std::ffi::{c_char, c_void};

/// A variable's name within a namespace.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct dss_iv_key {
    /// Id of its class.
    pub class_id: u32,
    /// Of `bytes`.
    pub len: u32,
    /// What they mean is the class's.
    pub bytes: [u8; 48],
}

/// Stamped by the root; never goes back.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct dss_iv_version {
    /// Of the leader.
    pub term: u64,
    /// Grows within the term.
    pub sequence: u64,
}

/// Bytes; `data` NULL: an invalidation, where there may be one.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct dss_iv_value {
    /// Where.
    pub data: *const u8,
    /// How many.
    pub len: u64,
}

impl dss_iv_value {
    /// None.
    pub const NONE: dss_iv_value = dss_iv_value {
        data: std::ptr::null(),
        len: 0,
    };
}

/// Where a hook runs.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct dss_iv_place {
    /// The namespace.
    pub ns: [u8; 16],
    /// Of the leader, as this rank knows it.
    pub term: u64,
    /// 1: this rank is the root.
    pub root: u32,
    /// 0.
    pub reserved: u32,
}

/// Names a change over all its attempts.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct dss_iv_request {
    /// Whose it is.
    pub rank: u32,
    /// 0.
    pub reserved: u32,
    /// Which life of that rank.
    pub incarnation: u64,
    /// Counts there.
    pub number: u64,
}

/// A class and its hooks, any of which may be NULL. \[xs:sys\], one at a time; they return at once.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct dss_iv_class {
    /// Of this struct.
    pub size: u32,
    /// The same in every engine.
    pub id: u32,
    /// Copied; `[a-z0-9_]+`.
    pub name: *const c_char,
    /// Bytes, at most `DSS_IV_VALUE_MAX`; 0: `DSS_IV_INLINE_MAX`.
    pub max_value: u64,
    /// How long a rank may serve a value after the root vouched for it; 0: 30 s.
    pub lease_ms: u32,
    /// 0.
    pub reserved: u32,
    /// Of all hooks.
    pub arg: *mut c_void,
    /// The key that stands for all equal ones; not 0: itself.
    pub ivc_key_canonical:
        Option<unsafe extern "C" fn(*mut c_void, *const dss_iv_key, *mut dss_iv_key) -> i32>,
    /// This rank is about to keep something.
    pub ivc_ent_init: Option<unsafe extern "C" fn(*mut c_void, *const dss_iv_key)>,
    /// It keeps nothing any more.
    pub ivc_ent_put: Option<unsafe extern "C" fn(*mut c_void, *const dss_iv_key)>,
    /// At the root: gives a value.
    pub ivc_ent_fetch: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *const dss_iv_place,
            *const dss_iv_key,
            *const dss_iv_value,
            *mut dss_iv_value,
        ) -> i32,
    >,
    /// A change on its way up, and at the root.
    pub ivc_ent_update: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *const dss_iv_place,
            *const dss_iv_key,
            *const dss_iv_request,
            *const dss_iv_value,
            *mut dss_iv_value,
        ) -> i32,
    >,
    /// This rank learns of a newer version.
    pub ivc_ent_refresh: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *const dss_iv_place,
            *const dss_iv_key,
            *const dss_iv_version,
            *const dss_iv_value,
        ) -> i32,
    >,
    /// 1: what this rank has may be served.
    pub ivc_ent_valid:
        Option<unsafe extern "C" fn(*mut c_void, *const dss_iv_key, *const dss_iv_version) -> i32>,
    /// Before a change goes on to this rank's children.
    pub ivc_pre_sync: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *const dss_iv_place,
            *const dss_iv_key,
            *const dss_iv_value,
        ),
    >,
}

/// An operation.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct dss_iv_op {
    /// `DSS_IV_FETCH` ...
    pub opcode: u32,
    /// `DSS_IV_SYNC_*`; of changes.
    pub sync: u32,
    /// `DSS_IV_SHORTCUT_*`; of changes.
    pub shortcut: u32,
    /// `DSS_IV_GROUP`; of `DSS_IV_NS_CREATE`.
    pub flags: u32,
    /// Not 0.
    pub timeout_ms: u64,
    /// The namespace.
    pub ns: [u8; 16],
    /// The variable.
    pub key: dss_iv_key,
    /// Of `DSS_IV_UPDATE`; copied.
    pub value: dss_iv_value,
}

/// What became of an operation.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct dss_iv_result {
    /// 0, or what was wrong last.
    pub rc: i32,
    /// Of one that failed.
    pub attempts: u32,
    /// The rank that the last attempt asked, or `DSS_IV_NOBODY`.
    pub asked: u32,
    /// 1: its time was up.
    pub expired: u32,
    /// Of the value.
    pub version: dss_iv_version,
    /// Of a fetch and of a bidirectional update; borrowed.
    pub value: dss_iv_value,
}

/// Called on the xstream that asked.
pub type dss_iv_done_t =
    Option<unsafe extern "C" fn(arg: *mut c_void, result: *const dss_iv_result)>;
