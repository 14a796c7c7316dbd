//! Provider, targets, helpers and cores.

use super::{Fault, Rules};
use crate::error::Kind;

pub(super) fn check(rules: &mut Rules<'_>) {
    helpers(rules);
    placement(rules);
    provider(rules);
    numa_node(rules);
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
        message: format!("{helpers} helpers are too many for {targets} targets"),
        label: "at most two for each target",
        help: format!(
            "allowed: 0 to {}; a multiple of {targets} gives each target its own",
            2 * targets
        ),
        also: None,
    });
}

fn placement(rules: &mut Rules<'_>) {
    let engine = &rules.config.engine;
    if !rules.sound(&["engine.first_core", "engine.numa_node"])
        || engine.numa_node.is_none()
        || engine.first_core.unwrap_or(0) == 0
    {
        return;
    }
    rules.report(Fault {
        kind: Kind::Conflict,
        key: "engine.first_core",
        message: "`engine.first_core` and `engine.numa_node` are both given".into(),
        label: "counts all cores",
        help: "keep one of them: `numa_node` starts at the first core of its node".into(),
        also: Some(("engine.numa_node", "counts the cores of one node")),
    });
}

fn provider(rules: &mut Rules<'_>) {
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
    rules.report(Fault {
        kind: Kind::Machine,
        key: "provider",
        message: format!(
            "provider {:?} is not built into this engine",
            provider.as_str()
        ),
        label: "not in this build",
        help: format!("built in: {}", built.join(", ")),
        also: None,
    });
}

fn numa_node(rules: &mut Rules<'_>) {
    let Some((machine, node)) = rules.machine.zip(rules.config.engine.numa_node) else {
        return;
    };
    if machine.numa_nodes.contains_key(&node) {
        return;
    }
    let there: Vec<String> = machine.numa_nodes.keys().map(u32::to_string).collect();
    rules.report(Fault {
        kind: Kind::Machine,
        key: "engine.numa_node",
        message: format!("there is no NUMA node {node} that this engine may use"),
        label: "not on this machine",
        help: format!("nodes with usable cores: {}", there.join(", ")),
        also: None,
    });
}

/// One xstream a core: the system xstream, the main ones, the helpers.
fn cores(rules: &mut Rules<'_>) {
    let keys = [
        "engine.targets",
        "engine.helpers",
        "engine.first_core",
        "engine.numa_node",
        "engine.oversubscribe",
    ];
    let Some(machine) = rules.machine.filter(|_| rules.sound(&keys)) else {
        return;
    };
    let engine = &rules.config.engine;
    let (all, whose) = match engine.numa_node {
        Some(node) => match machine.numa_nodes.get(&node) {
            Some(cores) => (*cores, format!("NUMA node {node}")),
            None => return,
        },
        None => (machine.cores, "this machine".to_owned()),
    };
    let first = engine.first_core.unwrap_or(0);
    if first >= all {
        rules.report(Fault {
            kind: Kind::Machine,
            key: "engine.first_core",
            message: format!("no core is left after the first {first}: {whose} has {all}"),
            label: "leaves none",
            help: format!("allowed here: 0 to {}", all.saturating_sub(1)),
            also: None,
        });
        return;
    }
    let (needed, usable) = (1 + engine.targets + engine.helpers, all - first);
    if needed <= usable || engine.oversubscribe {
        return;
    }
    let most = usable.saturating_sub(1 + engine.helpers);
    let fit = match most {
        0 => "use fewer helpers".to_owned(),
        most => format!("use at most {most} targets with {} helpers", engine.helpers),
    };
    let (targets, helpers) = (engine.targets, engine.helpers);
    rules.report(Fault {
        kind: Kind::Machine,
        key: "engine.targets",
        message: format!(
            "{needed} cores are needed (1 system + {targets} targets + {helpers} helpers), {whose} offers {usable}"
        ),
        label: "more xstreams than cores",
        help: format!("{fit}, or set `oversubscribe = true` to share cores (for development)"),
        also: None,
    });
}
