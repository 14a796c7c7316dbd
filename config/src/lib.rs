//! What an operator writes: Keel's configuration file, typed, checked, explained.
//!
//! A file is TOML. [`Config`] and its sections are plain data; their doc comments, ranges and defaults are the only description of
//! a key, and the JSON schema, [`explain`] and the validation are derived from them. Every mistake in a file is reported in one
//! pass, with file, line, column, the allowed range and the probable intent ([`ConfigErrors`]).
//!
//! ```
//! let text = "[engine]\ntargets = 2\n[[device]]\nname = \"d0\"\nkind = \"malloc\"\nsize = \"64MiB\"\n";
//! let config = engine_config::Config::parse("tiny.toml", text).unwrap();
//! assert_eq!(config.placements().len(), 2);
//!
//! let errors = engine_config::Config::parse("typo.toml", "[engine]\ntragets = 2\n").unwrap_err();
//! assert!(errors.to_string().contains("did you mean `targets`?"));
//! ```
//!
//! Ways in: [`Config::load`], [`Config::parse`], and [`Document`] for a file with `--set` overrides. [`Config::check`] looks at a
//! [`Machine`]. Neighbours: none below; only the daemon and the command line read this crate, and the daemon maps it to the options
//! of each other crate. Threads: plain data, `Send + Sync`; start-up only, nothing here is for a data path.
//!
//! | module | holds |
//! |---|---|
//! | `engine`, `device`, `services`, `tls`, `watchdog`, `health`, `group`, `spdk` | the sections of the file |
//! | `size`, `cpus` | `"64MiB"`, `"2-9,12"` |
//! | `tree` | the parsed text with the place of every key |
//! | `shape`, `words` | what the file may look like, from the JSON schema |
//! | `validate`, `check` | keys, types, ranges; how values go together and fit the machine |
//! | `set` | `--set KEY=VALUE` |
//! | `document` | from texts to a checked `Config` |
//! | `error`, `render` | errors and their plain text |
//! | `explain` | a key in words |

mod check;
mod cpus;
mod device;
mod document;
mod engine;
mod error;
mod explain;
mod group;
mod health;
mod machine;
mod render;
mod services;
mod set;
mod shape;
mod size;
mod spdk;
mod tls;
mod tree;
mod validate;
mod watchdog;
mod words;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cpus::CpuList;
pub use device::{Backing, Device, DeviceKind, MIN_TARGET_SIZE, Placement, SLICE_ALIGN};
pub use document::Document;
pub use engine::{Engine, Hugepages};
pub use error::{ConfigError, ConfigErrors, Kind};
pub use explain::{UnknownKey, explain, keys};
pub use group::{Etcd, Group, GroupMember, GroupSource};
pub use health::Health;
pub use machine::{Machine, MachineCpu, PathInfo, PathKind, UnusableCpu};
pub use services::{Drpc, LogFormat, Modules, Rpc, Telemetry};
pub use shape::schema_json;
pub use size::ByteSize;
pub use spdk::Spdk;
pub use tls::Tls;
pub use watchdog::Watchdog;

/// The configuration of one engine.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which implementation of SPDK's programming model runs underneath.
    pub provider: Provider,

    /// Who this engine is, how many xstreams it runs and where they are placed.
    pub engine: Engine,

    /// What the engine loads.
    pub modules: Modules,

    /// The control channel: dRPC over a local socket.
    pub drpc: Drpc,

    /// The data channel: RPC over TCP.
    pub rpc: Rpc,

    /// Certificates for the data channel.
    pub tls: Tls,

    /// What C SPDK takes from the machine and what it makes, for `provider = "libspdk"`.
    pub spdk: Spdk,

    /// Metrics and logs.
    pub telemetry: Telemetry,

    /// What counts as stuck, and what happens then.
    pub watchdog: Watchdog,

    /// When a device is taken out of use by itself.
    pub health: Health,

    /// The engines that form one system.
    pub group: Group,

    /// The block devices, in order. As many devices as targets: target 0 gets the first, target 1 the second, and so on. Fewer:
    /// the targets must divide evenly, and consecutive targets share a device in equal slices.
    #[schemars(length(max = 256))]
    pub device: Vec<Device>,

    #[serde(skip)]
    origin: Origin,
}

impl Config {
    /// Who says which engines belong to the system; `None`: this engine is alone.
    pub fn group_source(&self) -> Option<GroupSource> {
        self.group.source.or(match &self.drpc.control_server {
            _ if !self.group.member.is_empty() => Some(GroupSource::Static),
            Some(_) => Some(GroupSource::Control),
            None => None,
        })
    }
}

/// Which implementation of SPDK's programming model runs underneath.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Pure Rust; runs on any Linux machine with nothing installed.
    #[default]
    Native,
    /// The C SPDK, if this build links it: its threads under the xstreams, and any block device of its own.
    Libspdk,
}

impl Provider {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Provider::Native => "native",
            Provider::Libspdk => "libspdk",
        }
    }
}

/// Where the values came from, so that later checks can point at them. Two configurations are equal whatever their origin.
#[derive(Clone, Debug, Default)]
struct Origin(Option<Arc<tree::Node>>);

impl PartialEq for Origin {
    fn eq(&self, _: &Origin) -> bool {
        true
    }
}
