//! What mgmt asks the engine.

use crate::methods::{DEVICES, ENGINE_STATUS};
use crate::proto::keel;
use module_sdk::prost::Message;
use module_sdk::{Der, query};

/// A query with messages on both sides; a body that is none is `DER_PROTO`.
pub(crate) async fn ask<A: Message + Default>(
    method: u32,
    question: &impl Message,
) -> Result<A, Der> {
    let answer = query(method, &question.encode_to_vec()).await?;
    A::decode(&*answer).map_err(|_| Der::PROTO)
}

/// State, rank and targets.
pub(crate) async fn status() -> Result<keel::EngineStatus, Der> {
    ask(ENGINE_STATUS, &()).await
}

/// The block devices.
pub(crate) async fn devices() -> Result<Vec<keel::Device>, Der> {
    Ok(ask::<keel::Devices>(DEVICES, &()).await?.devices)
}
