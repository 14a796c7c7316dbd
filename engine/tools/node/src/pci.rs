//! [`PciDevice`]: a device as sysfs describes it.

use crate::address::Address;
use crate::root::Root;

/// Class of NVMe controllers: mass storage, non-volatile memory, NVMe.
const NVME_CLASS: u32 = 0x01_0802;
/// The driver through which the kernel lends a device behind an IOMMU.
pub(crate) const VFIO: &str = "vfio-pci";
/// The driver that lends one without.
pub(crate) const UIO: &str = "uio_pci_generic";

/// What sysfs says of a device now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciDevice {
    /// Where it is.
    pub address: Address,
    /// Class code, 24 bits.
    pub class: u32,
    /// The kernel's driver that has it.
    pub driver: Option<String>,
    /// The only driver that may have it, if that was said.
    pub driver_override: Option<String>,
    /// Its IOMMU group; `None`: it is behind no IOMMU.
    pub group: Option<u32>,
    /// Its NUMA node, where the machine says.
    pub numa_node: Option<u32>,
}

impl PciDevice {
    /// Reads what is at an address; `None` if nothing is.
    #[must_use]
    pub fn read(root: &Root, address: &Address) -> Option<PciDevice> {
        let at = |name: &str| format!("{}/{name}", address.sysfs());
        let class = root.read(at("class"))?;
        let class = u32::from_str_radix(class.trim_start_matches("0x"), 16).ok()?;
        let only = root.read(at("driver_override"));
        Some(PciDevice {
            address: address.clone(),
            class,
            driver: root.link_name(at("driver")),
            driver_override: only.filter(|name| !name.is_empty() && name != "(null)"),
            group: root
                .link_name(at("iommu_group"))
                .and_then(|name| name.parse().ok()),
            // -1 where the machine does not say.
            numa_node: root
                .number(at("numa_node"))
                .and_then(|node| u32::try_from(node).ok()),
        })
    }

    /// Whether it is an NVMe controller.
    #[must_use]
    pub fn is_nvme(&self) -> bool {
        self.class == NVME_CLASS
    }

    /// Whether it only connects others.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.class >> 16 == 0x06
    }

    /// Whether it can be lent to a process as it is bound.
    #[must_use]
    pub fn is_lent(&self) -> bool {
        matches!(self.driver.as_deref(), Some(VFIO | UIO))
    }

    /// The file that a process opens to get it, once it is bound: `/dev/vfio/12`, `/dev/uio0`.
    #[must_use]
    pub fn node(&self, root: &Root) -> Option<String> {
        match self.driver.as_deref()? {
            VFIO => Some(format!("/dev/vfio/{}", self.group?)),
            UIO => {
                let names = root.names(format!("{}/uio", self.address.sysfs()));
                Some(format!("/dev/{}", names.first()?))
            }
            _ => None,
        }
    }

    /// The other devices of its IOMMU group that keep it from being lent: those that a driver of the kernel's has. Bridges do not count
    /// (Linux `drivers/vfio/vfio.c`: `vfio_driver_allowed`).
    pub(crate) fn in_the_way(&self, root: &Root) -> Vec<PciDevice> {
        let Some(group) = self.group else {
            return Vec::new();
        };
        let names = root.names(format!("/sys/kernel/iommu_groups/{group}/devices"));
        let others = names
            .iter()
            .filter_map(|name| PciDevice::read(root, &name.parse().ok()?));
        others
            .filter(|other| other.address != self.address && !other.is_bridge())
            .filter(|other| !matches!(other.driver.as_deref(), None | Some(VFIO | "pci-stub")))
            .collect()
    }
}

/// All NVMe controllers of a machine, by address.
#[must_use]
pub fn all_nvme(root: &Root) -> Vec<PciDevice> {
    let names = root.names("/sys/bus/pci/devices");
    let devices = names
        .iter()
        .filter_map(|name| PciDevice::read(root, &name.parse().ok()?));
    devices.filter(PciDevice::is_nvme).collect()
}
