//! `[spdk]`: what C SPDK takes from the machine, and what it makes.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ByteSize;

/// What C SPDK takes from the machine and what it makes, for `provider = "libspdk"`. It runs on the cores that the xstreams are placed on.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Spdk {
    /// Memory that SPDK takes at the start, for its pools, queues and the devices that it makes itself (`bdev_malloc_create`). The
    /// engine's own buffers are not part of it.
    #[schemars(extend("x-min" = "64MiB", "x-max" = "1024GiB"))]
    pub memory: ByteSize,

    /// Take that memory in huge pages. `false` takes ordinary ones (DPDK: `--no-huge`), which works everywhere; no NVMe device can be used
    /// then.
    pub hugepages: bool,

    /// SPDK's interrupt mode: an idle engine sleeps until it is rung, by a message, a timer or a device, instead of looking every
    /// `engine.idle_latency_us`; each turn and each message of an xstream is a system call more. Devices without interrupts keep their xstreams awake: of
    /// SPDK's modules `aio` has them, and `nvme` on an SSD that is bound to vfio-pci.
    pub interrupt_mode: bool,

    /// PCI addresses of the devices that SPDK may use, in full, such as `"0000:05:00.0"`. Empty: it does not look at the PCI bus.
    #[schemars(length(max = 256), extend("x-item-format" = "pci-address"))]
    pub pci_allowed: Vec<String>,

    /// SPDK's JSON configuration (`scripts/rpc.py save_config`), which makes the block devices that devices of kind `spdk` name. A relative
    /// path starts at the directory that the engine is started in.
    #[schemars(extend("format" = "path"))]
    pub json: Option<PathBuf>,

    /// Socket on which SPDK takes JSON-RPC (`scripts/rpc.py -s SOCKET`). Whoever may write to it rules SPDK's devices. Left out, there is
    /// none.
    #[schemars(extend("format" = "socket-path"))]
    pub rpc_socket: Option<PathBuf>,
}

impl Default for Spdk {
    fn default() -> Spdk {
        Spdk {
            memory: ByteSize::mib(512),
            hugepages: true,
            interrupt_mode: false,
            pci_allowed: Vec::new(),
            json: None,
            rpc_socket: None,
        }
    }
}
