//! The group of engines: the engine keeps it, so these methods are passed on under their DAOS numbers.

use crate::engine::ask;
use crate::methods::{GROUP_STATUS_GET, GROUP_UPDATE};
use crate::proto::mgmt::{GetGroupStatusReq, GetGroupStatusResp, GroupUpdateReq, GroupUpdateResp};
use module_sdk::Der;

/// `GROUP_UPDATE`: all ranks of the system, in a version greater than the last one. An older one is `DER_GRPVER`.
pub(crate) async fn update(request: GroupUpdateReq) -> GroupUpdateResp {
    let answer = ask(GROUP_UPDATE.unsigned_abs(), &request).await;
    answer.unwrap_or_else(|der: Der| GroupUpdateResp { status: der.neg() })
}

/// `GROUP_STATUS_GET`: the ranks that do not answer. Of another version than the asked one: `DER_GRPVER`.
pub(crate) async fn status(request: GetGroupStatusReq) -> GetGroupStatusResp {
    let answer = ask(GROUP_STATUS_GET.unsigned_abs(), &request).await;
    answer.unwrap_or_else(|der: Der| GetGroupStatusResp {
        status: der.neg(),
        dead_ranks: Vec::new(),
    })
}
