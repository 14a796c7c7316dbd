//! What is not as fast, or as steady, as it could be.

use std::collections::{BTreeMap, BTreeSet};

use drpc_wire::keel;
use engine_xstream::{Role, XstreamSpec};
use spdk_env::cpu::{Interrupt, format_list};

use crate::plan::Plan;

/// Severity of what costs performance.
pub const WARNING: &str = "warning";
/// Severity of what a storage node would have otherwise and a development machine need not.
pub const NOTE: &str = "note";
/// Most interrupts named in one warning.
const MOST_NAMED: usize = 4;

pub(crate) fn warnings(plan: &Plan) -> Vec<keel::TopologyWarning> {
    let mut found = Vec::new();
    shared_cpus(plan, &mut found);
    shared_cores(plan, &mut found);
    far_devices(plan, &mut found);
    memory(plan, &mut found);
    quota(plan, &mut found);
    isolation(plan, &mut found);
    for note in plan.layout.notes() {
        // What is said above with names and a cure is not said again.
        let said = ["over-subscribed", "target "];
        if !said.iter().any(|start| note.starts_with(start)) {
            found.push(warning(NOTE, "layout", note.clone(), ""));
        }
    }
    found
}

fn warning(
    severity: &str,
    kind: &str,
    text: String,
    cure: impl Into<String>,
) -> keel::TopologyWarning {
    keel::TopologyWarning {
        severity: severity.to_owned(),
        kind: kind.to_owned(),
        text,
        cure: cure.into(),
    }
}

fn by_cpu(plan: &Plan) -> BTreeMap<usize, Vec<&XstreamSpec>> {
    let mut cpus: BTreeMap<usize, Vec<&XstreamSpec>> = BTreeMap::new();
    for xs in plan.layout.xstreams() {
        cpus.entry(xs.cpu).or_default().push(xs);
    }
    cpus
}

fn names<'a>(xstreams: impl IntoIterator<Item = &'a XstreamSpec>) -> String {
    let names: Vec<String> = xstreams.into_iter().map(XstreamSpec::name).collect();
    names.join(", ")
}

fn shared_cpus(plan: &Plan, found: &mut Vec<keel::TopologyWarning>) {
    for (cpu, xstreams) in by_cpu(plan) {
        if xstreams.len() < 2 {
            continue;
        }
        let system = xstreams.iter().any(|xs| xs.role == Role::System);
        let kind = if system {
            "system_shares_core"
        } else {
            "shared_core"
        };
        let text = format!("CPU {cpu} is shared by {}", names(xstreams));
        let cure = "give the engine a core for each xstream, or use fewer targets and helpers";
        found.push(warning(WARNING, kind, text, cure));
    }
}

/// Hyper-threads of one core, both in use, at least one of them by a main.
fn shared_cores(plan: &Plan, found: &mut Vec<keel::TopologyWarning>) {
    let mut cores: BTreeMap<usize, Vec<(usize, Vec<&XstreamSpec>)>> = BTreeMap::new();
    for (cpu, xstreams) in by_cpu(plan) {
        let core = plan.topology.first_of_core(cpu).unwrap_or(cpu);
        cores.entry(core).or_default().push((cpu, xstreams));
    }
    for threads in cores.values().filter(|threads| threads.len() > 1) {
        let all = || {
            threads
                .iter()
                .flat_map(|(_, xstreams)| xstreams.iter().copied())
        };
        if !all().any(|xs| xs.role == Role::Main) {
            continue;
        }
        let cpus = format_list(threads.iter().map(|(cpu, _)| *cpu));
        let text = format!(
            "CPUs {cpus} are hyper-threads of one core, which {} share",
            names(all())
        );
        let cure = "give each main a physical core of its own: fewer targets, or other CPUs in engine.cpus";
        found.push(warning(WARNING, "smt_shared", text, cure));
    }
}

fn far_devices(plan: &Plan, found: &mut Vec<keel::TopologyWarning>) {
    for xs in plan.layout.xstreams() {
        let (Role::Main, Some(target)) = (xs.role, xs.target) else {
            continue;
        };
        let Some(device) = plan.device_of(target) else {
            continue;
        };
        let Some(node) = device.node().filter(|node| *node != xs.node) else {
            continue;
        };
        let text = format!(
            "target {target} on CPU {} (NUMA node {}) is far from its device {} (node {node}): distance {}",
            xs.cpu,
            xs.node,
            device.name,
            plan.topology.distance(xs.node, node)
        );
        let cure =
            format!("leave cores of node {node} to the engine, or move targets to other devices");
        found.push(warning(WARNING, "far_from_device", text, cure));
    }
}

