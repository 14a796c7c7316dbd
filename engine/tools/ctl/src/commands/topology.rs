//! `keel engine topology`: who runs where, drawn.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal;
use std::path::Path;

use drpc_wire::{keel, methods};
use engine_config::Document;
use engine_placement::{Plan, WARNING, add_interrupts};
use spdk_env::cpu::{Host, Topology, format_list, interrupts};

use crate::cli::Cli;
use crate::commands::config::wrong;
use crate::endpoint::Endpoint;
use crate::error::{CliError, Exit};
use crate::output::{bytes, show};

/// Of the running engine, or of the one that a file would start.
pub(crate) fn run(cli: &Cli, config: Option<&Path>, sets: &[String]) -> Result<(), CliError> {
    let mut report = match config {
        Some(path) => planned(cli, path, sets)?,
        None => Endpoint::connect(cli)?.keel(methods::ENGINE_TOPOLOGY, &())?,
    };
    // Interrupts move: as they are now, on the machine that both are on.
    add_interrupts(&mut report, &interrupts(&Host::this()));
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    show(cli.output, &report, |report| {
        draw(report, Paint { colours })
    })
}

fn planned(cli: &Cli, path: &Path, sets: &[String]) -> Result<keel::Topology, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::new(Exit::Failed, error.to_string());
    let topology = Topology::discover().map_err(|error| failed(&error))?;
    let mut document = Document::load(path).map_err(|errors| wrong(cli, &errors))?;
    for set in sets {
        document.apply_set(set);
    }
    // Only what the cores are asked about: modules and directories may be missing where a node is being planned.
    let config = document
        .finish(None)
        .map_err(|errors| wrong(cli, &errors))?;
    let plan = Plan::make(&config, &Host::this(), topology);
    let plan = plan.map_err(|error| CliError::new(Exit::Config, error.to_string()))?;
    Ok(plan.report())
}

/// Colours, if the output is a terminal.
#[derive(Clone, Copy)]
struct Paint {
    colours: bool,
}

