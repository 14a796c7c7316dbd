//! Devices: whole combinations of keys, no duplicates, enough room for every target, and files that are what they should be.

mod nvme;
mod spdk;

use std::path::{Component, Path, PathBuf};

use super::{Fault, Rules, count};
use crate::device::{Device, DeviceKind, MIN_TARGET_SIZE};
use crate::error::Kind;
use crate::machine::{Machine, PathKind};

pub(super) fn check(rules: &mut Rules<'_>) {
    let devices: &[Device] = &rules.config.device;
    for (number, device) in devices.iter().enumerate() {
        let this = Subject { number, device };
        keys(rules, &this);
        block_size(rules, &this);
        room(rules, &this);
        duplicates(rules, &this, devices);
        on_machine(rules, &this);
    }
    every_target_has_one(rules, devices);
}

/// The device that a rule looks at.
struct Subject<'a> {
    number: usize,
    device: &'a Device,
}

impl Subject<'_> {
    fn key(&self, name: &str) -> String {
        format!("device[{}].{name}", self.number)
    }

    fn sound(&self, rules: &Rules<'_>, names: &[&str]) -> bool {
        names.iter().all(|name| rules.sound(&[&self.key(name)]))
    }

    fn fault(
        &self,
        rules: &mut Rules<'_>,
        kind: Kind,
        key: &str,
        message: String,
        label: &str,
        help: &str,
    ) {
        let key = self.key(key);
        rules.report(Fault {
            kind,
            key: &key,
            message,
            label,
            help: help.into(),
            also: None,
        });
    }
}

fn keys(rules: &mut Rules<'_>, this: &Subject<'_>) {
    if !this.sound(rules, &["name", "kind"]) {
        return;
    }
    match this.device.kind {
        DeviceKind::Nvme => nvme::keys(rules, this),
        DeviceKind::File => keys_of_file(rules, this),
        DeviceKind::Malloc | DeviceKind::Null => keys_of_made(rules, this),
        DeviceKind::Spdk => spdk::keys(rules, this),
    }
    nvme::keys_of_others(rules, this);
    spdk::keys_of_others(rules, this);
}

fn keys_of_file(rules: &mut Rules<'_>, this: &Subject<'_>) {
    let Device {
        name,
        path,
        size,
        create,
        ..
    } = this.device;
    if path.is_none() && this.sound(rules, &["path"]) {
        let message = format!("device {name:?} of kind \"file\" has no path");
        let help = "give the file or block device behind it";
        this.fault(
            rules,
            Kind::MissingKey,
            "path",
            message,
            "needs the key `path`",
            help,
        );
    }
    if *create && size.is_none() && this.sound(rules, &["size", "create"]) {
        let message = format!("device {name:?} is to be created, but has no size");
        let help = "for example size = \"1GiB\"";
        this.fault(
            rules,
            Kind::MissingKey,
            "create",
            message,
            "needs the key `size`",
            help,
        );
    }
}

/// Kinds that are made at every start.
fn keys_of_made(rules: &mut Rules<'_>, this: &Subject<'_>) {
    let Device {
        name,
        kind,
        path,
        size,
        create,
        ..
    } = this.device;
    let word = kind.as_str();
    let only_file = "only for kind \"file\"";
    if size.is_none() && this.sound(rules, &["size"]) {
        let message = format!("device {name:?} of kind {word:?} has no size");
        let help = "for example size = \"1GiB\"";
        this.fault(
            rules,
            Kind::MissingKey,
            "size",
            message,
            "needs the key `size`",
            help,
        );
    }
    if path.is_some() {
        let message = format!("device {name:?} of kind {word:?} cannot have a path");
        let help = "remove it, or use kind = \"file\"";
        this.fault(rules, Kind::Conflict, "path", message, only_file, help);
    }
    if *create {
        let message = format!("device {name:?} of kind {word:?} cannot be created");
        let help = "remove it: it is made at every start";
        this.fault(rules, Kind::Conflict, "create", message, only_file, help);
    }
}

