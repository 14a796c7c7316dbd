//! Keys of kind `nvme`: an address that is there, and nothing that the namespace decides by itself.

use std::path::Path;

use super::Subject;
use crate::check::{Fault, Rules};
use crate::device::{Device, DeviceKind};
use crate::error::Kind;
use crate::machine::Machine;

const LIST: &str = "`lspci -D | grep -i nvm` lists the addresses of SSDs";

pub(super) fn keys(rules: &mut Rules<'_>, this: &Subject<'_>) {
    let Device {
        name,
        address,
        path,
        size,
        create,
        block_size,
        ..
    } = this.device;
    if address.is_none() && this.sound(rules, &["address"]) {
        let message = format!("device {name:?} of kind \"nvme\" has no address");
        let help = format!("give the PCI address of the SSD: {LIST}");
        let label = "needs the key `address`";
        this.fault(rules, Kind::MissingKey, "address", message, label, &help);
    }
    let mut cannot = |is_there: bool, key: &str, what: &str, label: &str, help: &str| {
        if is_there {
            let message = format!("device {name:?} of kind \"nvme\" cannot {what}");
            this.fault(rules, Kind::Conflict, key, message, label, help);
        }
    };
    let only_file = "only for kind \"file\"";
    let others = "only for the other kinds";
    cannot(
        path.is_some(),
        "path",
        "have a path",
        only_file,
        "give the PCI address of the SSD as `address`, or use kind = \"file\" for a block device of the kernel",
    );
    cannot(
        size.is_some(),
        "size",
        "have a size",
        others,
        "remove it: the namespace has the size that it has",
    );
    cannot(
        *create,
        "create",
        "be created",
        only_file,
        "remove it: namespaces are made with `nvme create-ns`",
    );
    cannot(
        block_size.is_some(),
        "block_size",
        "have a block size",
        others,
        "remove it: the namespace is formatted with one (`nvme format` changes it)",
    );
}

/// What only this kind has.
pub(super) fn keys_of_others(rules: &mut Rules<'_>, this: &Subject<'_>) {
    let Device {
        name,
        kind,
        address,
        namespace,
        ..
    } = this.device;
    if *kind == DeviceKind::Nvme {
        return;
    }
    let word = kind.as_str();
    for (is_there, key, what) in [
        (address.is_some(), "address", "an address"),
        (namespace.is_some(), "namespace", "a namespace"),
    ] {
        if is_there {
            let message = format!("device {name:?} of kind {word:?} cannot have {what}");
            let help = "remove it, or use kind = \"nvme\"";
            let label = "only for kind \"nvme\"";
            this.fault(rules, Kind::Conflict, key, message, label, help);
        }
    }
}

/// Two devices on one SSD are two namespaces of it.
pub(super) fn duplicates(rules: &mut Rules<'_>, this: &Subject<'_>, earlier: &[Device]) {
    let Device {
        kind: DeviceKind::Nvme,
        address: Some(address),
        namespace,
        ..
    } = this.device
    else {
        return;
    };
    let same = |other: &Device| {
        other.kind == DeviceKind::Nvme
            && other.address.as_ref() == Some(address)
            && (other.namespace == *namespace || other.namespace.is_none() || namespace.is_none())
    };
    let Some(first) = earlier.iter().position(same) else {
        return;
    };
    let (message, help) = match (namespace, earlier[first].namespace) {
        (Some(number), Some(_)) => (
            format!("two devices are namespace {number} of the SSD {address}"),
            "two devices on one namespace would overwrite each other",
        ),
        _ => (
            format!("two devices are the SSD {address}"),
            "give each the number of its own namespace: `namespace = 1`, `namespace = 2`",
        ),
    };
    rules.report(Fault {
        kind: Kind::Conflict,
        key: &this.key("address"),
        message,
        label: "used again",
        help: help.into(),
        also: Some((&format!("device[{first}].address"), "first used here")),
    });
}

pub(super) fn on_machine(rules: &mut Rules<'_>, this: &Subject<'_>, machine: &Machine) {
    let Some(address) = &this.device.address else {
        return;
    };
    if this.sound(rules, &["address"])
        && !machine.is_directory(&Path::new("/sys/bus/pci/devices").join(address))
    {
        let message = format!("there is no PCI device {address}");
        let help = format!("{LIST}; one that was pulled out is shown again after it is put back");
        this.fault(rules, Kind::Machine, "address", message, "not there", &help);
    }
}
