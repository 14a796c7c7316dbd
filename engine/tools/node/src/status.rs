//! [`status`]: what is bound to what, and who uses which huge pages.

use engine_config::{Backing, Config};
use serde::Serialize;

use crate::hugepages::{NodePages, PageSize};
use crate::need::Need;
use crate::pci::{PciDevice, all_nvme};
use crate::record::{Record, RecordError};
use crate::root::Root;
use crate::usage::uses;

/// An SSD.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceStatus {
    /// PCI address.
    pub address: String,
    /// The driver that has it.
    pub driver: Option<String>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// Its NUMA node.
    pub numa_node: Option<u32>,
    /// `keel node release` would give it back.
    pub prepared: bool,
    /// Names of the configuration's devices on it.
    pub devices: Vec<String>,
    /// The configuration's targets on it.
    pub targets: Vec<u32>,
    /// Mounts, swap, processes.
    pub uses: Vec<String>,
}

/// What is needed of the huge pages of one size on one node.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PagesNeeded {
    /// The NUMA node.
    pub node: u32,
    /// The size.
    pub size: PageSize,
    /// Bytes.
    pub bytes: u64,
}

impl PagesNeeded {
    /// Whether these pages are meant.
    #[must_use]
    pub fn is_of(&self, pages: &NodePages) -> bool {
        (self.node, self.size.kib()) == (pages.node, pages.size_kib)
    }
}

/// The host.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// All SSDs.
    pub devices: Vec<DeviceStatus>,
    /// Huge pages, by node and size.
    pub pages: Vec<NodePages>,
    /// Memory for DMA that the configuration needs in huge pages.
    pub needed: Vec<PagesNeeded>,
    /// The host is prepared again at each boot.
    pub at_boot: bool,
}

/// How the host is now, with what a configuration wants of it.
///
/// # Errors
/// [`RecordError`].
pub fn status(root: &Root, config: Option<&Config>) -> Result<NodeStatus, RecordError> {
    let record = Record::load(root)?;
    let devices = all_nvme(root)
        .iter()
        .map(|device| of_device(root, device, config, &record))
        .collect();
    let need = config
        .map(|config| Need::of_config(root, config))
        .unwrap_or_default();
    Ok(NodeStatus {
        devices,
        pages: NodePages::all(root),
        needed: needed(&need),
        at_boot: !record.files.is_empty(),
    })
}

fn needed(need: &Need) -> Vec<PagesNeeded> {
    let of = |size| move |(&node, &bytes): (&u32, &u64)| PagesNeeded { node, size, bytes };
    let of_size = |size| need.bytes.iter().map(of(size));
    need.page_size().into_iter().flat_map(of_size).collect()
}

fn of_device(
    root: &Root,
    device: &PciDevice,
    config: Option<&Config>,
    record: &Record,
) -> DeviceStatus {
    let address = device.address.to_string();
    let is_on_it = |entry: &engine_config::Device| matches!(entry.backing(), Some(Backing::Nvme { address: at, .. }) if at == address);
    let (mut devices, mut targets) = (Vec::new(), Vec::new());
    if let Some(config) = config {
        devices.extend(
            config
                .device
                .iter()
                .filter(|entry| is_on_it(entry))
                .map(|entry| entry.name.clone()),
        );
        let placed = config
            .placements()
            .into_iter()
            .filter(|placement| is_on_it(&config.device[placement.device]));
        targets.extend(placed.map(|placement| placement.target));
    }
    DeviceStatus {
        driver: device.driver.clone(),
        group: device.group,
        numa_node: device.numa_node,
        prepared: record.wish.devices.contains(&device.address),
        devices,
        targets,
        uses: uses(root, device).iter().map(ToString::to_string).collect(),
        address,
    }
}