fn block_size(rules: &mut Rules<'_>, this: &Subject<'_>) {
    let block_size = this.device.block_size();
    if !this.sound(rules, &["block_size"]) {
        return;
    }
    if !matches!(block_size, 512 | 4096) {
        let message = format!("`{}` cannot be {block_size}", this.key("block_size"));
        this.fault(
            rules,
            Kind::OutOfRange,
            "block_size",
            message,
            "allowed: 512, 4096",
            "4096 suits every device that is not 512-only",
        );
        return;
    }
    let Some(size) = this.device.size.filter(|_| this.sound(rules, &["size"])) else {
        return;
    };
    if !size.0.is_multiple_of(u64::from(block_size)) {
        let message = format!("{size} is not a whole number of blocks of {block_size} bytes");
        let help = format!(
            "the next smaller size that is: {} bytes",
            size.0 / u64::from(block_size) * u64::from(block_size)
        );
        this.fault(rules, Kind::BadValue, "size", message, "not aligned", &help);
    }
}

/// How many targets share this device, if that is settled.
fn sharers(rules: &Rules<'_>) -> Option<u32> {
    let settled = rules.sound(&["device", "engine.targets"]);
    rules
        .config
        .placements()
        .first()
        .filter(|_| settled)
        .map(|placement| placement.slices)
}

fn room(rules: &mut Rules<'_>, this: &Subject<'_>) {
    let Some(size) = this.device.size.filter(|_| this.sound(rules, &["size"])) else {
        return;
    };
    let Some(slices) = sharers(rules) else { return };
    let least = MIN_TARGET_SIZE.0 * u64::from(slices);
    if size.0 >= least {
        return;
    }
    let message = format!(
        "{size} is too small for {} on the device",
        count(slices, "target")
    );
    let help = format!(
        "each needs at least {MIN_TARGET_SIZE}: {}MiB or more",
        least >> 20
    );
    this.fault(rules, Kind::OutOfRange, "size", message, "too small", &help);
}

fn duplicates(rules: &mut Rules<'_>, this: &Subject<'_>, devices: &[Device]) {
    let Subject { number, device } = *this;
    let earlier = &devices[..number];
    if this.sound(rules, &["name"])
        && let Some(first) = earlier.iter().position(|other| other.name == device.name)
    {
        rules.report(Fault {
            kind: Kind::Conflict,
            key: &this.key("name"),
            message: format!("two devices are called {:?}", device.name),
            label: "used again",
            help: "a name stands for one device: choose another".into(),
            also: Some((&format!("device[{first}].name"), "first used here")),
        });
    }
    nvme::duplicates(rules, this, earlier);
    spdk::duplicates(rules, this, earlier);
    let Some(path) = &device.path else { return };
    let same = |other: &Device| {
        other
            .path
            .as_ref()
            .is_some_and(|other| same_file(other, path, rules.machine))
    };
    if let Some(first) = earlier.iter().position(same) {
        rules.report(Fault {
            kind: Kind::Conflict,
            key: &this.key("path"),
            message: format!("two devices are the same file, {}", path.display()),
            label: "used again",
            help: "two devices on one file would overwrite each other".into(),
            also: Some((&format!("device[{first}].path"), "first used here")),
        });
    }
}

fn same_file(a: &Path, b: &Path, machine: Option<&Machine>) -> bool {
    let inode = |path| {
        machine
            .and_then(|machine| machine.at(path))
            .map(|info| info.id)
    };
    plain(a) == plain(b) || inode(a).is_some_and(|id| inode(b) == Some(id))
}

/// The path without `.` and repeated slashes. `..` stays: what it leads to depends on links.
fn plain(path: &Path) -> PathBuf {
    path.components()
        .filter(|part| *part != Component::CurDir)
        .collect()
}

