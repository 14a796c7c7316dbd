//! Transactions with one condition more than a put: it is written only if nobody was faster.

use crate::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::request_op::Request;
use crate::proto::{Compare, PutRequest, RequestOp, TxnRequest};

/// Puts this while all of `holds` holds.
pub(crate) fn put(
    holds: Vec<Compare>,
    (key, value): (Vec<u8>, Vec<u8>),
    lease: Option<i64>,
) -> TxnRequest {
    let put = PutRequest {
        key,
        value,
        lease: lease.unwrap_or(0),
    };
    TxnRequest {
        compare: holds,
        success: vec![RequestOp {
            request: Some(Request::RequestPut(put)),
        }],
    }
}

/// Puts a key that must not be there.
pub(crate) fn create((key, value): (Vec<u8>, Vec<u8>), lease: Option<i64>) -> TxnRequest {
    put(vec![created(key.clone(), 0)], (key, value), lease)
}

/// The key was made at this revision; 0: it is not there.
pub(crate) fn created(key: Vec<u8>, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key,
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

/// The key was written last at this revision; 0: it is not there.
pub(crate) fn written(key: Vec<u8>, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key,
        target_union: Some(TargetUnion::ModRevision(revision)),
    }
}
