//! `[modules]`, `[drpc]`, `[rpc]`, `[telemetry]`: what the engine loads and how the world reaches it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ByteSize;

/// What the engine loads.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Modules {
    /// Modules to load, by name: `obj` is the file `libobj.so`. What a module declares to need is started before it; ties go by
    /// the order of this list.
    #[schemars(length(max = 64), extend("x-item-format" = "module-name"))]
    pub load: Vec<String>,

    /// Directories to look for modules in, before the engine's own: that of the executable, then `../lib/keel` beside it.
    #[schemars(length(max = 16), extend("x-item-format" = "path"))]
    pub path: Vec<PathBuf>,
}

impl Default for Modules {
    fn default() -> Modules {
        Modules {
            load: ["mgmt", "obj", "hello"].map(String::from).to_vec(),
            path: Vec::new(),
        }
    }
}

/// The control channel: dRPC over a local socket.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drpc {
    /// Socket that the engine listens on, mode 0600, at most 107 bytes long. A socket left behind by an engine that is gone is
    /// replaced; anything else in its place is left alone and refused.
    #[schemars(extend("format" = "socket-path"))]
    pub socket: PathBuf,

    /// Socket of the control server to announce this engine to. Left out, the engine sets itself up.
    #[schemars(extend("format" = "socket-path"))]
    pub control_server: Option<PathBuf>,

    /// Sessions open at a time; one more is accepted and closed at once.
    #[schemars(range(min = 1, max = 4096))]
    pub max_sessions: u32,

    /// Calls being worked on at a time, over all sessions; beyond that the engine stops reading from them.
    #[schemars(range(min = 1, max = 65_536))]
    pub max_in_flight: u32,

    /// Longest message accepted, after its chunks are put together.
    #[schemars(extend("x-min" = "4KiB", "x-max" = "64MiB"))]
    pub max_message: ByteSize,

    /// Users, by number, that may connect besides root and the user that the engine runs as. The socket's mode admits only
    /// those two: widening it is the administrator's step.
    #[schemars(length(max = 64), inner(range(min = 0, max = 4_294_967_294_i64)))]
    pub allow_uids: Vec<u32>,
}

impl Default for Drpc {
    fn default() -> Drpc {
        Drpc {
            socket: "/run/keel/engine.sock".into(),
            control_server: None,
            max_sessions: 64,
            max_in_flight: 256,
            max_message: ByteSize::mib(64),
            allow_uids: Vec::new(),
        }
    }
}

/// The data channel: RPC over TCP.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rpc {
    /// Address and port to listen on. Port 0 takes a free one, which `keel engine status` names.
    #[schemars(with = "String", extend("format" = "socket-address"))]
    pub listen: SocketAddr,

    /// Allow `listen` to be an address that other hosts can reach although there is no `[tls]` section, or `tls.required` is off:
    /// only for a network where every host is trusted.
    pub allow_insecure: bool,

    /// Connections open at a time; one more is accepted and closed at once.
    #[schemars(range(min = 1, max = 65_536))]
    pub max_connections: u32,

    /// Requests being worked on for one connection; beyond that the engine stops reading from it.
    #[schemars(range(min = 1, max = 4096))]
    pub max_in_flight: u32,

    /// Memory for bulk data of requests, taken at start and shared by all connections: half of it in buffers of 4 MiB, the rest in
    /// smaller ones. While no buffer is free, requests with bulk data stay in their sockets.
    #[schemars(extend("x-min" = "16MiB", "x-max" = "64GiB"))]
    pub bulk_memory: ByteSize,
}

impl Default for Rpc {
    fn default() -> Rpc {
        Rpc {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 10_010)),
            allow_insecure: false,
            max_connections: 1024,
            max_in_flight: 128,
            bulk_memory: ByteSize::mib(64),
        }
    }
}

/// Metrics and logs.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Loopback address and port to serve Prometheus text on, at `/metrics`. Left out, there is no port; `keel metrics` works
    /// either way.
    #[schemars(with = "Option<String>", extend("format" = "socket-address"))]
    pub metrics_listen: Option<SocketAddr>,

    /// What is logged: a level, then levels for single facilities, such as `INFO` or `WARN,rpc=DEBUG`. Levels are OFF, ERROR,
    /// WARN, INFO, DEBUG and TRACE, and DAOS's names for them. `keel log set-mask` changes it while the engine runs.
    #[schemars(extend("format" = "log-mask"))]
    pub log_mask: String,

    /// A request, or an I/O of a device, that takes so many microseconds is logged and listed by `keel slow`; 0: none is.
    #[schemars(range(min = 0, max = 1_000_000_000), extend("x-unit" = "microseconds"))]
    pub slow_us: u32,

    /// How a log line looks.
    pub log_format: LogFormat,

    /// File that log lines are appended to. Left out, they go to standard error, which systemd keeps in the journal.
    #[schemars(extend("format" = "path"))]
    pub log_file: Option<PathBuf>,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

impl Default for Telemetry {
    fn default() -> Telemetry {
        Telemetry {
            metrics_listen: None,
            log_mask: "INFO".into(),
            slow_us: 1_000_000,
            log_format: LogFormat::Text,
            log_file: None,
        }
    }
}