fn on_machine(rules: &mut Rules<'_>, this: &Subject<'_>) {
    let Some(machine) = rules
        .machine
        .filter(|_| this.sound(rules, &["kind", "path", "size", "create"]))
    else {
        return;
    };
    if this.device.kind == DeviceKind::Nvme {
        return nvme::on_machine(rules, this, machine);
    }
    let Some(path) = this
        .device
        .path
        .as_ref()
        .filter(|_| this.device.kind == DeviceKind::File)
    else {
        return;
    };
    let shown = path.display();
    match machine.at(path) {
        None if !this.device.create => {
            let message = format!("{shown} is not there");
            this.fault(
                rules,
                Kind::Machine,
                "path",
                message,
                "no such file",
                "check the path, or set `create = true` and a size",
            );
        }
        None => {
            let directory = path.parent().unwrap_or(Path::new(""));
            if !machine.is_directory(directory)
                && !super::files::made_at_start(directory, rules.config)
            {
                let message = format!(
                    "{shown} cannot be created: {} is not a directory",
                    directory.display()
                );
                let help = format!("create it: mkdir -p {}", directory.display());
                this.fault(
                    rules,
                    Kind::Machine,
                    "path",
                    message,
                    "no such directory",
                    &help,
                );
            }
        }
        Some(info) if info.kind == PathKind::File => length(rules, this, info.len),
        Some(info) if info.kind == PathKind::BlockDevice => {}
        Some(_) => {
            let message = format!("{shown} is neither a file nor a block device");
            this.fault(
                rules,
                Kind::Machine,
                "path",
                message,
                "not usable",
                "give a regular file or a block device such as /dev/nvme0n1",
            );
        }
    }
}

/// A file that is there is never made longer or shorter.
fn length(rules: &mut Rules<'_>, this: &Subject<'_>, len: u64) {
    let Device { path, size, .. } = this.device;
    let shown = path.as_deref().unwrap_or(Path::new("")).display();
    if let Some(size) = size.filter(|size| size.0 != len) {
        let message = format!("{shown} has {len} bytes, not {size}");
        this.fault(
            rules,
            Kind::Machine,
            "size",
            message,
            "not the size of the file",
            "leave `size` out to use the file as it is",
        );
        return;
    }
    let block = u64::from(this.device.block_size());
    if this.sound(rules, &["block_size"]) && block != 0 && !len.is_multiple_of(block) {
        let message =
            format!("{shown} has {len} bytes, which is not a whole number of blocks of {block}");
        let help = "is it really a device of this engine? A new file is made with `create = true`";
        this.fault(rules, Kind::Machine, "path", message, "not aligned", help);
        return;
    }
    let Some(slices) = sharers(rules) else { return };
    let least = MIN_TARGET_SIZE.0 * u64::from(slices);
    if size.is_none() && len < least {
        let message = format!(
            "{shown} has {len} bytes, too small for {} on it",
            count(slices, "target")
        );
        let help = format!("each target needs at least {MIN_TARGET_SIZE}");
        this.fault(rules, Kind::Machine, "path", message, "too small", &help);
    }
}

fn every_target_has_one(rules: &mut Rules<'_>, devices: &[Device]) {
    if !rules.sound(&["device", "engine.targets"]) {
        return;
    }
    let (targets, devices_nr) = (rules.config.engine.targets, devices.len() as u32);
    let (asked, given) = (count(targets, "target"), count(devices_nr, "device"));
    let mut fault = Fault {
        kind: Kind::Conflict,
        key: "engine.targets",
        message: String::new(),
        label: "",
        help: String::new(),
        also: None,
    };
    if devices_nr == 0 {
        fault.key = "device";
        fault.message = format!("there is no device for {asked}");
        fault.help = "add a [[device]]; config/examples/minimal.toml shows the smallest one".into();
    } else if devices_nr > targets {
        let unused = &devices[targets as usize].name;
        fault.message = format!("{given} for {asked}: device {unused:?} would be used by none");
        fault.label = "fewer than devices";
        fault.help = format!("set `targets = {devices_nr}`, or remove devices");
    } else if !targets.is_multiple_of(devices_nr) {
        let below = targets / devices_nr * devices_nr;
        fault.message = format!("{asked} cannot share {given} evenly");
        fault.label = "not a multiple of the devices";
        fault.help = format!(
            "each device serves equally many: use {below} or {} targets",
            below + devices_nr
        );
    } else {
        return;
    }
    rules.report(fault);
}
