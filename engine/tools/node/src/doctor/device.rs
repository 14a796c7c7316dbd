//! The devices themselves: there, of the right kind, free, lent out.

use super::Questions;
use crate::address::Address;
use crate::code;
use crate::finding::Finding;
use crate::pci::{PciDevice, UIO, VFIO};
use crate::root::Root;
use crate::usage::{Use, uses};

/// Looks at every device and gives those that are NVMe controllers.
pub(super) fn all(root: &Root, questions: &Questions, found: &mut Vec<Finding>) -> Vec<PciDevice> {
    let mut present = Vec::new();
    for address in &questions.need.devices {
        match right_kind(root, address) {
            Ok(device) => {
                binding(&device, found);
                in_use(root, questions, &device, found);
                access(root, questions, &device, found);
                present.push(device);
            }
            Err(finding) => found.push(finding),
        }
    }
    present
}

pub(super) fn is_uio(device: &PciDevice) -> bool {
    device.driver.as_deref() == Some(UIO)
}

/// The device, if it can be driven at all.
pub(crate) fn right_kind(root: &Root, address: &Address) -> Result<PciDevice, Finding> {
    let list = "give the address of an SSD: lspci -D | grep -i nvm";
    let Some(device) = PciDevice::read(root, address) else {
        let cure = format!(
            "{list}; one that was pulled out or switched off is found again by: echo 1 > /sys/bus/pci/rescan"
        );
        return Err(Finding::new(
            &code::NO_DEVICE,
            address,
            "there is no such PCI device",
            cure,
        ));
    };
    let class = format!("PCI class {:06x}", device.class);
    if device.is_bridge() {
        return Err(Finding::new(
            &code::BRIDGE,
            address,
            format!("it is a bridge ({class})"),
            list,
        ));
    }
    if !device.is_nvme() {
        return Err(Finding::new(
            &code::NOT_NVME,
            address,
            format!("it is no NVMe controller ({class})"),
            list,
        ));
    }
    Ok(device)
}

fn binding(device: &PciDevice, found: &mut Vec<Finding>) {
    let address = &device.address;
    let prepare = format!("keel node prepare {address}");
    match device.driver.as_deref() {
        Some(VFIO | UIO) => {}
        None => found.push(Finding::new(
            &code::NOT_BOUND,
            address,
            "no driver has it",
            prepare,
        )),
        Some("nvme") => {
            let cause = "the kernel's driver `nvme` has it, not vfio-pci";
            found.push(Finding::new(&code::NOT_BOUND, address, cause, prepare));
        }
        Some(other) => found.push(other_driver(address, other)),
    }
}

pub(crate) fn other_driver(address: &Address, driver: &str) -> Finding {
    let cause = format!(
        "the driver `{driver}` has it, which is neither the kernel's for NVMe nor one that lends devices"
    );
    let cure = format!(
        "if nothing needs it there: echo {address} > /sys/bus/pci/drivers/{driver}/unbind; keel node prepare {address}"
    );
    Finding::new(&code::OTHER_DRIVER, address, cause, cure)
}

fn in_use(root: &Root, questions: &Questions, device: &PciDevice, found: &mut Vec<Finding>) {
    for of in uses(root, device) {
        let finding = match &of {
            Use::Process { .. } if !questions.at_start => Finding::new(
                &code::RUNNING,
                &device.address,
                of.to_string(),
                "nothing to do, if it is the engine that was meant",
            ),
            _ => Finding::of_use(device, &of),
        };
        found.push(finding);
    }
}

fn access(root: &Root, questions: &Questions, device: &PciDevice, found: &mut Vec<Finding>) {
    let account = &questions.account;
    if is_uio(device) {
        if account.uid != 0 {
            let cause = format!(
                "it is bound to {UIO}, and {} (uid {}) is not root",
                account.name, account.uid
            );
            let cure = format!(
                "run the engine as root, or with an IOMMU: keel node release {0}; keel node prepare {0}",
                device.address
            );
            found.push(Finding::new(
                &code::UIO_NEEDS_ROOT,
                &device.address,
                cause,
                cure,
            ));
        }
        return;
    }
    let Some(node) = device.node(root) else {
        return;
    };
    let Ok(file) = root.path(&node).metadata() else {
        return;
    };
    if !account.may_use(&file) {
        let cause = format!("{} (uid {}) may not open {node}", account.name, account.uid);
        let user = if account.name == "this user" {
            "NAME"
        } else {
            &account.name
        };
        let cure = format!("keel node prepare {} --user {user}", device.address);
        found.push(Finding::new(&code::NO_ACCESS, &device.address, cause, cure));
    }
}
