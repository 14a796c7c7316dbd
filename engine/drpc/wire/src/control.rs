//! What an engine asks its control server (DAOS `src/engine/drpc_client.c`): ready, events, look-ups.
//!
//! One connection per call, closed afterwards. Blocking: an engine calls from a thread of its own or an offload xstream.

use std::path::{Path, PathBuf};
use std::time::Duration;

use daos_errno::Der;
use prost::Message;

use crate::client::{Client, ClientOptions, success};
use crate::client_error::ClientError;
use crate::messages::shared::ras_event::{ExtendedInfo, PoolSvcEventInfo};
use crate::messages::shared::{ClusterEventReq, ClusterEventResp, RasEvent};
use crate::messages::srv::{
    GetPoolSvcReq, GetPoolSvcResp, NotifyReadyReq, PoolFindByLabelReq, PoolFindByLabelResp,
};
use crate::{methods, modules};

/// Where a node's control server listens.
#[derive(Clone, Debug)]
pub struct ControlServer {
    socket: PathBuf,
    options: ClientOptions,
}

/// Rank of an event that concerns none.
pub const NO_RANK: u32 = u32::MAX;

/// DAOS's numbers for the events that the engine raises (`src/include/daos_srv/ras.h`).
pub mod event {
    /// The replicas of a pool's service changed.
    pub const POOL_REPS_UPDATE: u32 = 10;
    /// A change of state.
    pub const TYPE_STATE_CHANGE: u32 = 1;
    /// Something to know.
    pub const TYPE_INFO: u32 = 2;
    /// Severity: an error.
    pub const SEVERITY_ERROR: u32 = 1;
    /// Severity: a warning.
    pub const SEVERITY_WARNING: u32 = 2;
    /// Severity: a notice.
    pub const SEVERITY_NOTICE: u32 = 3;
}

impl ControlServer {
    /// A control server at a socket file, DAOS's `<dir>/daos_server.sock`. Nothing is opened yet.
    pub fn new(socket: impl Into<PathBuf>, timeout: Option<Duration>) -> ControlServer {
        ControlServer {
            socket: socket.into(),
            options: ClientOptions {
                timeout,
                ..ClientOptions::default()
            },
        }
    }

    /// The socket file.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// NOTIFY_READY: this engine serves. The answer has no body.
    pub fn notify_ready(&self, request: &NotifyReadyReq) -> Result<(), ClientError> {
        self.call(methods::NOTIFY_READY, request).map(drop)
    }

    /// CLUSTER_EVENT without waiting for an answer. An event without text or host is refused and nothing is sent.
    pub fn raise_event(&self, event: RasEvent) -> Result<(), ClientError> {
        let request = checked_event(event)?;
        self.connect()?
            .submit(
                modules::SRV,
                methods::CLUSTER_EVENT,
                &request.encode_to_vec(),
            )
            .map(drop)
    }

    /// CLUSTER_EVENT with the replicas of a pool's service, and waits until the control server has taken it.
    pub fn pool_svc_update(
        &self,
        hostname: &str,
        rank: u32,
        timestamp: &str,
        pool_uuid: &str,
        svc_reps: &[u32],
        version: u64,
    ) -> Result<(), ClientError> {
        if pool_uuid.bytes().all(|b| matches!(b, b'0' | b'-')) {
            return Err(ClientError::Invalid("no pool UUID"));
        }
        if svc_reps.is_empty() {
            return Err(ClientError::Invalid("no pool service replicas"));
        }
        let request = checked_event(RasEvent {
            id: event::POOL_REPS_UPDATE,
            msg: "pool service replica list updated".to_owned(),
            timestamp: timestamp.to_owned(),
            r#type: event::TYPE_STATE_CHANGE,
            severity: event::SEVERITY_NOTICE,
            hostname: hostname.to_owned(),
            rank,
            pool_uuid: pool_uuid.to_owned(),
            extended_info: Some(ExtendedInfo::PoolSvcInfo(PoolSvcEventInfo {
                svc_reps: svc_reps.to_vec(),
                version,
            })),
            ..RasEvent::default()
        })?;
        let answer: ClusterEventResp = self.ask(methods::CLUSTER_EVENT, &request)?;
        method_status(answer.status)
    }

    /// GET_POOL_SVC: ranks of a pool's service replicas; an unknown pool is `Method(NONEXIST)`.
    pub fn pool_service(&self, uuid: &str) -> Result<Vec<u32>, ClientError> {
        let request = GetPoolSvcReq {
            uuid: uuid.to_owned(),
        };
        let answer: GetPoolSvcResp = self.ask(methods::GET_POOL_SVC, &request)?;
        method_status(answer.status)?;
        Ok(answer.svcreps)
    }

    /// POOL_FIND_BYLABEL: UUID and service replicas of a pool.
    pub fn pool_by_label(&self, label: &str) -> Result<PoolFindByLabelResp, ClientError> {
        let request = PoolFindByLabelReq {
            label: label.to_owned(),
        };
        let answer: PoolFindByLabelResp = self.ask(methods::POOL_FIND_BYLABEL, &request)?;
        method_status(answer.status)?;
        Ok(answer)
    }

    fn connect(&self) -> Result<Client, ClientError> {
        Client::connect_with(&self.socket, self.options.clone())
    }

    fn call(&self, method: i32, request: &impl Message) -> Result<Vec<u8>, ClientError> {
        let response = self
            .connect()?
            .call(modules::SRV, method, &request.encode_to_vec())?;
        success(&response)?;
        Ok(response.body)
    }

    fn ask<T: Message + Default>(
        &self,
        method: i32,
        request: &impl Message,
    ) -> Result<T, ClientError> {
        let body = self.call(method, request)?;
        T::decode(body.as_slice()).map_err(|e| ClientError::Undecodable(e.to_string()))
    }
}

fn checked_event(event: RasEvent) -> Result<ClusterEventReq, ClientError> {
    if event.msg.is_empty() {
        return Err(ClientError::Invalid("event without text"));
    }
    if event.hostname.is_empty() {
        return Err(ClientError::Invalid("event without host name"));
    }
    Ok(ClusterEventReq {
        sequence: 0,
        event: Some(event),
    })
}

fn method_status(status: i32) -> Result<(), ClientError> {
    match status {
        0 => Ok(()),
        status => Err(ClientError::Method(Der(status.wrapping_neg()))),
    }
}
