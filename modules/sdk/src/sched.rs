//! What a request is to the scheduler of its target's xstream.
//!
//! Invariants: E1 of `engine.rs`; R2: what `sm_get_req_attr` is lent lives until it returns.
#![allow(unsafe_code, reason = "called by the engine")]

use crate::engine::contained;
use crate::rpc::bytes;
use daos_errno::Der;
use module_abi::{dss_req_attr, dss_rpc_info};
use std::fmt;

/// Kinds of requests, with DAOS's numbers. A request without one is served at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ReqClass {
    /// Changes data.
    Update = 0,
    /// Reads data.
    Fetch = 1,
    /// Frees space.
    Gc = 2,
    /// Verifies checksums.
    Scrub = 3,
    /// Moves data between targets.
    Migrate = 4,
}

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReqAttr {
    /// What kind.
    pub class: ReqClass,
    /// Whose; all zeroes: of no pool in particular.
    pub pool: [u8; 16],
    /// Served in the next cycle, whatever the limits.
    pub no_delay: bool,
    /// Never refused for overload: what was begun must be finished.
    pub no_reject: bool,
}

impl ReqAttr {
    /// Of a class, for a pool.
    pub const fn new(class: ReqClass, pool: [u8; 16]) -> ReqAttr {
        ReqAttr {
            class,
            pool,
            no_delay: false,
            no_reject: false,
        }
    }
}

/// An incoming request before its handler: what the classification goes by. It must be quick.
pub struct RpcHead<'a>(&'a dss_rpc_info);

impl RpcHead<'_> {
    /// The handler's number within the protocol.
    pub fn index(&self) -> u32 {
        self.0.opcode & 0xffff
    }

    /// The protocol's version.
    pub fn version(&self) -> u32 {
        (self.0.opcode >> 16) & 0xff
    }

    /// The target it was sent to; `None`: the system xstream.
    pub fn target(&self) -> Option<u32> {
        self.0.tag.checked_sub(1)
    }

    /// The body's bytes.
    pub fn body(&self) -> &[u8] {
        // SAFETY: R2.
        unsafe { bytes(self.0.body, self.0.body_len) }
    }
}

impl fmt::Debug for RpcHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RpcHead").field(self.0).finish()
    }
}

/// Answers for `sm_get_req_attr`; an error makes the request anonymous.
///
/// # Safety
/// Called by the engine: both point to what they say, for the call.
pub unsafe fn classify(
    rpc: *const dss_rpc_info,
    out: *mut dss_req_attr,
    classify: fn(&RpcHead<'_>) -> Option<ReqAttr>,
) -> i32 {
    contained("the classification of a request", Der::MISC.neg(), || {
        // SAFETY: R2.
        let Some(info) = (unsafe { rpc.as_ref() }) else {
            return Der::INVAL.neg();
        };
        let Some(attr) = classify(&RpcHead(info)) else {
            return Der::NONEXIST.neg();
        };
        let told = dss_req_attr {
            r#type: attr.class as u32,
            flags: u32::from(attr.no_delay) | u32::from(attr.no_reject) << 2,
            pool_uuid: attr.pool,
            ..dss_req_attr::default()
        };
        if !out.is_null() {
            // SAFETY: R2.
            unsafe { out.write(told) }
        }
        0
    })
}
