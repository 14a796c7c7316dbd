//! A target's scheduler: what requests are to it, work in slices that waits for its turn, and what pools have.
//!
//! Invariants: E1 and E2 of `engine.rs`, W2 of `waker.rs`; R2: what `sm_get_req_attr` is lent lives until it returns; a
//! `SchedReq` gives its handle back once, on its xstream: it is not `Send`.
#![allow(unsafe_code, reason = "called by the engine, and holds its places")]

use crate::engine::{self, contained};
use crate::rpc::bytes;
use crate::waker::lend;
use daos_errno::Der;
use module_abi::{DSS_TASK_PENDING, dss_req_attr, dss_rpc_info, dss_sched_req};
use std::fmt;
use std::future::poll_fn;
use std::ptr::NonNull;
use std::task::Poll;

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

/// A place in this target's scheduler for background work: before each slice it waits for its turn, so that clients keep
/// their share. Own xstream only.
#[derive(Debug)]
pub struct SchedReq(NonNull<dss_sched_req>);

impl SchedReq {
    /// For work of a class on behalf of a pool.
    ///
    /// # Errors
    /// `DER_OP_NOT_PERMITTED` but on a target's main xstream, `DER_NOMEM` at the engine's limit.
    pub fn new(class: ReqClass, pool: [u8; 16]) -> Result<SchedReq, Der> {
        let attr = dss_req_attr {
            r#type: class as u32,
            pool_uuid: pool,
            ..dss_req_attr::default()
        };
        let mut raw = std::ptr::null_mut();
        // SAFETY: E1, E2; both are ours for the call.
        Der::check(unsafe {
            (engine::host().sched_req_get)(engine::module(), &raw const attr, &raw mut raw)
        })?;
        NonNull::new(raw).map(SchedReq).ok_or(Der::NOMEM)
    }

    /// Waits for the turn of the next slice; others run meanwhile.
    pub async fn turn(&self) {
        poll_fn(|cx| {
            let lent = lend(cx.waker());
            // SAFETY: E1; the waker is lent for the call (W2).
            let state =
                unsafe { (engine::host().sched_req_turn)(self.0.as_ptr(), &raw const lent) };
            // An error is a place of another xstream, which cannot be here: nothing to wait for.
            if state == DSS_TASK_PENDING {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }

    /// It has nothing to do until its next turn: a pool that runs out of space does not wait for it.
    pub fn set_asleep(&self, asleep: bool) {
        // SAFETY: E1.
        unsafe { (engine::host().sched_req_asleep)(self.0.as_ptr(), asleep.into()) };
    }
}

impl Drop for SchedReq {
    fn drop(&mut self) {
        // SAFETY: ours, given up once, on its xstream.
        unsafe { (engine::host().sched_req_put)(self.0.as_ptr()) }
    }
}

/// Tells this target's scheduler what a pool has here, bytes; as often as that changes. When a pool runs out of space,
/// freeing it comes before updates.
///
/// # Errors
/// `DER_OP_NOT_PERMITTED` but on a target's main xstream.
pub fn report_space(pool: &[u8; 16], total: u64, free: u64) -> Result<(), Der> {
    // SAFETY: E1, E2; the uuid is lent for the call.
    Der::check(unsafe {
        (engine::host().space_report)(engine::module(), pool.as_ptr(), total, free, 0)
    })
}

/// A pool's pressure level on this target, 0 (none) to 5.
///
/// # Errors
/// As [`report_space`].
pub fn space_pressure(pool: &[u8; 16]) -> Result<u32, Der> {
    // SAFETY: E1, E2; the uuid is lent for the call.
    let level = unsafe { (engine::host().space_pressure)(engine::module(), pool.as_ptr()) };
    Der::check(level).map(|()| level.unsigned_abs())
}

/// The pool is gone from this target.
///
/// # Errors
/// As [`report_space`].
pub fn forget_pool(pool: &[u8; 16]) -> Result<(), Der> {
    // SAFETY: E1, E2; the uuid is lent for the call.
    Der::check(unsafe { (engine::host().space_forget)(engine::module(), pool.as_ptr()) })
}
