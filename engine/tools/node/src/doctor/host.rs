//! The kernel: its age, its modules, what it forbids, which cores it keeps free.

use std::collections::BTreeSet;

use spdk_env::cpu::{format_list, parse_list};

use super::Questions;
use super::device::is_uio;
use crate::code::{self, Code};
use crate::finding::Finding;
use crate::pci::{PciDevice, VFIO};
use crate::root::Root;

/// The oldest kernel whose io_uring and VFIO do what the engine asks of them.
const OLDEST: (u32, u32) = (5, 10);

pub(super) fn kernel(root: &Root, found: &mut Vec<Finding>) {
    let release = root.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if !release.is_empty() && version < OLDEST {
        let cause = format!("Linux {release} runs, and 5.10 is the oldest that does");
        found.push(Finding::new(
            &code::OLD_KERNEL,
            "host",
            cause,
            "boot a newer kernel",
        ));
    }
}

pub(super) fn vfio(root: &Root, present: &[PciDevice], found: &mut Vec<Finding>) {
    found.extend(module(root, &code::NO_VFIO, VFIO));
    let is_bound = present
        .iter()
        .any(|device| device.driver.as_deref() == Some(VFIO));
    if is_bound && !root.exists("/dev/vfio/vfio") {
        let cause = "/dev/vfio/vfio is not there though devices are bound to vfio-pci";
        let cure = "modprobe vfio_iommu_type1; in a container, give it /dev/vfio";
        found.push(Finding::new(&code::NO_VFIO_NODE, "host", cause, cure));
    }
}

/// That the kernel lacks a module, if it does.
pub(crate) fn module(root: &Root, code: &'static Code, name: &str) -> Option<Finding> {
    if has_module(root, name) {
        return None;
    }
    let release = root.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cause =
        format!("Linux {release} has no module {name}, neither built in nor in /lib/modules");
    let option = name.replace('-', "_").to_ascii_uppercase();
    let cure = format!(
        "boot a distribution's kernel, or one with CONFIG_{option}; where modules are a package of their own: apt install linux-modules-extra-{release}"
    );
    Some(Finding::new(code, "host", cause, cure))
}

/// Whether the kernel has a module of this name: loaded, built in, or to be loaded.
fn has_module(root: &Root, name: &str) -> bool {
    if root.exists(format!("/sys/bus/pci/drivers/{name}")) {
        return true;
    }
    let release = root.read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let file = format!("/{}.ko", name.replace('_', "-"));
    let lists = ["modules.dep", "modules.builtin"].map(|list| {
        root.read(format!("/lib/modules/{release}/{list}"))
            .unwrap_or_default()
    });
    lists.iter().flat_map(|list| list.lines()).any(|line| {
        let path = line.split(':').next().unwrap_or_default().replace('_', "-");
        path.contains(&file)
    })
}

pub(super) fn uio(root: &Root, questions: &Questions, found: &mut Vec<Finding>) {
    let lockdown = root
        .read("/sys/kernel/security/lockdown")
        .unwrap_or_default();
    if !lockdown.is_empty() && !lockdown.contains("[none]") {
        let devices = questions
            .need
            .devices
            .iter()
            .filter_map(|address| PciDevice::read(root, address));
        for device in devices.filter(is_uio) {
            let cause = format!(
                "the kernel is locked down ({lockdown}), so that no process may map its registers"
            );
            let cure = "use an IOMMU with vfio-pci (see KN020), or switch secure boot off in the firmware's setup";
            found.push(Finding::new(
                &code::LOCKED_DOWN,
                &device.address,
                cause,
                cure,
            ));
        }
    }
}

pub(super) fn isolation(root: &Root, polled: &[usize], found: &mut Vec<Finding>) {
    let isolated: BTreeSet<usize> = root
        .read("/sys/devices/system/cpu/isolated")
        .and_then(|text| parse_list(&text))
        .unwrap_or_default()
        .into_iter()
        .collect();
    let shared: Vec<usize> = polled
        .iter()
        .copied()
        .filter(|cpu| !isolated.contains(cpu))
        .collect();
    if shared.is_empty() {
        return;
    }
    let list = format_list(shared);
    let cause = format!("CPUs {list} will always poll, and other processes run there, too");
    let cure = format!(
        "isolcpus=managed_irq,domain,{list} nohz_full={list} in GRUB_CMDLINE_LINUX in /etc/default/grub; update-grub; reboot"
    );
    found.push(Finding::new(&code::NOT_ISOLATED, "host", cause, cure));
}