fn memory(plan: &Plan, found: &mut Vec<keel::TopologyWarning>) {
    let used: BTreeSet<usize> = plan.layout.xstreams().iter().map(|xs| xs.node).collect();
    let nodes = || {
        plan.topology
            .nodes
            .iter()
            .filter(|node| used.contains(&node.id))
    };
    for node in nodes().filter(|node| node.memory_kib == 0) {
        let text = format!(
            "NUMA node {} runs xstreams and has no memory: all of theirs is remote",
            node.id
        );
        let cure = "use cores of a node with memory: engine.numa_node or engine.cpus";
        found.push(warning(WARNING, "memory_remote", text, cure));
    }
    let huge = |node: &spdk_env::cpu::Node| node.hugepages.iter().any(|pages| pages.total > 0);
    if !plan.topology.nodes.iter().any(huge) {
        return;
    }
    for node in nodes().filter(|node| !huge(node)) {
        let text = format!(
            "all huge pages are on other nodes than NUMA node {}, which runs xstreams",
            node.id
        );
        let cure = format!(
            "allocate some there: /sys/devices/system/node/node{}/hugepages/",
            node.id
        );
        found.push(warning(WARNING, "memory_one_node", text, cure));
    }
}

fn quota(plan: &Plan, found: &mut Vec<keel::TopologyWarning>) {
    let Some(quota) = &plan.topology.quota else {
        return;
    };
    let (cpus, time) = (plan.layout.cpus().len() as u64, quota.milli_cpus());
    if time >= cpus * 1000 {
        return;
    }
    let text = format!(
        "cgroup {} leaves the time of {}.{:02} CPUs for {cpus} reactors: the kernel stops them when it is used up",
        quota.cgroup,
        time / 1000,
        time % 1000 / 10
    );
    let cure = "raise the quota (systemd: CPUQuota=; containers: cpu limit), or let idle cores sleep: engine.idle_latency_us";
    found.push(warning(WARNING, "cpu_quota", text, cure));
}

fn isolation(plan: &Plan, found: &mut Vec<keel::TopologyWarning>) {
    let isolated = |cpu: usize| plan.topology.get(cpu).is_some_and(|cpu| cpu.isolated);
    let mains = plan
        .layout
        .xstreams()
        .iter()
        .filter(|xs| xs.role == Role::Main);
    let exposed: BTreeSet<usize> = mains
        .map(|xs| xs.cpu)
        .filter(|cpu| !isolated(*cpu))
        .collect();
    if !exposed.is_empty() {
        let list = format_list(exposed);
        let text =
            format!("CPUs {list} run targets and are not isolated: other processes run there too");
        let cure = format!(
            "boot with isolcpus={list} nohz_full={list} rcu_nocbs={list}, or keep services off them (systemd: CPUAffinity=)"
        );
        found.push(warning(NOTE, "not_isolated", text, cure));
    }
    let used = plan.layout.cpus();
    let idle = plan
        .topology
        .cpus
        .iter()
        .filter(|cpu| cpu.isolated && !used.contains(&cpu.id));
    let idle: Vec<usize> = idle.map(|cpu| cpu.id).collect();
    if !idle.is_empty() {
        let text = format!(
            "CPUs {} are isolated and this engine does not use them",
            format_list(idle)
        );
        found.push(warning(NOTE, "isolated_unused", text, ""));
    }
}

/// Adds which interrupts arrive on the CPUs, and warns of those that arrive where xstreams run.
pub fn add_interrupts(report: &mut keel::Topology, interrupts: &[Interrupt]) {
    let mut found = Vec::new();
    for cpu in &mut report.cpus {
        // One that has never come is no nuisance.
        let here = interrupts
            .iter()
            .filter(|irq| irq.count > 0 && irq.cpus == [cpu.id as usize]);
        cpu.interrupts = here
            .map(|irq| format!("{} ({})", irq.name, irq.irq))
            .collect();
        let xstreams = report.xstreams.iter().filter(|xs| xs.cpu == cpu.id);
        let xstreams: Vec<&str> = xstreams.map(|xs| xs.name.as_str()).collect();
        if xstreams.is_empty() || cpu.interrupts.is_empty() {
            continue;
        }
        let count = cpu.interrupts.len();
        let mut named = cpu.interrupts[..count.min(MOST_NAMED)].join(", ");
        if count > MOST_NAMED {
            named.push_str(&format!(" and {} more", count - MOST_NAMED));
        }
        let plural = if count == 1 { "arrives" } else { "arrive" };
        let text = format!(
            "{named} {plural} on CPU {}, the CPU of {}",
            cpu.id,
            xstreams.join(", ")
        );
        let cure = "move them: /proc/irq/NUMBER/smp_affinity_list, irqaffinity= on the kernel's command line, or IRQBALANCE_BANNED_CPULIST";
        found.push(warning(NOTE, "interrupts", text, cure));
    }
    report.warnings.extend(found);
}
