//! `[engine]`: who this engine is, how many xstreams it runs and on which cores.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::CpuList;

/// Who this engine is, how many xstreams it runs and where they are placed.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Name of the group of engines that this one belongs to, at most 15 characters; the same on every engine of the group.
    #[schemars(extend("format" = "system-name"))]
    pub system: String,

    /// Number of this engine within its group. Left out, the control server gives the rank; without a control server the
    /// engine takes rank 0.
    #[schemars(range(min = 0, max = 65_535))]
    pub rank: Option<u32>,

    /// Directory for what the engine keeps beside its devices: pool metadata, identity, lock. Created with mode 0700 if it is
    /// not there, and the directories above it as well. A relative path starts at the directory that the engine is started in.
    #[schemars(extend("format" = "path"))]
    pub storage_dir: PathBuf,

    /// Number of targets: shards of the storage, each with a main xstream of its own. The devices are dealt out to them evenly.
    #[schemars(range(min = 1, max = 256))]
    pub targets: u32,

    /// Number of offload xstreams in this engine, at most two for each target. A multiple of `targets` gives each target its own;
    /// any other number makes one pool that all targets share.
    #[schemars(range(min = 0, max = 512))]
    pub helpers: u32,

    /// The first physical core to use, from 0. The cores before it are taken last; with `numa_node`, the count is of that node's
    /// cores and those before it are not taken at all.
    #[schemars(range(min = 0, max = 4095))]
    pub first_core: Option<u32>,

    /// NUMA node to keep all xstreams on. Left out, every core that the process may use counts.
    #[schemars(range(min = 0, max = 63))]
    pub numa_node: Option<u32>,

    /// Exactly the CPUs to use, by the kernel's numbers, such as `"2-9,12"`: the first is the system xstream's, the next ones are the
    /// targets' and helpers'. Second hyper-threads of a core are taken last, isolated CPUs go to targets first. Not together with
    /// `first_core` or `numa_node`. Left out, every core that the process may use counts.
    pub cpus: Option<CpuList>,

    /// Huge pages for the memory that devices reach, taken at the start from each device's NUMA node: `"auto"`, `"2MiB"`, `"1GiB"` or `"off"`.
    pub hugepages: Hugepages,

    /// Start even if there are fewer cores than xstreams; several xstreams then share a core. For development, not for service.
    pub oversubscribe: bool,

    /// Claim each core that is used, so that a second engine on this machine does not poll on it too but says who has it. With
    /// `oversubscribe` the cores are shared with other engines that do so as well. `false` claims nothing and looks at no claim.
    pub lock_cores: bool,

    /// How much later than a busy-polling engine this one may notice new work. The longer, the deeper an idle core may sleep;
    /// 0 polls always and keeps every core at 100 %.
    #[schemars(range(min = 0, max = 1_000_000), extend("x-unit" = "microseconds"))]
    pub idle_latency_us: u32,
}

/// Huge pages for the memory that devices reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Hugepages {
    /// With devices of kind `nvme`: pages of 2 MiB if there are enough, else ordinary ones, with a warning that says what is missing.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// Pages of 2 MiB, or no start.
    #[serde(rename = "2MiB")]
    TwoMiB,
    /// Pages of 1 GiB, or no start.
    #[serde(rename = "1GiB")]
    OneGiB,
    /// Ordinary pages.
    #[serde(rename = "off")]
    Off,
}

impl Default for Engine {
    fn default() -> Engine {
        Engine {
            system: "keel".into(),
            rank: None,
            storage_dir: "/var/lib/keel".into(),
            targets: 1,
            helpers: 0,
            first_core: None,
            numa_node: None,
            cpus: None,
            hugepages: Hugepages::Auto,
            oversubscribe: false,
            lock_cores: true,
            idle_latency_us: 50,
        }
    }
}
