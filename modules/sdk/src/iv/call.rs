//! Operations on incast variables.
//!
//! Invariants, besides E1 to E3 of `engine.rs`:
//! - I1: `arg` of an accepted operation is a boxed sender that the engine holds; it calls `done` exactly once, on the xstream that
//!   asked. Dropping the future forgets the answer. A refused operation leaves `arg` here.
#![allow(unsafe_code, reason = "hands a continuation to the engine")]

use super::{IvHow, IvKey, IvSync, IvVersion};
use crate::engine::{self, contained};
use crate::rpc::bytes;
use crate::sync::oneshot;
use daos_errno::Der;
use module_abi::{
    DSS_IV_FETCH, DSS_IV_GROUP, DSS_IV_INVALIDATE, DSS_IV_NOBODY, DSS_IV_NS_CREATE,
    DSS_IV_NS_DESTROY, DSS_IV_UPDATE, dss_iv_key, dss_iv_op, dss_iv_result, dss_iv_value,
};
use std::ffi::c_void;
use std::fmt;
use std::time::Duration;

/// A namespace: a pool's uuid.
pub type NsId = [u8; 16];

/// Why an operation on a variable failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IvFailure {
    /// What was wrong last.
    pub der: Der,
    /// How often it was tried; 0: it was refused before.
    pub attempts: u32,
    /// The rank that the last attempt asked; `None`: nobody but this one.
    pub asked: Option<u32>,
    /// Whether its time was up: another try could have worked.
    pub expired: bool,
}

impl From<Der> for IvFailure {
    fn from(der: Der) -> IvFailure {
        IvFailure {
            der,
            attempts: 0,
            asked: None,
            expired: false,
        }
    }
}

impl From<IvFailure> for Der {
    fn from(failure: IvFailure) -> Der {
        failure.der
    }
}

impl fmt::Display for IvFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} attempts", self.der, self.attempts)?;
        if let Some(rank) = self.asked {
            write!(f, ", the last one by way of rank {rank}")?;
        }
        f.write_str(match self.expired {
            true => ", deadline reached",
            false => "",
        })
    }
}

impl std::error::Error for IvFailure {}

type Answer = Result<(IvVersion, Vec<u8>), IvFailure>;

fn op(opcode: u32, ns: NsId, key: Option<&IvKey>) -> dss_iv_op {
    let none = dss_iv_key {
        class_id: 0,
        len: 0,
        bytes: [0; 48],
    };
    dss_iv_op {
        opcode,
        sync: IvSync::None as u32,
        shortcut: 0,
        flags: 0,
        timeout_ms: 0,
        ns,
        key: key.map_or(none, IvKey::raw),
        value: dss_iv_value::NONE,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Begins at once; the answer comes later.
fn begin(op: &dss_iv_op) -> Result<oneshot::Receiver<Answer>, Der> {
    let (sender, receiver) = oneshot::channel::<Answer>();
    let arg = Box::into_raw(Box::new(sender));
    let (host, op) = (engine::host(), std::ptr::from_ref(op));
    // SAFETY: E1, E2, I1; the operation and its value are lent for the call.
    let rc = unsafe { (host.iv_call)(engine::module(), op, Some(done), arg.cast()) };
    Der::check(rc).map(|()| receiver).inspect_err(|_| {
        // SAFETY: I1: refused.
        drop(unsafe { Box::from_raw(arg) });
    })
}

unsafe extern "C" fn done(arg: *mut c_void, result: *const dss_iv_result) {
    // SAFETY: I1.
    let sender = unsafe { Box::from_raw(arg.cast::<oneshot::Sender<Answer>>()) };
    contained("an incast variable's answer", (), || {
        // SAFETY: lent for this call.
        let result = unsafe { &*result };
        sender.send(match Der::check(result.rc) {
            Ok(()) => {
                // SAFETY: the same.
                let value = unsafe { bytes(result.value.data, result.value.len) };
                Ok((result.version.into(), value.to_vec()))
            }
            Err(der) => Err(IvFailure {
                der,
                attempts: result.attempts,
                asked: (result.asked != DSS_IV_NOBODY).then_some(result.asked),
                expired: result.expired != 0,
            }),
        });
    });
}

async fn ended(begun: Result<oneshot::Receiver<Answer>, Der>) -> Answer {
    begun?.await.unwrap_or(Err(Der::CANCELED.into()))
}

/// The value of a variable, wherever it is.
pub(super) async fn fetch(ns: NsId, key: &IvKey, timeout: Duration) -> Answer {
    let op = dss_iv_op {
        timeout_ms: millis(timeout),
        ..op(DSS_IV_FETCH, ns, Some(key))
    };
    ended(begin(&op)).await
}

/// Gives a variable a value, or with `None` takes it away.
pub(super) async fn change(ns: NsId, key: &IvKey, value: Option<&[u8]>, how: IvHow) -> Answer {
    let opcode = match value {
        Some(_) => DSS_IV_UPDATE,
        None => DSS_IV_INVALIDATE,
    };
    let value = value.map_or(dss_iv_value::NONE, |value| dss_iv_value {
        data: value.as_ptr(),
        len: value.len() as u64,
    });
    let op = dss_iv_op {
        sync: how.sync as u32,
        shortcut: how.to_root.into(),
        timeout_ms: millis(how.timeout),
        value,
        ..op(opcode, ns, Some(key))
    };
    ended(begin(&op)).await
}

/// One more user of a namespace; the first makes it. With `group` all engines of the group share it, each of which creates it; else the xstreams of
/// this engine. From any xstream.
///
/// # Errors
/// `DER_SHUTDOWN`, `DER_NOMEM` at a bound, `DER_OP_NOT_PERMITTED` in the wrong state.
pub async fn create(ns: NsId, group: bool) -> Result<(), Der> {
    let op = dss_iv_op {
        flags: if group { DSS_IV_GROUP } else { 0 },
        ..op(DSS_IV_NS_CREATE, ns, None)
    };
    ended(begin(&op)).await?;
    Ok(())
}

/// One user less of a namespace; with the last one it goes, and what is under way in it ends with `DER_SHUTDOWN`. From any xstream.
///
/// # Errors
/// `DER_NONEXIST`: this module does not use it.
pub async fn destroy(ns: NsId) -> Result<(), Der> {
    ended(begin(&op(DSS_IV_NS_DESTROY, ns, None))).await?;
    Ok(())
}

/// The namespace that all engines of the system share; it is there as long as the engine.
pub fn system_namespace() -> NsId {
    let mut ns = [0; 16];
    // SAFETY: E1, E2; 16 bytes of ours.
    unsafe { (engine::host().iv_system_ns)(engine::module(), ns.as_mut_ptr()) };
    ns
}
