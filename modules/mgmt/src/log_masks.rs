//! Log masks at run time.

use crate::engine::ask;
use crate::methods::LOG_SET_MASK;
use crate::proto::ctl::{SetLogMasksReq, SetLogMasksResp};
use crate::proto::keel::{LogSetMaskReq, LogSetMaskResp};

/// `SET_LOG_MASKS`. Keel has one mask, DAOS's `masks`; its debug streams and subsystems have no counterpart, so a
/// request that sets them is told so while the mask is set.
pub(crate) async fn set(request: SetLogMasksReq) -> SetLogMasksResp {
    let mut errors = Vec::new();
    for (what, value) in [
        ("streams", &request.streams),
        ("subsystems", &request.subsystems),
    ] {
        if !value.is_empty() {
            errors.push(format!(
                "{what} {value:?} have no effect: name facilities in masks instead"
            ));
        }
    }
    if request.masks.is_empty() && !request.reset_masks {
        return SetLogMasksResp { status: 0, errors };
    }
    let mask = if request.reset_masks {
        String::new()
    } else {
        request.masks
    };
    let status = match ask::<LogSetMaskResp>(LOG_SET_MASK, &LogSetMaskReq { mask }).await {
        Ok(answer) => {
            errors.extend((!answer.error.is_empty()).then_some(answer.error));
            answer.status
        }
        Err(der) => der.neg(),
    };
    SetLogMasksResp { status, errors }
}
