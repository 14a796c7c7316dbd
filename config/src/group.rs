//! `[group]`: the engines that form one system.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who says which engines belong to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupSource {
    /// The list in this file.
    Static,
    /// A control plane or `keel group set`, over the control channel (GROUP_UPDATE). One engine is told, and tells the others.
    Control,
    /// etcd: engines join and leave by themselves, and the one that joined first leads. It is named in `group.etcd`.
    Etcd,
}

/// The engines that form one system. An engine without a source is alone, and needs none of this.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Group {
    /// Who says which engines belong to the system. Left out: `static` with members in this file, `control` with a control server, and
    /// without either nobody, for this engine is alone.
    pub source: Option<GroupSource>,

    /// Version of the list of members, the same on all engines that have the same list; add one with every change. Engines refuse calls
    /// of those that have another version, so that no two of them act on different lists.
    #[schemars(range(min = 1, max = 4_294_967_295u32))]
    pub version: u32,

    /// How often each engine asks the others whether they are there.
    #[schemars(range(min = 10, max = 60_000), extend("x-unit" = "milliseconds"))]
    pub heartbeat_ms: u32,

    /// How long an engine may be silent before it counts as gone, at least twice `heartbeat_ms`.
    #[schemars(range(min = 20, max = 600_000), extend("x-unit" = "milliseconds"))]
    pub silent_ms: u32,

    /// With source `static`, all engines of the system, this one among them. The one with the lowest rank leads.
    #[schemars(length(max = 1024))]
    pub member: Vec<GroupMember>,

    /// With source `etcd`, where the other engines reach this one's data channel. Left out, it is where the data channel listens.
    #[schemars(with = "Option<String>", extend("format" = "socket-address"))]
    pub address: Option<SocketAddr>,

    /// With source `etcd`, where that is.
    pub etcd: Etcd,
}

/// Where etcd is, and how long an engine may be silent.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Etcd {
    /// Its members: `http://10.0.0.1:2379`, or `https://` with `ca`. They are tried in turn.
    #[schemars(length(max = 16))]
    pub endpoints: Vec<String>,

    /// What the names of all keys begin with; the system's name follows.
    pub prefix: String,

    /// How long an engine may be silent before it is put out of the group. Without etcd, the leader leads for nine tenths of it.
    #[schemars(range(min = 2, max = 600), extend("x-unit" = "seconds"))]
    pub lease_s: u32,

    /// Who signs etcd's certificates, in PEM; for `https://`.
    #[schemars(extend("format" = "path"))]
    pub ca: Option<PathBuf>,

    /// This engine's certificate, in PEM, where etcd wants one.
    #[schemars(extend("format" = "path"))]
    pub certificate: Option<PathBuf>,

    /// The key of `certificate`, in PEM.
    #[schemars(extend("format" = "path"))]
    pub key: Option<PathBuf>,
}

impl Default for Etcd {
    fn default() -> Etcd {
        Etcd {
            endpoints: Vec::new(),
            prefix: "/keel".to_owned(),
            lease_s: 10,
            ca: None,
            certificate: None,
            key: None,
        }
    }
}

/// An engine of the system.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupMember {
    /// Number of the engine in the system: its `engine.rank`.
    #[schemars(range(min = 0, max = 65_535))]
    pub rank: u32,

    /// Where the other engines reach its data channel: its `rpc.listen`, or with a listening address of `0.0.0.0` one of its addresses.
    #[schemars(with = "String", extend("format" = "socket-address"))]
    pub address: SocketAddr,
}

impl Default for Group {
    fn default() -> Group {
        Group {
            source: None,
            version: 1,
            heartbeat_ms: 500,
            silent_ms: 3000,
            member: Vec::new(),
            address: None,
            etcd: Etcd::default(),
        }
    }
}
