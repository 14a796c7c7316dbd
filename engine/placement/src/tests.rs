//! Plans on machines built out of files.

use std::fs;

use drpc_wire::keel;
use engine_config::Config;
use spdk_env::cpu::{Host, Interrupt, Topology};

use crate::{Plan, add_interrupts, machine};

/// Two sockets of two cores with two hyper-threads each: core c has CPUs c and c + 4. All memory and huge pages on node 0.
fn two_sockets(isolated: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let file = |path: String, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let system = "sys/devices/system";
    for cpu in 0..8 {
        let core = cpu % 4;
        let at = |name: &str| format!("{system}/cpu/cpu{cpu}/topology/{name}");
        file(at("physical_package_id"), if core < 2 { "0" } else { "1" });
        file(at("thread_siblings_list"), &format!("{core},{}", core + 4));
    }
    for (node, cpus, distance, kib) in [(0, "0-1,4-5", "10 21", 4096), (1, "2-3,6-7", "21 10", 0)] {
        let at = |name: &str| format!("{system}/node/node{node}/{name}");
        file(at("cpulist"), cpus);
        file(at("distance"), distance);
        file(at("meminfo"), &format!("Node {node} MemTotal: {kib} kB"));
        file(
            at("hugepages/hugepages-2048kB/nr_hugepages"),
            if node == 0 { "16" } else { "0" },
        );
    }
    file(format!("{system}/cpu/online"), "0-7");
    file(format!("{system}/cpu/present"), "0-8");
    file(format!("{system}/cpu/isolated"), isolated);
    root
}

fn config(engine: &str) -> Config {
    let text = format!(
        "[engine]\n{engine}\n[[device]]\nname = \"d0\"\nkind = \"null\"\nsize = \"1GiB\"\n"
    );
    Config::parse("test.toml", &text).unwrap()
}

fn plan(engine: &str, isolated: &str) -> Result<Plan, crate::PlanError> {
    let root = two_sockets(isolated);
    let host = Host::at(root.path());
    let topology = Topology::read(&host, &[0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
    Plan::make(&config(engine), &host, topology)
}

fn report(engine: &str, isolated: &str) -> keel::Topology {
    plan(engine, isolated).unwrap().report()
}

fn kinds(report: &keel::Topology) -> Vec<&str> {
    report.warnings.iter().map(|w| w.kind.as_str()).collect()
}

fn text_of<'a>(report: &'a keel::Topology, kind: &str) -> &'a str {
    &report
        .warnings
        .iter()
        .find(|w| w.kind == kind)
        .unwrap()
        .text
}

#[test]
fn the_report_says_who_runs_where() {
    let report = report(
        "targets = 1\nhelpers = 1\nnuma_node = 0\noversubscribe = true",
        "",
    );
    let where_: Vec<_> = report
        .xstreams
        .iter()
        .map(|xs| (xs.name.as_str(), xs.cpu, xs.node, xs.target))
        .collect();
    assert_eq!(
        where_,
        [
            ("keel_sys_0", 0, 0, None),
            ("keel_io_0", 1, 0, Some(0)),
            ("keel_off_2", 4, 0, Some(0))
        ]
    );
    assert_eq!(report.placement, "on one NUMA node");
    let node = &report.nodes[0];
    assert_eq!(
        (node.cpus.as_str(), node.memory_bytes, node.hugepage_bytes),
        ("0-1,4-5", 4 << 20, 32 << 20)
    );
    assert_eq!(
        (
            report.cpus[6].core,
            report.cpus[6].node,
            report.cpus[6].package
        ),
        (2, 1, 1)
    );
    assert_eq!(
        (report.devices[0].name.as_str(), report.devices[0].node),
        ("d0", None)
    );
    assert_eq!(kinds(&report), ["not_isolated"]);
}

