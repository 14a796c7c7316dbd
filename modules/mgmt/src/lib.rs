//! The management module: DAOS's dRPC module 2, and Keel's own methods (dRPC module 100).
//!
//! DAOS's methods keep their numbers, fields and two-level statuses: a body that cannot be decoded answers
//! `FAILED_UNMARSHAL_PAYLOAD`, an unknown method `UNKNOWN_METHOD`, and whatever goes wrong after that stands as a negative
//! number in the `status` of a successful answer. Pools are the object module's: mgmt asks it over in-process RPC. Keel's
//! methods go to the engine as they are.
//!
//! Everything runs on the system xstream. Neighbours: `module_sdk` below; `obj` through `obj_proto`; the messages are
//! those of `engine/drpc/wire/proto`. Source: DAOS `src/mgmt/srv_drpc.c`.
//!
//! Modules: `methods` (numbers), `proto` (messages), `engine` (queries), `rank`, `group`, `log_masks`, `devices`, `pools`, `pool_props`, `acl`.

mod acl;
mod devices;
mod engine;
mod group;
mod log_masks;
mod methods;
mod pool_props;
mod pools;
mod proto;
mod rank;

use module_sdk::prost::Message;
use module_sdk::{Der, DrpcCall, DrpcReply, DrpcStatus};
use std::future::Future;

module_sdk::module! {
    name: mgmt,
    id: 1,
    about: "management over dRPC: rank, group, logs, devices and pools",
    needs: ["obj"],
    drpc: { methods::MGMT => mgmt, methods::KEEL => keel },
}

/// dRPC module 2.
async fn mgmt(call: DrpcCall) -> Result<DrpcReply, DrpcStatus> {
    match call.method() {
        methods::SET_RANK => answer(&call, rank::set_rank).await,
        methods::SET_UP => Ok(DrpcReply::message(&rank::set_up().await)),
        methods::PING_RANK => answer(&call, rank::ping).await,
        methods::PREP_SHUTDOWN => answer(&call, rank::prep_shutdown).await,
        methods::GROUP_UPDATE => answer(&call, group::update).await,
        methods::GROUP_STATUS_GET => answer(&call, group::status).await,
        methods::SET_LOG_MASKS => answer(&call, log_masks::set).await,
        methods::SMD_LIST_DEVS => answer(&call, devices::list).await,
        methods::DEV_SET_FAULTY => answer(&call, devices::set_faulty).await,
        methods::DEV_REPLACE => answer(&call, devices::replace).await,
        methods::SMD_LIST_POOLS => answer(&call, pools::list).await,
        methods::BIO_HEALTH_QUERY => answer(&call, devices::health).await,
        methods::POOL_CREATE => answer(&call, pools::create).await,
        methods::POOL_DESTROY => answer(&call, pools::destroy).await,
        methods::POOL_QUERY => answer(&call, pools::query).await,
        methods::POOL_EVICT => answer(&call, pool_props::evict).await,
        methods::POOL_SET_PROP => answer(&call, pool_props::set).await,
        methods::POOL_GET_PROP => answer(&call, pool_props::get).await,
        methods::LIST_CONTAINERS => answer(&call, pool_props::containers).await,
        _ => Err(DrpcStatus::UnknownMethod),
    }
}

/// Decodes, runs, encodes: the two-level rule in one place.
async fn answer<Q, A, F>(
    call: &DrpcCall,
    handler: impl FnOnce(Q) -> F,
) -> Result<DrpcReply, DrpcStatus>
where
    Q: Message + Default,
    A: Message,
    F: Future<Output = A>,
{
    Ok(DrpcReply::message(&handler(call.decode()?).await))
}

/// dRPC module 100: the engine answers.
async fn keel(call: DrpcCall) -> Result<DrpcReply, DrpcStatus> {
    let method = u32::try_from(call.method()).map_err(|_| DrpcStatus::UnknownMethod)?;
    match module_sdk::query(method, call.body()).await {
        Ok(body) => Ok(DrpcReply::success(body)),
        Err(Der::NOSYS) => Err(DrpcStatus::UnknownMethod),
        Err(Der::PROTO) => Err(DrpcStatus::FailedUnmarshalPayload),
        Err(der) => {
            module_sdk::warn!("the engine did not answer method {method}: {der}");
            Err(DrpcStatus::Failure)
        }
    }
}
