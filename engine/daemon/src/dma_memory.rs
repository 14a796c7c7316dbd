//! Memory for devices: how much the engine needs on which NUMA node, and huge pages for it.

use engine_config::{Config, DeviceKind, Hugepages};
use engine_host::HostOptions;
use spdk_env::cpu::{Host as Machine, pci_node};
use spdk_env::{DmaNeed, HugePage, reserve_dma};

use crate::error::BootError;
use crate::{ssds, wiring};

/// Every pool begins at a multiple of this.
const UNIT: usize = 2 << 20;
/// Of an SSD beside its bounce buffers: the admin queue and its pages, doorbells, what was identified.
const PER_SSD: usize = 1 << 20;
/// Of a queue pair's command: entries of both queues.
const ENTRIES: usize = 64 + 16;
/// Of a channel on a device of SPDK's: `spdk_provider`'s buffers for copies, 4 of 1 MiB.
const COPIES: usize = 4 << 20;
/// And its list of pages.
const LIST: usize = 4096;

/// Takes huge pages as the configuration says. Before devices are opened.
pub(crate) fn set_aside(config: &Config) -> Result<(), BootError> {
    let (page, or_else_ordinary) = match config.engine.hugepages {
        // SPDK's drivers reach nothing else.
        Hugepages::Auto if !config.spdk.pci_allowed.is_empty() => (HugePage::TwoMiB, false),
        Hugepages::Off => return Ok(()),
        Hugepages::Auto if ssds::targets_by_address(config).is_empty() => return Ok(()),
        Hugepages::Auto => (HugePage::TwoMiB, true),
        Hugepages::TwoMiB => (HugePage::TwoMiB, false),
        Hugepages::OneGiB => (HugePage::OneGiB, false),
    };
    let node = |address: &str| pci_node(&Machine::this(), address).ok().flatten();
    match reserve_dma(page, &needs(config, node)) {
        Ok(bytes) => {
            tracing::info!(mib = bytes >> 20, "huge pages of {page} set aside for DMA");
            Ok(())
        }
        Err(error) if or_else_ordinary => {
            tracing::warn!(
                "{error}. Until then DMA uses ordinary pages: everything works, but translations miss the caches of the IOMMU and of the \
                 processors more often, which costs latency under load (engine.hugepages = \"off\" says that this is wanted)"
            );
            Ok(())
        }
        Err(error) => Err(BootError::cannot_use(error)),
    }
}

/// What all xstreams share first, on the engine's node or else beside the first SSD; then what belongs to SSDs, on theirs.
fn needs(config: &Config, node_of: impl Fn(&str) -> Option<usize>) -> Vec<DmaNeed> {
    let ssds = ssds::targets_by_address(config);
    let near = |address: &str| node_of(address).map(|node| node as u32);
    let first = ssds.keys().next().and_then(|address| near(address));
    let mut needs = vec![DmaNeed {
        node: config.engine.numa_node.or(first),
        bytes: shared(config) + lent(config),
    }];
    for (address, targets) in ssds {
        let commands = usize::from(targets) * (ssds::DEPTH as usize + 1);
        // Small pieces lie beside each other; large ones begin at a multiple of the unit.
        let small = (PER_SSD + commands * ENTRIES).next_multiple_of(UNIT);
        let bytes = small + commands * LIST + bdev_nvme::BOUNCE_MEMORY;
        let node = near(address).or(needs[0].node);
        match needs.iter_mut().find(|need| need.node == node) {
            Some(need) => need.bytes += bytes,
            None => needs.push(DmaNeed { node, bytes }),
        }
    }
    needs
}

/// For each target on a device of SPDK's: buffers for I/O of memory that its drivers do not reach.
fn lent(config: &Config) -> usize {
    if config.spdk.pci_allowed.is_empty() {
        return 0;
    }
    let devices = &config.device;
    let is_lent = |number: usize| {
        let device = devices.get(number);
        device.is_some_and(|device| device.kind == DeviceKind::Spdk)
    };
    let placements = config.placements();
    let targets = placements.iter().filter(|place| is_lent(place.device));
    targets.count() * COPIES
}

/// Modules' buffers and those of bulk transfers.
fn shared(config: &Config) -> usize {
    let modules = HostOptions::buffers();
    let modules = modules.iter().map(|class| class.buffer_len * class.count);
    let bulk = wiring::bulk(config);
    let bulk = bulk.iter().map(|class| class.buffer_len * class.count);
    let pools = modules.chain(bulk);
    pools.map(|bytes| bytes.next_multiple_of(UNIT)).sum()
}

#[cfg(test)]
mod tests {
    use engine_node::{Need, Root};

    use super::*;

    fn config(engine: &str) -> Config {
        let text = format!(
            "[engine]\ntargets = 4\n{engine}[rpc]\nbulk_memory = \"32MiB\"\n\
             [[device]]\nname = \"a\"\nkind = \"nvme\"\naddress = \"0000:05:00.0\"\n\
             [[device]]\nname = \"b\"\nkind = \"nvme\"\naddress = \"0000:85:00.0\"\n"
        );
        Config::parse("two.toml", &text).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn what_is_shared_lies_beside_the_first_ssd_and_the_rest_beside_its_own() {
        let node_of = |address: &str| Some(usize::from(address.starts_with("0000:8")));
        let config = config("");
        // Two targets: a page for what is small, 1,024 lists of pages each, bounce buffers.
        let ssd = (2 + 8 + 16) << 20;
        let found = needs(&config, node_of);
        let both = |node, bytes| DmaNeed {
            node: Some(node),
            bytes,
        };
        assert_eq!(found, [both(0, shared(&config) + ssd), both(1, ssd)]);
        assert!(shared(&config) >= (176 + 28) << 20);
    }

    #[test]
    fn the_doctor_asks_for_no_less() {
        for bulk in [8, 9, 17, 31, 32, 33, 50, 64, 100, 255, 256, 1000] {
            let mut config = config("");
            config.rpc.bulk_memory.0 = bulk << 20;
            let needed: usize = needs(&config, |_| Some(0))
                .iter()
                .map(|need| need.bytes)
                .sum();
            let asked = Need::of_config(&Root::this(), &config).total();
            assert!(
                needed as u64 <= asked,
                "bulk_memory {bulk} MiB: {needed} > {asked}"
            );
        }
    }

    #[test]
    fn a_machine_that_does_not_tell_has_one_place_for_all() {
        let one = needs(&config(""), |_| None);
        assert_eq!((one.len(), one[0].node), (1, None));
        let told = needs(&config("numa_node = 1\n"), |_| None);
        assert_eq!((told.len(), told[0].node), (1, Some(1)));
    }
}