#[test]
fn shared_cpus_threads_and_remote_memory_are_warned_of() {
    let report = report("targets = 5\ncpus = \"0-1,4-5\"\noversubscribe = true", "");
    let text = text_of(&report, "system_shares_core");
    assert_eq!(text, "CPU 0 is shared by keel_sys_0, keel_io_0, keel_io_4");
    assert_eq!(
        text_of(&report, "smt_shared"),
        "CPUs 0,4 are hyper-threads of one core, which keel_sys_0, keel_io_0, keel_io_4, keel_io_2 share"
    );
    let far = self::report("targets = 2\ncpus = \"2-3,0\"", "");
    assert_eq!(
        text_of(&far, "memory_remote"),
        "NUMA node 1 runs xstreams and has no memory: all of theirs is remote"
    );
    assert_eq!(
        text_of(&far, "memory_one_node"),
        "all huge pages are on other nodes than NUMA node 1, which runs xstreams"
    );
}

#[test]
fn isolated_cpus_are_used_first_and_named_when_left() {
    let report = report("targets = 1", "2-3,6-7");
    assert_eq!(
        report.xstreams.iter().map(|xs| xs.cpu).collect::<Vec<_>>(),
        [0, 2]
    );
    assert_eq!(
        text_of(&report, "isolated_unused"),
        "CPUs 3,6-7 are isolated and this engine does not use them"
    );
    assert!(!kinds(&report).contains(&"not_isolated"), "{report:?}");
}

#[test]
fn a_target_far_from_its_disk_is_warned_of() {
    let mut plan = plan("targets = 1\ncpus = \"0-1\"", "").unwrap();
    plan.devices[0].disk = Some(spdk_env::cpu::Disk {
        name: "nvme0n1".into(),
        pci: Some("0000:3b:00.0".into()),
        node: Some(1),
    });
    let report = plan.report();
    assert_eq!(
        text_of(&report, "far_from_device"),
        "target 0 on CPU 1 (NUMA node 0) is far from its device d0 (node 1): distance 21"
    );
    let device = &report.devices[0];
    assert_eq!(
        (device.pci.as_str(), device.node, &device.targets[..]),
        ("0000:3b:00.0", Some(1), &[0][..])
    );
}

#[test]
fn interrupts_on_reactors_cpus_are_warned_of() {
    let mut report = report("targets = 1", "");
    let irq = |irq, cpus: &[usize], count| Interrupt {
        irq,
        name: format!("nvme0q{irq}"),
        cpus: cpus.to_vec(),
        count,
    };
    let several: Vec<Interrupt> = (30..36).map(|nr| irq(nr, &[1], 5)).collect();
    let quiet = [irq(40, &[0], 0), irq(41, &[0, 1], 9), irq(42, &[6], 9)];
    add_interrupts(&mut report, &[several, quiet.to_vec()].concat());
    assert_eq!(report.cpus[6].interrupts, ["nvme0q42 (42)"]);
    let texts: Vec<&str> = report
        .warnings
        .iter()
        .filter(|w| w.kind == "interrupts")
        .map(|w| w.text.as_str())
        .collect();
    assert_eq!(
        texts,
        [
            "nvme0q30 (30), nvme0q31 (31), nvme0q32 (32), nvme0q33 (33) and 2 more arrive on CPU 1, the CPU of keel_io_0"
        ]
    );
}

#[test]
fn the_machine_knows_why_a_cpu_cannot_be_used() {
    let root = two_sockets("");
    let topology = Topology::read(&Host::at(root.path()), &[0, 1, 4]).unwrap();
    let machine = machine(&topology, &[engine_config::Provider::Native]);
    assert_eq!(
        (
            machine.cores(None),
            machine.cores(Some(0)),
            machine.cores(Some(1))
        ),
        (2, 2, 0)
    );
    assert_eq!(
        machine.unusable[&2].why,
        "the process was started on CPUs 0-1,4"
    );
    assert_eq!(machine.unusable[&8].why, "it is switched off");
    let errors = config("cpus = \"0,2,8-9\"").check(&machine).unwrap_err();
    let said: Vec<&str> = errors
        .iter()
        .map(|e| e.message())
        .filter(|m| m.starts_with("CPU"))
        .collect();
    assert_eq!(
        said,
        [
            "CPU 2 cannot be used: the process was started on CPUs 0-1,4",
            "CPU 8 cannot be used: it is switched off",
            "CPU 9 cannot be used: this machine has CPUs 0-8"
        ]
    );
}
