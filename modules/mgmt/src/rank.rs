//! Rank, set-up and the warning before a shutdown.
//!
//! The engine owns its rank and its set-up, so these methods are passed on under their DAOS numbers. An engine without
//! a control server does not know them (`DER_NOSYS`): it has its rank from the configuration and has set itself up.

use crate::engine::{ask, status};
use crate::methods::{PREP_SHUTDOWN, SET_RANK, SET_UP};
use crate::proto::mgmt::{DaosResp, PingRankReq, PrepShutdownReq, SetRankReq};
use module_sdk::Der;
use module_sdk::prost::Message;

/// 0 or the error, as every DAOS answer carries it.
fn told(result: Result<(), Der>) -> DaosResp {
    DaosResp {
        status: result.map_or_else(Der::neg, |()| 0),
    }
}

/// Passes a method on; `None` when this engine sets itself up.
async fn passed_on(method: i32, request: &impl Message) -> Option<Result<(), Der>> {
    match ask::<DaosResp>(method.unsigned_abs(), request).await {
        Ok(answer) => Some(Der::check(answer.status)),
        Err(Der::NOSYS) => None,
        Err(der) => Some(Err(der)),
    }
}

/// `SET_RANK`. Without a control server only the configured rank is accepted.
pub(crate) async fn set_rank(request: SetRankReq) -> DaosResp {
    told(match passed_on(SET_RANK, &request).await {
        Some(result) => result,
        None => status().await.and_then(|engine| {
            if engine.rank == request.rank {
                return Ok(());
            }
            module_sdk::warn!(
                "SET_RANK {}: this engine is rank {} by its configuration",
                request.rank,
                engine.rank
            );
            Err(Der::ALREADY)
        }),
    })
}

/// `SET_UP`. Without a control server it only says whether the engine has set itself up.
pub(crate) async fn set_up() -> DaosResp {
    told(match passed_on(SET_UP, &()).await {
        Some(result) => result,
        None => status()
            .await
            .and_then(|engine| match engine.state.as_str() {
                "ready" => Ok(()),
                "stopping" => Err(Der::SHUTDOWN),
                _ => Err(Der::INPROGRESS),
            }),
    })
}

/// `PING_RANK`: whoever reads the answer knows that the system xstream turns. DAOS compares no rank here either.
pub(crate) async fn ping(_: PingRankReq) -> DaosResp {
    told(Ok(()))
}

/// `PREP_SHUTDOWN`: DAOS stops excluding ranks from its pools. With one rank per pool there is nothing to stop.
pub(crate) async fn prep_shutdown(request: PrepShutdownReq) -> DaosResp {
    module_sdk::info!("rank {} will be stopped", request.rank);
    told(passed_on(PREP_SHUTDOWN, &request).await.unwrap_or(Ok(())))
}
