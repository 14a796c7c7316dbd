//! Targets, helpers and cores.

use super::{Fault, Rules, count};
use crate::error::Kind;
use crate::{CpuList, UnusableCpu};

pub(super) fn check(rules: &mut Rules<'_>) {
    helpers(rules);
    numa_node(rules);
    list(rules);
    cores(rules);
}

fn helpers(rules: &mut Rules<'_>) {
    let engine = &rules.config.engine;
    if !rules.sound(&["engine.helpers", "engine.targets"]) || engine.helpers <= 2 * engine.targets {
        return;
    }
    let (helpers, targets) = (engine.helpers, engine.targets);
    rules.report(Fault {
        kind: Kind::Conflict,
        key: "engine.helpers",
        message: format!(
            "{helpers} helpers are too many for {}",
            count(targets, "target")
        ),
        label: "at most two for each target",
        help: format!(
            "allowed: 0 to {}; a multiple of {targets} gives each target its own",
            2 * targets
        ),
        also: None,
    });
}

fn numa_node(rules: &mut Rules<'_>) {
    let Some((machine, node)) = rules.machine.zip(rules.config.engine.numa_node) else {
        return;
    };
    if machine.numa_nodes().contains(&node) {
        return;
    }
    let there: Vec<String> = machine.numa_nodes().iter().map(u32::to_string).collect();
    rules.report(Fault {
        kind: Kind::Machine,
        key: "engine.numa_node",
        message: format!("there is no NUMA node {node} that this engine may use"),
        label: "not on this machine",
        help: format!("nodes with usable cores: {}", there.join(", ")),
        also: None,
    });
}

/// CPUs by name: alone, and each of them there and allowed.
fn list(rules: &mut Rules<'_>) {
    if !rules.sound(&["engine.cpus"]) {
        return;
    }
    let engine = &rules.config.engine;
    let Some(list) = engine.cpus.clone() else {
        return;
    };
    let others = [
        ("engine.first_core", engine.first_core.is_some()),
        ("engine.numa_node", engine.numa_node.is_some()),
    ];
    for (key, _) in others.into_iter().filter(|(_, given)| *given) {
        let name = key.trim_start_matches("engine.");
        rules.report(Fault {
            kind: Kind::Conflict,
            key,
            message: format!("`{name}` and `cpus` do not go together"),
            label: "says which cores as well",
            help: format!("remove `{name}`: the list says exactly which CPUs are used"),
            also: Some(("engine.cpus", "the list")),
        });
    }
    let Some(machine) = rules.machine else {
        return;
    };
    let wrong = list
        .as_slice()
        .iter()
        .filter(|cpu| !machine.cpus.contains_key(cpu));
    for cpu in wrong {
        let (why, cure) = match machine.unusable.get(cpu) {
            Some(UnusableCpu { why, cure }) => (why.clone(), cure.clone()),
            None => {
                let there = machine.cpus.keys().chain(machine.unusable.keys());
                let there = CpuList::text_of(there.copied());
                (
                    format!("this machine has CPUs {there}"),
                    "name CPUs that are there".into(),
                )
            }
        };
        rules.report(Fault {
            kind: Kind::Machine,
            key: "engine.cpus",
            message: format!("CPU {cpu} cannot be used: {why}"),
            label: "names it",
            help: cure,
            also: None,
        });
    }
}

/// One xstream a core: the system xstream, the main ones, the helpers.
fn cores(rules: &mut Rules<'_>) {
    let keys = [
        "engine.targets",
        "engine.helpers",
        "engine.first_core",
        "engine.numa_node",
        "engine.cpus",
        "engine.oversubscribe",
    ];
    let Some(machine) = rules.machine.filter(|_| rules.sound(&keys)) else {
        return;
    };
    let engine = &rules.config.engine;
    let (all, whose) = match (&engine.cpus, engine.numa_node) {
        (Some(list), _) => (list.as_slice().len() as u32, format!("`cpus = \"{list}\"`")),
        (None, Some(node)) => (machine.cores(Some(node)), format!("NUMA node {node}")),
        (None, None) => (machine.cores(None), "this machine".to_owned()),
    };
    if all == 0 {
        return; // no such node: said already
    }
    let first = engine.first_core.unwrap_or(0);
    if first >= all {
        rules.report(Fault {
            kind: Kind::Machine,
            key: "engine.first_core",
            message: format!("there is no core {first}: {whose} has {all}, numbered from 0"),
            label: "no such core",
            help: format!("allowed here: 0 to {}", all.saturating_sub(1)),
            also: None,
        });
        return;
    }
    // Without a node the cores before the first one are taken last; on a node they stay free.
    let usable = if engine.numa_node.is_some() {
        all - first
    } else {
        all
    };
    let needed = 1 + engine.targets + engine.helpers;
    if needed <= usable || engine.oversubscribe {
        return;
    }
    let helpers = count(engine.helpers, "helper");
    let fit = match usable.saturating_sub(1 + engine.helpers) {
        0 => "use fewer helpers".to_owned(),
        most => format!("use at most {} with {helpers}", count(most, "target")),
    };
    let targets = count(engine.targets, "target");
    rules.report(Fault {
        kind: Kind::Machine,
        key: "engine.targets",
        message: format!(
            "{needed} cores are needed (1 system + {targets} + {helpers}), {whose} offers {usable}"
        ),
        label: "more xstreams than cores",
        help: format!("{fit}, or set `oversubscribe = true` to share cores (for development)"),
        also: None,
    });
}
