//! The IOMMU: there, and its groups wholly ours.

use super::device::is_uio;
use crate::code;
use crate::finding::Finding;
use crate::pci::{PciDevice, UIO, VFIO};
use crate::root::Root;

pub(super) fn all(root: &Root, present: &[PciDevice], found: &mut Vec<Finding>) {
    for device in present {
        let finding = match (is_uio(device), device.group) {
            (true, group) => Some(uio(root, device, group)),
            (false, None) => Some(no_iommu(root, device)),
            (false, Some(_)) => shared(root, device, &[]),
        };
        found.extend(finding);
    }
}

/// Other devices of the group that the kernel has; those in `taken` will not be the kernel's any more.
pub(crate) fn shared(root: &Root, device: &PciDevice, taken: &[PciDevice]) -> Option<Finding> {
    let mut others = device.in_the_way(root);
    others.retain(|other| !taken.iter().any(|taken| taken.address == other.address));
    let group = device.group?;
    let named = |other: &PciDevice| {
        format!(
            "{} ({})",
            other.address,
            other.driver.as_deref().unwrap_or("no driver")
        )
    };
    let names: Vec<String> = others.iter().map(named).collect();
    if names.is_empty() {
        return None;
    }
    let cause = format!(
        "the kernel has other devices of its IOMMU group {group}: {}",
        names.join(", ")
    );
    let first = &others[0].address;
    let cure = format!(
        "move the SSD to a slot with a group of its own, or give the others away as well, if the machine does without them: \
         echo {VFIO} > /sys/bus/pci/devices/{first}/driver_override; echo {first} > /sys/bus/pci/devices/{first}/driver/unbind; \
         echo {first} > /sys/bus/pci/drivers_probe"
    );
    Some(Finding::new(
        &code::GROUP_SHARED,
        &device.address,
        cause,
        cure,
    ))
}

/// With the kernel option that is missing, or the firmware's.
pub(crate) fn no_iommu(root: &Root, device: &PciDevice) -> Finding {
    let cpu = root.read("/proc/cpuinfo").unwrap_or_default();
    let options = root.read("/proc/cmdline").unwrap_or_default();
    let (table, option, firmware) = if cpu.contains("AuthenticAMD") {
        ("IVRS", "amd_iommu=on", "AMD-Vi (IOMMU)")
    } else {
        ("DMAR", "intel_iommu=on", "VT-d")
    };
    let off = options
        .split_whitespace()
        .find(|word| matches!(*word, "iommu=off" | "intel_iommu=off" | "amd_iommu=off"));
    let has_table = root.exists(format!("/sys/firmware/acpi/tables/{table}"));
    let (why, cure) = match (off, has_table) {
        (Some(word), _) => (
            format!("the kernel was started with `{word}`"),
            format!(
                "take `{word}` out of GRUB_CMDLINE_LINUX in /etc/default/grub; update-grub; reboot"
            ),
        ),
        (None, true) => (
            "the firmware has one and the kernel does not use it".to_owned(),
            format!("add {option} to GRUB_CMDLINE_LINUX in /etc/default/grub; update-grub; reboot"),
        ),
        (None, false) => (
            format!("the firmware shows none (no ACPI table {table})"),
            format!(
                "switch {firmware} on in the firmware's setup, and add {option} to GRUB_CMDLINE_LINUX in /etc/default/grub; update-grub; reboot"
            ),
        ),
    };
    let uio = format!(
        "without an IOMMU: keel node prepare --uio {}, which protects nothing",
        device.address
    );
    Finding::new(
        &code::NO_IOMMU,
        &device.address,
        format!("it is behind no IOMMU: {why}"),
        format!("{cure} ({uio})"),
    )
}

/// That uio cannot work here, if it cannot: with a translating IOMMU physical addresses lead nowhere.
pub(crate) fn translated(root: &Root, device: &PciDevice, group: Option<u32>) -> Option<Finding> {
    let group = group?;
    let kind = root.read(format!("/sys/kernel/iommu_groups/{group}/type"));
    if kind.as_deref() == Some("identity") {
        return None;
    }
    let cause =
        format!("its IOMMU group {group} translates addresses: through {UIO} it reaches no memory");
    let cure = format!(
        "keel node release {0}; keel node prepare {0}   (without --uio)",
        device.address
    );
    Some(Finding::new(
        &code::UIO_TRANSLATED,
        &device.address,
        cause,
        cure,
    ))
}

fn uio(root: &Root, device: &PciDevice, group: Option<u32>) -> Finding {
    let address = &device.address;
    translated(root, device, group).unwrap_or_else(|| {
        let cause = format!(
            "it is bound to {UIO}: a defect of the device or the engine can overwrite any memory of this machine, the kernel's included"
        );
        let cure = "for development only; in service, switch the IOMMU on (see KN020) and: keel node release; keel node prepare";
        Finding::new(&code::UNPROTECTED, address, cause, cure)
    })
}
