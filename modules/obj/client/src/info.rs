//! What the engine tells about pools, containers and objects.

use obj_proto::wire;
use uuid::Uuid;

use crate::ObjError;

/// A pool. Sizes in bytes, times in ns since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolInfo {
    /// Its uuid.
    pub uuid: Uuid,
    /// Its label.
    pub label: String,
    /// Granted over all targets.
    pub size: u64,
    /// Held by objects, in whole blocks.
    pub used: u64,
    /// When it was created.
    pub created: u64,
    /// Targets that its objects are spread over.
    pub targets: u32,
}

/// A pool, target by target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// The whole.
    pub pool: PoolInfo,
    /// Its containers.
    pub containers: u32,
    /// Of its map: grows whenever a target goes or comes.
    pub map_version: u32,
    /// Who is connected to it.
    pub connections: u32,
    /// Its parts, in order of the target.
    pub targets: Vec<TargetStatus>,
}

/// One target's part of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetStatus {
    /// Which target.
    pub target: u32,
    /// The pool's share of it.
    pub quota: u64,
    /// Used of that share.
    pub used: u64,
    /// Data region of the target's device.
    pub device_total: u64,
    /// Free of it.
    pub device_free: u64,
    /// Why the target does not serve; `None`: it does.
    pub failure: Option<String>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    /// Its uuid.
    pub uuid: Uuid,
    /// Its pool.
    pub pool: Uuid,
    /// Its label.
    pub label: String,
    /// When it was created, ns since 1970.
    pub created: u64,
}

/// Of a container, as a target knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerProperties {
    /// Its label.
    pub label: String,
    /// When it was created, ns since 1970.
    pub created: u64,
}

/// Which targets of a pool serve, as one of them knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolMap {
    /// Grows with every change.
    pub version: u32,
    /// Why a target does not serve, in order of the target; `None`: it does.
    pub targets: Vec<Option<String>>,
    /// Label of the pool.
    pub label: String,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Another one after each replacement.
    pub version: u64,
    /// When it was put, ns since 1970.
    pub modified: u64,
}

/// How far a put or get has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that the engine acknowledged (put) or that were written to the destination (get).
    pub done: u64,
    /// Of how many, if known.
    pub total: Option<u64>,
}

fn uuid(op: &'static str, bytes: &[u8]) -> Result<Uuid, ObjError> {
    Uuid::from_slice(bytes).map_err(|e| ObjError::Answer {
        op,
        why: e.to_string(),
    })
}

impl PoolInfo {
    pub(crate) fn from_wire(
        op: &'static str,
        pool: Option<wire::PoolInfo>,
    ) -> Result<Self, ObjError> {
        let p = pool.unwrap_or_default();
        let wire::PoolInfo {
            label,
            size,
            used,
            created,
            targets,
            ..
        } = p;
        if targets == 0 {
            return Err(ObjError::Answer {
                op,
                why: "a pool without targets".into(),
            });
        }
        Ok(Self {
            uuid: uuid(op, &p.uuid)?,
            label,
            size,
            used,
            created,
            targets,
        })
    }
}

impl PoolStatus {
    pub(crate) fn from_wire(op: &'static str, rep: wire::PoolQueryRep) -> Result<Self, ObjError> {
        let target = |t: wire::TargetSpace| TargetStatus {
            target: t.target,
            quota: t.quota,
            used: t.used,
            device_total: t.device_total,
            device_free: t.device_free,
            failure: (t.status != 0).then_some(t.message),
        };
        let pool = PoolInfo::from_wire(op, rep.pool)?;
        let targets = rep.targets.into_iter().map(target).collect();
        Ok(Self {
            pool,
            containers: rep.containers,
            map_version: rep.map_version,
            connections: rep.connections,
            targets,
        })
    }
}

impl PoolMap {
    pub(crate) fn from_wire(rep: wire::PoolMapRep) -> Self {
        let map = rep.map.unwrap_or_default();
        let state = |target: wire::TargetState| (target.status != 0).then_some(target.message);
        Self {
            version: map.version,
            targets: map.targets.into_iter().map(state).collect(),
            label: rep.props.unwrap_or_default().label,
        }
    }
}

impl ContainerInfo {
    pub(crate) fn from_wire(
        op: &'static str,
        cont: Option<wire::ContInfo>,
    ) -> Result<Self, ObjError> {
        let c = cont.unwrap_or_default();
        let (id, pool) = (uuid(op, &c.uuid)?, uuid(op, &c.pool)?);
        Ok(Self {
            uuid: id,
            pool,
            label: c.label,
            created: c.created,
        })
    }
}

impl From<wire::ObjectInfo> for ObjectInfo {
    fn from(o: wire::ObjectInfo) -> Self {
        Self {
            name: o.name,
            size: o.size,
            version: o.version,
            modified: o.modified,
        }
    }
}