impl Paint {
    fn with(self, code: u8, text: &str) -> String {
        match self.colours {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn strong(self, text: &str) -> String {
        self.with(1, text)
    }

    fn warn(self, text: &str) -> String {
        self.with(33, text)
    }

    fn faint(self, text: &str) -> String {
        self.with(2, text)
    }
}

fn draw(report: &keel::Topology, paint: Paint) -> String {
    let mut out = format!(
        "{} on {}, {}\n",
        count(report.xstreams.len(), "xstream"),
        count(used_cpus(report).len(), "CPU"),
        report.placement
    );
    for node in &report.nodes {
        draw_node(&mut out, report, node, paint);
    }
    let lost: Vec<String> = report
        .devices
        .iter()
        .filter(|d| d.node.is_none())
        .map(device)
        .collect();
    if !lost.is_empty() {
        let _ = writeln!(out, "\n{}", paint.strong("Devices of no known node"));
        branches(&mut out, &lost);
    }
    for warning in &report.warnings {
        let severe = warning.severity == WARNING;
        let head = format!("{}:", warning.severity);
        let head = if severe {
            paint.warn(&head)
        } else {
            paint.faint(&head)
        };
        let _ = writeln!(out, "\n{head} {}", warning.text);
        if !warning.cure.is_empty() {
            let _ = writeln!(out, "  cure: {}", warning.cure);
        }
    }
    out
}

fn draw_node(out: &mut String, report: &keel::Topology, node: &keel::TopologyNode, paint: Paint) {
    let mut head = format!("NUMA node {}", node.id);
    head = paint.strong(&head);
    if node.memory_bytes > 0 {
        let _ = write!(
            head,
            "  {} ({} free)",
            bytes(node.memory_bytes),
            bytes(node.free_bytes)
        );
    }
    if node.hugepage_bytes > 0 {
        let _ = write!(head, ", {} in huge pages", bytes(node.hugepage_bytes));
    }
    let others = node.distances.iter().filter(|other| other.node != node.id);
    let others: Vec<String> = others
        .map(|o| format!("{} to node {}", o.distance, o.node))
        .collect();
    if !others.is_empty() {
        let _ = write!(head, "; distance {}", others.join(", "));
    }
    let _ = writeln!(out, "\n{head}");
    let here = report
        .devices
        .iter()
        .filter(|device| device.node == Some(node.id));
    let mut lines: Vec<String> = here.map(device).collect();
    lines.extend(cores(report, node.id, paint));
    branches(out, &lines);
}

/// The physical cores of a node with xstreams on them, then what is left.
fn cores(report: &keel::Topology, node: u32, paint: Paint) -> Vec<String> {
    let mut cores: BTreeMap<u32, Vec<&keel::TopologyCpu>> = BTreeMap::new();
    for cpu in report.cpus.iter().filter(|cpu| cpu.node == node) {
        cores.entry(cpu.core).or_default().push(cpu);
    }
    let used = used_cpus(report);
    let (mut lines, mut unused) = (Vec::new(), Vec::new());
    for cpus in cores.into_values() {
        if !cpus.iter().any(|cpu| used.contains_key(&cpu.id)) {
            unused.extend(cpus.iter().map(|cpu| cpu.id as usize));
            continue;
        }
        let threads: Vec<String> = cpus
            .iter()
            .map(|cpu| thread(report, cpu, &used, paint))
            .collect();
        lines.push(format!("core  {}", threads.join(" | ")));
    }
    if !unused.is_empty() {
        let text = format!("CPUs {} without xstreams", format_list(unused));
        lines.push(paint.faint(&text));
    }
    lines
}

fn thread(
    report: &keel::Topology,
    cpu: &keel::TopologyCpu,
    used: &BTreeMap<u32, Vec<&keel::TopologyXstream>>,
    paint: Paint,
) -> String {
    let mut text = format!("CPU {}", cpu.id);
    if cpu.isolated {
        text.push_str(" isolated");
    }
    let Some(xstreams) = used.get(&cpu.id) else {
        return paint.faint(&text);
    };
    let named = xstreams.iter().map(|xs| {
        let target = xs.target.filter(|_| xs.role == "main");
        let device = target.and_then(|target| {
            report
                .devices
                .iter()
                .find(|device| device.targets.contains(&target))
        });
        match device {
            Some(device) => format!("{} - {}", paint.strong(&xs.name), device.name),
            None => paint.strong(&xs.name),
        }
    });
    let _ = write!(text, ": {}", named.collect::<Vec<_>>().join(", "));
    text
}

/// `disk0: nvme0n1 at 0000:3b:00.0, targets 0-3`.
fn device(device: &keel::TopologyDevice) -> String {
    let mut text = format!("{}: ", device.name);
    text.push_str(match device.disk.as_str() {
        "" => &device.kind,
        disk => disk,
    });
    if !device.pci.is_empty() {
        let _ = write!(text, " at {}", device.pci);
    }
    let targets = format_list(device.targets.iter().map(|target| *target as usize));
    let _ = write!(text, ", targets {targets}");
    text
}

fn branches(out: &mut String, lines: &[String]) {
    for (at, line) in lines.iter().enumerate() {
        let joint = if at + 1 < lines.len() {
            "├─"
        } else {
            "└─"
        };
        let _ = writeln!(out, "{joint} {line}");
    }
}

fn used_cpus(report: &keel::Topology) -> BTreeMap<u32, Vec<&keel::TopologyXstream>> {
    let mut used: BTreeMap<u32, Vec<&keel::TopologyXstream>> = BTreeMap::new();
    for xs in &report.xstreams {
        used.entry(xs.cpu).or_default().push(xs);
    }
    used
}

fn count(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(id: u32, node: u32, core: u32, isolated: bool) -> keel::TopologyCpu {
        keel::TopologyCpu {
            id,
            node,
            package: node,
            core,
            isolated,
            interrupts: Vec::new(),
        }
    }

    fn xstream(id: u32, name: &str, target: Option<u32>, cpu: u32) -> keel::TopologyXstream {
        let role = target.map_or("system", |_| "main");
        keel::TopologyXstream {
            id,
            name: name.to_owned(),
            role: role.to_owned(),
            target,
            cpu,
            node: u32::from(id > 0),
        }
    }

    fn node(id: u32, other: u32) -> keel::TopologyNode {
        let to = |node, distance| keel::TopologyDistance { node, distance };
        keel::TopologyNode {
            id,
            memory_bytes: 64 << 30,
            free_bytes: 32 << 30,
            hugepage_bytes: u64::from(id == 0) << 30,
            distances: vec![to(id, 10), to(other, 21)],
            ..keel::TopologyNode::default()
        }
    }

    fn device(
        name: &str,
        disk: &str,
        pci: &str,
        node: Option<u32>,
        target: u32,
    ) -> keel::TopologyDevice {
        keel::TopologyDevice {
            name: name.to_owned(),
            kind: "malloc".to_owned(),
            disk: disk.to_owned(),
            pci: pci.to_owned(),
            node,
            targets: vec![target],
            ..keel::TopologyDevice::default()
        }
    }

    fn warning(severity: &str, text: &str, cure: &str) -> keel::TopologyWarning {
        keel::TopologyWarning {
            severity: severity.to_owned(),
            text: text.to_owned(),
            cure: cure.to_owned(),
            ..keel::TopologyWarning::default()
        }
    }

    fn report() -> keel::Topology {
        keel::Topology {
            placement: "each target near its device".to_owned(),
            nodes: vec![node(0, 1), node(1, 0)],
            cpus: vec![
                cpu(0, 0, 0, false),
                cpu(1, 0, 1, false),
                cpu(2, 1, 2, true),
                cpu(3, 1, 3, false),
                cpu(4, 0, 0, false),
                cpu(6, 1, 2, true),
            ],
            devices: vec![
                device("disk0", "nvme0n1", "0000:3b:00.0", Some(1), 0),
                device("mem", "", "", None, 1),
            ],
            xstreams: vec![
                xstream(0, "keel_sys_0", None, 0),
                xstream(1, "keel_io_0", Some(0), 2),
                xstream(2, "keel_io_1", Some(1), 6),
            ],
            warnings: vec![
                warning(
                    "warning",
                    "CPUs 2,6 are hyper-threads of one core",
                    "fewer targets",
                ),
                warning("note", "no helpers", ""),
            ],
        }
    }

    #[test]
    fn the_drawing() {
        let drawn = draw(&report(), Paint { colours: false });
        let expected = "\
3 xstreams on 3 CPUs, each target near its device

NUMA node 0  64.0 GiB (32.0 GiB free), 1.0 GiB in huge pages; distance 21 to node 1
├─ core  CPU 0: keel_sys_0 | CPU 4
└─ CPUs 1 without xstreams

NUMA node 1  64.0 GiB (32.0 GiB free); distance 21 to node 0
├─ disk0: nvme0n1 at 0000:3b:00.0, targets 0
├─ core  CPU 2 isolated: keel_io_0 - disk0 | CPU 6 isolated: keel_io_1 - mem
└─ CPUs 3 without xstreams

Devices of no known node
└─ mem: malloc, targets 1

warning: CPUs 2,6 are hyper-threads of one core
  cure: fewer targets

note: no helpers
";
        assert_eq!(drawn, expected, "\n{drawn}");
    }

    #[test]
    fn colours_only_when_asked_for() {
        assert!(!draw(&report(), Paint { colours: false }).contains('\x1b'));
        let drawn = draw(&report(), Paint { colours: true });
        assert!(
            drawn.contains("\x1b[33mwarning:\x1b[0m") && drawn.contains("\x1b[1mkeel_io_0\x1b[0m")
        );
    }
}
