//! [`Need`]: how much memory an engine gives to its SSDs, and on which NUMA node.

use std::collections::{BTreeMap, BTreeSet};

use engine_config::{Backing, Config, Hugepages, Provider};

use crate::address::Address;
use crate::hugepages::{PageSize, nodes};
use crate::pci::PciDevice;
use crate::root::Root;

/// Buffers that modules take from the engine (`engine_host::HostOptions`; a test of the daemon compares).
pub const MODULE_BUFFERS: u64 = 176 << 20;
/// What is lost at the ends of pools that all share, which begin with huge pages.
const GAPS: u64 = 4 << 20;
/// For each SSD: buffers for I/O of memory that it does not reach, admin queue, doorbells, gaps.
const PER_SSD: u64 = 21 << 20;
/// For each target: a queue pair of 1,024 entries and their PRP lists.
const PER_TARGET: u64 = 5 << 20;

/// For each target on a device of SPDK's: buffers for I/O of memory that its drivers do not reach.
const PER_LENT_TARGET: u64 = 4 << 20;

/// What is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// The SSDs, in order.
    pub devices: BTreeSet<Address>,
    /// Bytes for DMA on each node.
    pub bytes: BTreeMap<u32, u64>,
    /// In which pages.
    pub pages: Hugepages,
}

impl Need {
    /// Of an engine with this configuration: nothing, if it has no device of kind `nvme` and SPDK takes no huge pages.
    #[must_use]
    pub fn of_config(root: &Root, config: &Config) -> Need {
        let mut targets: BTreeMap<Address, u64> = BTreeMap::new();
        let spdk = &config.spdk;
        if config.provider == Provider::Libspdk {
            let allowed = spdk.pci_allowed.iter();
            targets.extend(allowed.filter_map(|address| Some((address.parse().ok()?, 0))));
        }
        for placement in config.placements() {
            let backing = config
                .device
                .get(placement.device)
                .and_then(|device| device.backing());
            if let Some(Backing::Nvme { address, .. }) = backing
                && let Ok(address) = address.parse()
            {
                *targets.entry(address).or_insert(0) += 1;
            }
        }
        let mut need = Need::of(root, &targets, config);
        if config.provider == Provider::Libspdk && spdk.hugepages {
            // It works with no others.
            if matches!(need.pages, Hugepages::Auto | Hugepages::Off) {
                need.pages = Hugepages::TwoMiB;
            }
            let known = nodes(root);
            let home = config.engine.numa_node.filter(|node| known.contains(node));
            // Which targets are on SSDs is SPDK's knowledge.
            let copies = u64::from(config.engine.targets) * PER_LENT_TARGET;
            let copies = if targets.is_empty() { 0 } else { copies };
            *need.bytes.entry(home.unwrap_or(known[0])).or_insert(0) += spdk.memory.0 + copies;
        }
        need
    }

    /// Of an engine with the default configuration and one target on each of these SSDs.
    #[must_use]
    pub fn of_devices(root: &Root, devices: &[Address]) -> Need {
        let targets = devices.iter().map(|address| (address.clone(), 1)).collect();
        Need::of(root, &targets, &Config::default())
    }

    fn of(root: &Root, targets: &BTreeMap<Address, u64>, config: &Config) -> Need {
        let known = nodes(root);
        let first = known[0];
        let node_of = |address: &Address| {
            let node = PciDevice::read(root, address).and_then(|device| device.numa_node);
            node.filter(|node| known.contains(node)).unwrap_or(first)
        };
        let mut bytes = BTreeMap::new();
        for (address, targets) in targets {
            *bytes.entry(node_of(address)).or_insert(0) += PER_SSD + targets * PER_TARGET;
        }
        // What all xstreams share lies where the engine is told to stay, else beside the first SSD.
        if let Some((address, _)) = targets.first_key_value() {
            let home = config.engine.numa_node.filter(|node| known.contains(node));
            *bytes
                .entry(home.unwrap_or_else(|| node_of(address)))
                .or_insert(0) += MODULE_BUFFERS + GAPS + config.rpc.bulk_memory.0;
        }
        Need {
            devices: targets.keys().cloned().collect(),
            bytes,
            pages: config.engine.hugepages,
        }
    }

    /// Bytes on all nodes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.bytes.values().sum()
    }

    /// The size of the huge pages that are used; none with `engine.hugepages = "off"`.
    #[must_use]
    pub fn page_size(&self) -> Option<PageSize> {
        match self.pages {
            Hugepages::Auto | Hugepages::TwoMiB => Some(PageSize::TwoMiB),
            Hugepages::OneGiB => Some(PageSize::OneGiB),
            Hugepages::Off => None,
        }
    }
}
