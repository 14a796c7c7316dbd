//! What requests are to the scheduler of their target.

use module_sdk::{ReqAttr, ReqClass, RpcHead};
use obj_proto::Op;
use uuid::Uuid;

use crate::target::STATE;

pub(crate) fn classify(head: &RpcHead<'_>) -> Option<ReqAttr> {
    let op = *Op::ALL.get(head.index() as usize)?;
    // What belongs to something that was let in is not refused: an upload would fail at its hundredth piece.
    let (class, begun) = match op {
        Op::Put | Op::PutBegin | Op::Remove => (ReqClass::Update, false),
        Op::PutPiece | Op::PutCommit => (ReqClass::Update, true),
        Op::Get | Op::Stat | Op::List => (ReqClass::Fetch, false),
        Op::GetPiece => (ReqClass::Fetch, true),
        // Leases are kept and given back whatever the load; pools are the system xstream's.
        _ => return None,
    };
    Some(ReqAttr {
        no_reject: begun,
        // What frees space does not wait for space.
        no_delay: op == Op::Remove,
        ..ReqAttr::new(class, pool_of(head.body()))
    })
}

/// The pool of the container that a request names in its first field (protobuf: field 1, length-delimited). All zeroes when
/// it names none that exists: the handler says so.
fn pool_of(body: &[u8]) -> [u8; 16] {
    // A handle begins with its pool.
    if let [0x0a, 32, rest @ ..] = body
        && let Some(pool) = rest.first_chunk()
    {
        return *pool;
    }
    let cont = match body {
        [0x0a, 16, rest @ ..] => rest.first_chunk(),
        _ => None,
    };
    let pool = cont.and_then(|cont| {
        let cont = Uuid::from_bytes(*cont);
        let target = STATE.with(|state| state.target.clone())?;
        target.store().ok()?.pool_of(&cont)
    });
    pool.map_or([0; 16], Uuid::into_bytes)
}
