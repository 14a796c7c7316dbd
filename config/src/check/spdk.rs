//! `provider = "libspdk"` and what belongs to it.

use super::{Fault, Rules};
use crate::error::Kind;
use crate::machine::PathKind;
use crate::{DeviceKind, Hugepages, Provider, Spdk};

/// What an engine with C SPDK is built with.
const BUILD: &str =
    "SPDK_DIR=/path/to/spdk cargo build --release -p engine --features engine/libspdk";

pub(super) fn check(rules: &mut Rules<'_>) {
    built_in(rules);
    if !rules.sound(&["provider"]) {
        return;
    }
    match rules.config.provider {
        Provider::Native => unread(rules),
        Provider::Libspdk => {
            pages(rules);
            interrupts(rules);
            json(rules);
            nvme(rules);
        }
    }
}

fn built_in(rules: &mut Rules<'_>) {
    let provider = rules.config.provider;
    let Some(machine) = rules
        .machine
        .filter(|machine| !machine.providers.contains(&provider))
    else {
        return;
    };
    let built: Vec<String> = machine
        .providers
        .iter()
        .map(|provider| format!("{:?}", provider.as_str()))
        .collect();
    let how = match provider {
        Provider::Libspdk => format!(
            "; for this one build SPDK 26.x (./configure && make), then the engine with it: {BUILD} (docs/operating/spdk.md has the steps)"
        ),
        Provider::Native => String::new(),
    };
    rules.report(Fault {
        kind: Kind::Machine,
        key: "provider",
        message: format!(
            "provider {:?} is not built into this engine",
            provider.as_str()
        ),
        label: "not in this build",
        help: format!("built in: {}{how}", built.join(", ")),
        also: None,
    });
}

/// Nobody reads the section without SPDK.
fn unread(rules: &mut Rules<'_>) {
    if rules.config.spdk == Spdk::default() {
        return;
    }
    rules.report(Fault {
        kind: Kind::Conflict,
        key: "spdk",
        message: "[spdk] is for provider = \"libspdk\" only".to_owned(),
        label: "nobody reads it",
        help: "remove it, or set `provider = \"libspdk\"` above all sections".into(),
        also: None,
    });
}

/// Without huge pages memory may move, and an SSD would not notice.
fn pages(rules: &mut Rules<'_>) {
    let config = rules.config;
    if config.spdk.pci_allowed.is_empty() {
        return;
    }
    for (without, key, line) in [
        (
            !config.spdk.hugepages,
            "spdk.hugepages",
            "hugepages = false",
        ),
        (
            config.engine.hugepages == Hugepages::Off,
            "engine.hugepages",
            "hugepages = \"off\"",
        ),
    ] {
        if without && rules.sound(&["spdk.pci_allowed", key]) {
            rules.report(Fault {
                kind: Kind::Conflict,
                key: "spdk.pci_allowed",
                message: "PCI devices cannot be used without huge pages: memory that they reach must stay where it is".to_owned(),
                label: "needs huge pages",
                help: format!("remove `{line}`, or the addresses"),
                also: Some((key, "ordinary pages are asked for here")),
            });
        }
    }
}

/// Who never sleeps needs no interrupts, and would pay for them.
fn interrupts(rules: &mut Rules<'_>) {
    let config = rules.config;
    let keys = ["spdk.interrupt_mode", "engine.idle_latency_us"];
    if !config.spdk.interrupt_mode || config.engine.idle_latency_us != 0 || !rules.sound(&keys) {
        return;
    }
    rules.report(Fault {
        kind: Kind::Conflict,
        key: keys[0],
        message: "interrupts are of no use to reactors that always poll, and cost system calls"
            .to_owned(),
        label: "nobody sleeps",
        help: "remove it, or give `engine.idle_latency_us` a latency that is good enough".into(),
        also: Some((keys[1], "0: polls always")),
    });
}

fn json(rules: &mut Rules<'_>) {
    let Some((machine, path)) = rules.machine.zip(rules.config.spdk.json.as_ref()) else {
        return;
    };
    let shown = path.display();
    let (message, label) = match machine.at(path) {
        Some(info) if info.kind == PathKind::File => return,
        Some(_) => (format!("{shown} is not a file"), "not a file"),
        None => (format!("{shown} is not there"), "no such file"),
    };
    rules.report(Fault {
        kind: Kind::Machine,
        key: "spdk.json",
        message,
        label,
        help: "`scripts/rpc.py save_config` of a running SPDK application writes one".into(),
        also: None,
    });
}

/// The engine's own driver and SPDK's cannot share an SSD, and this provider means SPDK's.
fn nvme(rules: &mut Rules<'_>) {
    let is_nvme = |device: &crate::Device| device.kind == DeviceKind::Nvme;
    let devices = rules.config.device.iter();
    let numbers: Vec<usize> = devices
        .enumerate()
        .filter(|(_, device)| is_nvme(device))
        .map(|(number, _)| number)
        .collect();
    for number in numbers {
        let key = format!("device[{number}].kind");
        if !rules.sound(&[&key]) {
            continue;
        }
        rules.report(Fault {
            kind: Kind::Conflict,
            key: &key,
            message: "devices of kind \"nvme\" are driven by the engine itself, not by SPDK".to_owned(),
            label: "not with provider = \"libspdk\"",
            help: "allow the SSD in `spdk.pci_allowed`, attach it in SPDK's JSON (bdev_nvme_attach_controller), and use kind = \"spdk\" with \
                   the name of its block device"
                .into(),
            also: Some(("provider", "chosen here")),
        });
    }
}
