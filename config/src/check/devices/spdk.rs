//! Keys of kind `spdk`: the name of a block device that SPDK makes, and nothing that SPDK decides by itself.

use super::Subject;
use crate::Provider;
use crate::check::{Fault, Rules};
use crate::device::{Device, DeviceKind};
use crate::error::Kind;

pub(super) fn keys(rules: &mut Rules<'_>, this: &Subject<'_>) {
    let Device {
        name,
        bdev,
        path,
        size,
        create,
        block_size,
        ..
    } = this.device;
    if this.sound(rules, &["bdev"]) && bdev.as_ref().is_none_or(String::is_empty) {
        let message = format!("device {name:?} of kind \"spdk\" names no block device of SPDK's");
        let label = "needs the key `bdev`";
        let help =
            "for example bdev = \"Malloc0\", which SPDK's JSON configuration (`spdk.json`) makes";
        this.fault(rules, Kind::MissingKey, "bdev", message, label, help);
    }
    for (is_there, key, what) in [
        (path.is_some(), "path", "have a path"),
        (size.is_some(), "size", "have a size"),
        (*create, "create", "be created"),
        (block_size.is_some(), "block_size", "have a block size"),
    ] {
        if is_there {
            let message = format!("device {name:?} of kind \"spdk\" cannot {what}");
            let help = "remove it: SPDK's JSON configuration says what the device is";
            let label = "only for other kinds";
            this.fault(rules, Kind::Conflict, key, message, label, help);
        }
    }
    if rules.config.provider == Provider::Native && rules.sound(&["provider"]) {
        rules.report(Fault {
            kind: Kind::Conflict,
            key: &this.key("kind"),
            message: format!("device {name:?} is one of SPDK's, and the engine runs without"),
            label: "needs provider = \"libspdk\"",
            help: "set `provider = \"libspdk\"` above all sections, or use another kind".into(),
            also: None,
        });
    }
}

/// What only this kind has.
pub(super) fn keys_of_others(rules: &mut Rules<'_>, this: &Subject<'_>) {
    let Device {
        name, kind, bdev, ..
    } = this.device;
    if bdev.is_some() && *kind != DeviceKind::Spdk {
        let word = kind.as_str();
        let message =
            format!("device {name:?} of kind {word:?} cannot have a block device of SPDK's");
        let help = "remove it, or use kind = \"spdk\"";
        let label = "only for kind \"spdk\"";
        this.fault(rules, Kind::Conflict, "bdev", message, label, help);
    }
}

pub(super) fn duplicates(rules: &mut Rules<'_>, this: &Subject<'_>, earlier: &[Device]) {
    let Some(bdev) = &this.device.bdev else {
        return;
    };
    if let Some(first) = earlier
        .iter()
        .position(|other| other.bdev.as_ref() == Some(bdev))
    {
        rules.report(Fault {
            kind: Kind::Conflict,
            key: &this.key("bdev"),
            message: format!("two devices are SPDK's {bdev}"),
            label: "used again",
            help: "two devices on one block device would overwrite each other".into(),
            also: Some((&format!("device[{first}].bdev"), "first used here")),
        });
    }
}
