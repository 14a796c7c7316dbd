//! Machines built out of files, and this one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::locality::disk;
use super::*;

/// A machine of files, gone with the test.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Machine {
        Machine(tempfile::tempdir().expect("scratch directory"))
    }

    fn host(&self) -> Host {
        Host::at(self.0.path())
    }

    fn file(&self, path: &str, text: &str) -> &Machine {
        let path = self.0.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        fs::write(path, format!("{text}\n")).expect("file");
        self
    }

    fn link(&self, path: &str, to: &str) -> &Machine {
        let path = self.0.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        symlink(to, path).expect("link");
        self
    }

    fn cpu(&self, id: usize, core: usize, package: usize, siblings: &str) {
        let at = |name: &str| format!("/sys/devices/system/cpu/cpu{id}/topology/{name}");
        self.file(&at("core_id"), &core.to_string())
            .file(&at("physical_package_id"), &package.to_string())
            .file(&at("thread_siblings_list"), siblings);
    }

    fn cpus(&self, name: &str, list: &str) -> &Machine {
        self.file(&format!("/sys/devices/system/cpu/{name}"), list)
    }

    fn node(&self, id: usize, cpus: &str, distance: &str, mib: u64) {
        let at = |name: &str| format!("/sys/devices/system/node/node{id}/{name}");
        let kib = mib << 10;
        let memory = format!(
            "Node {id} MemTotal: {kib} kB\nNode {id} MemFree: {} kB",
            kib / 2
        );
        self.file(&at("cpulist"), cpus)
            .file(&at("distance"), distance)
            .file(&at("meminfo"), &memory);
    }

    fn read(&self, affinity: &[usize]) -> Topology {
        Topology::read(&self.host(), affinity).expect("a topology")
    }

    /// Two packages of two cores with two hyper-threads each; the siblings of core c are c and c + 4.
    fn two_sockets() -> Machine {
        let machine = Machine::new();
        for cpu in 0..8 {
            let core = cpu % 4;
            machine.cpu(cpu, core % 2, core / 2, &format!("{core},{}", core + 4));
        }
        machine.node(0, "0-1,4-5", "10 21", 1024);
        machine.node(1, "2-3,6-7", "21 10", 2048);
        machine.cpus("online", "0-7").cpus("present", "0-7");
        machine
    }

    /// A hybrid machine: cgroup version 1 controllers, the named hierarchy, and version 2 beside them.
    fn cgroup_v1(&self, member: &str) -> &Machine {
        self.file(
            "/proc/self/cgroup",
            &format!("3:cpuset:{member}\n2:cpu,cpuacct:{member}\n1:name=systemd:/\n0::/"),
        )
        .file(
            "/proc/self/mountinfo",
            "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
                 32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                 41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
        )
    }

    fn cgroup_v2(&self, member: &str) -> &Machine {
        self.file("/proc/self/cgroup", &format!("0::{member}"))
            .file(
                "/proc/self/mountinfo",
                "25 20 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate",
            )
    }
}

fn ids(topology: &Topology) -> Vec<usize> {
    topology.cpus.iter().map(|cpu| cpu.id).collect()
}

#[test]
fn cores_packages_nodes_and_siblings() {
    let machine = Machine::two_sockets();
    let topology = machine.read(&[0, 1, 2, 4, 6]);
    assert_eq!(topology.physical_cores(), [0, 1, 2]);
    assert_eq!(topology.numa_nodes(), [0, 1]);
    let on_node: Vec<usize> = topology.on_node(1).map(|cpu| cpu.id).collect();
    assert_eq!(on_node, [2, 6]);
    let cpu = topology.get(6).expect("allowed");
    assert_eq!(
        (
            cpu.package,
            cpu.core,
            cpu.node,
            &cpu.siblings[..],
            cpu.isolated
        ),
        (1, 0, 1, &[2, 6][..], false)
    );
    assert_eq!(
        (topology.first_of_core(6), topology.first_of_core(3)),
        (Some(2), None)
    );
    let node = &topology.nodes[1];
    assert_eq!((node.memory_kib, node.free_kib), (2 << 20, 1 << 20));
    assert_eq!((topology.distance(0, 1), topology.distance(1, 1)), (21, 10));
}

#[test]
fn four_nodes_with_holes_in_the_numbers() {
    let machine = Machine::new();
    for (node, cpu) in [(0, 0), (2, 8), (4, 16), (7, 24)] {
        machine.cpu(cpu, 0, node, &cpu.to_string());
        machine.node(node, &cpu.to_string(), "10 16 32 33", 64);
    }
    machine.node(9, "", "17 17 17 17", 4096); // memory alone: CXL
    machine
        .cpus("online", "0,8,16,24")
        .cpus("present", "0,8,16,24");
    let topology = machine.read(&[0, 8, 16, 24]);
    assert_eq!(topology.numa_nodes(), [0, 2, 4, 7]);
    assert_eq!(topology.nodes.len(), 5);
    assert_eq!((topology.distance(0, 4), topology.distance(0, 7)), (32, 33));
    assert_eq!(
        (topology.distance(0, 3), topology.distance(3, 3)),
        (20, 10),
        "no such node"
    );
}

#[test]
fn a_machine_without_numa_and_without_sysfs() {
    let machine = Machine::new();
    let topology = machine.read(&[30, 31]);
    assert_eq!(topology.physical_cores(), [30, 31], "a core each");
    assert_eq!((topology.numa_nodes(), topology.nodes.len()), (vec![0], 0));
    assert_eq!(
        (topology.cpuset.clone(), topology.quota.clone()),
        (None, None)
    );
    assert_eq!(topology.distance(0, 1), 20);
}

#[test]
fn cpus_that_cannot_be_used_say_why() {
    let machine = Machine::two_sockets();
    machine.cpus("online", "0-5,7").cpus("present", "0-7");
    machine
        .cgroup_v2("/keel")
        .file("/sys/fs/cgroup/keel/cpuset.cpus.effective", "0-4");
    let topology = machine.read(&[0, 1, 2]);
    assert_eq!(ids(&topology), [0, 1, 2]);
    let why = |cpu| {
        topology
            .why_not(cpu)
            .map(|why| format!("{why}: {}", why.cure(cpu)))
    };
    assert_eq!(why(2), None);
    assert_eq!(
        why(3).unwrap(),
        "the process was started on CPUs 0-2: start the engine without taskset or CPUAffinity=, or name other CPUs"
    );
    assert_eq!(
        why(5).unwrap(),
        "cgroup /keel leaves CPUs 0-4: allow it there (systemd: AllowedCPUs=; by hand: cpuset.cpus of /keel), or name other CPUs"
    );
    assert_eq!(
        why(6).unwrap(),
        "it is switched off: switch it on: echo 1 > /sys/devices/system/cpu/cpu6/online"
    );
    assert_eq!(
        why(64).unwrap(),
        "this machine has CPUs 0-7: name CPUs that are there"
    );
}

#[test]
fn isolated_cpus_are_usable_unless_somebody_narrowed_the_affinity() {
    let machine = Machine::two_sockets();
    machine
        .cpus("isolated", "2-3,6-7")
        .cpus("nohz_full", "(null)");
    let topology = machine.read(&[0, 1, 4, 5]);
    assert_eq!(ids(&topology), [0, 1, 2, 3, 4, 5, 6, 7]);
    let set_aside: Vec<bool> = topology.cpus.iter().map(|cpu| cpu.isolated).collect();
    assert_eq!(
        set_aside,
        [false, false, true, true, false, false, true, true]
    );
    assert_eq!(
        ids(&machine.read(&[0, 1, 4])),
        [0, 1, 4],
        "taskset -c 0,1,4"
    );
    assert_eq!(ids(&machine.read(&[2])), [2], "taskset -c 2");
    machine
        .cgroup_v2("/")
        .file("/sys/fs/cgroup/cpuset.cpus.effective", "0-2,4-6");
    assert_eq!(
        ids(&machine.read(&[0, 1, 4, 5])),
        [0, 1, 2, 4, 5, 6],
        "the cpuset counts"
    );
    machine.cpus("isolated", "").cpus("nohz_full", "2-3");
    assert!(
        machine
            .read(&[0, 1, 2, 3, 4, 5, 6, 7])
            .get(3)
            .expect("usable")
            .isolated
    );
}

#[test]
fn one_cpu_and_a_quota_in_cgroup_version_1() {
    let machine = Machine::two_sockets();
    machine
        .cgroup_v1("/batch/job7")
        .file(
            "/sys/fs/cgroup/cpuset/batch/job7/cpuset.effective_cpus",
            "3",
        )
        .file("/sys/fs/cgroup/cpu/batch/job7/cpu.cfs_quota_us", "-1")
        .file("/sys/fs/cgroup/cpu/batch/job7/cpu.cfs_period_us", "100000")
        .file("/sys/fs/cgroup/cpu/batch/cpu.cfs_quota_us", "150000")
        .file("/sys/fs/cgroup/cpu/batch/cpu.cfs_period_us", "100000");
    let topology = machine.read(&[3]);
    assert_eq!(topology.physical_cores(), [3]);
    let cpuset = topology.cpuset.clone().expect("a cpuset");
    assert_eq!(
        (cpuset.cgroup.as_str(), &cpuset.cpus[..]),
        ("/batch/job7", &[3][..])
    );
    let quota = topology.quota.expect("the quota of the group round it");
    assert_eq!(
        (quota.cgroup.as_str(), quota.milli_cpus()),
        ("/batch", 1500)
    );
}

#[test]
fn cgroup_version_2_inherits_and_the_tightest_quota_counts() {
    let machine = Machine::two_sockets();
    machine
        .cgroup_v2("/system.slice/keel.service")
        .file("/sys/fs/cgroup/system.slice/cpuset.cpus.effective", "0-1")
        .file(
            "/sys/fs/cgroup/system.slice/keel.service/cpu.max",
            "max 100000",
        )
        .file("/sys/fs/cgroup/system.slice/cpu.max", "50000 100000");
    let topology = machine.read(&[0, 1]);
    assert_eq!(topology.cpuset.expect("inherited").cgroup, "/system.slice");
    assert_eq!(topology.quota.expect("a quota").milli_cpus(), 500);
}

#[test]
fn a_container_that_sees_a_part_of_the_hierarchy() {
    let machine = Machine::two_sockets();
    machine
        .file("/proc/self/cgroup", "0::/kubepods/pod1/c2")
        .file(
            "/proc/self/mountinfo",
            "25 20 0:22 /kubepods/pod1/c2 /sys/fs/cgroup ro - cgroup2 cgroup2 rw",
        )
        .file("/sys/fs/cgroup/cpuset.cpus.effective", "5");
    assert_eq!(machine.read(&[5]).cpuset.expect("its own").cpus, [5]);
}

#[test]
fn malformed_files_are_named() {
    let machine = Machine::two_sockets();
    let error = |machine: &Machine| {
        let error = Topology::read(&machine.host(), &[0, 1]).expect_err("malformed");
        let root = machine.0.path().display().to_string();
        error.to_string().replace(&root, "")
    };
    machine.cpu(1, 0, 0, "many");
    assert_eq!(
        error(&machine),
        "/sys/devices/system/cpu/cpu1/topology/thread_siblings_list: expected a list such as 0-3,8, found \"many\""
    );
    machine.cpu(1, 1, 0, "1");
    machine.node(1, "2", "ten", 1);
    assert_eq!(
        error(&machine),
        "/sys/devices/system/node/node1/distance: expected one distance for each node, found \"ten\""
    );
    machine.node(1, "2", "20 10", 1);
    machine
        .cgroup_v2("/")
        .file("/sys/fs/cgroup/cpu.max", "soon");
    assert_eq!(
        error(&machine),
        "/sys/fs/cgroup/cpu.max: expected a quota and a period, found \"soon\""
    );
}

#[test]
fn disks_are_followed_to_their_pci_function() {
    let machine = Machine::new();
    let nvme = "/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/nvme/nvme0/nvme0n1";
    machine
        .file(
            "/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/numa_node",
            "1",
        )
        .file("/sys/bus/pci/devices/0000:3b:00.0/numa_node", "1")
        .file(&format!("{nvme}/dev"), "259:0")
        .file(&format!("{nvme}/nvme0n1p1/dev"), "259:1")
        .link(
            "/sys/dev/block/259:0",
            &format!("../..{}", nvme.trim_start_matches("/sys")),
        )
        .link(
            "/sys/dev/block/259:1",
            &format!("../..{}/nvme0n1p1", nvme.trim_start_matches("/sys")),
        );
    let other = "/sys/devices/pci0000:00/0000:00:02.0";
    machine
        .file(&format!("{other}/numa_node"), "-1")
        .file(&format!("{other}/virtio1/block/vda/dev"), "254:0")
        .link(
            "/sys/dev/block/254:0",
            "../../devices/pci0000:00/0000:00:02.0/virtio1/block/vda",
        );
    // A mirror of both disks, and one of two partitions of the same disk.
    for (md, slave) in [(0, "nvme0n1"), (1, "nvme0n1p1")] {
        let dir = format!("/sys/devices/virtual/block/md{md}");
        machine
            .link(
                &format!("/sys/dev/block/9:{md}"),
                &format!("../../devices/virtual/block/md{md}"),
            )
            .file(&format!("{dir}/slaves/{slave}/dev"), "259:0");
    }
    machine.file("/sys/devices/virtual/block/md0/slaves/vda/dev", "254:0");
    let at = |major, minor| {
        let disk = disk(&machine.host(), major, minor, 0)
            .expect("sysfs")
            .expect("a disk");
        (disk.name, disk.pci, disk.node)
    };
    let pci = Some("0000:3b:00.0".to_owned());
    assert_eq!(at(259, 0), ("nvme0n1".into(), pci.clone(), Some(1)));
    assert_eq!(at(259, 1), ("nvme0n1p1".into(), pci.clone(), Some(1)));
    assert_eq!(
        at(254, 0),
        ("vda".into(), Some("0000:00:02.0".into()), None)
    );
    assert_eq!(
        at(9, 0),
        ("md0".into(), None, None),
        "parts on several nodes"
    );
    assert_eq!(at(9, 1), ("md1".into(), pci, Some(1)));
    assert_eq!(disk(&machine.host(), 8, 0, 0).expect("sysfs"), None);
    assert_eq!(
        pci_node(&machine.host(), "0000:3b:00.0").expect("sysfs"),
        Some(1)
    );
    assert_eq!(
        pci_node(&machine.host(), "0000:99:00.0").expect("sysfs"),
        None
    );
}

#[test]
fn interrupts_by_cpu() {
    let machine = Machine::new();
    machine
        .file(
            "/proc/interrupts",
            "           CPU0       CPU1\n 24:  1   2  IO-APIC   5-edge      ACPI:Ged\n \
             28:  0  7 PCI-MSIX-0000:00:01.0   0-edge      nvme0q1\n 30: 1 1 x y\nNMI:  5   6   Non-maskable interrupts",
        )
        .file("/proc/irq/24/smp_affinity_list", "0-1")
        .file("/proc/irq/28/smp_affinity_list", "0-1")
        .file("/proc/irq/28/effective_affinity_list", "1");
    let seen: Vec<_> = interrupts(&machine.host())
        .into_iter()
        .map(|i| (i.irq, i.name, i.cpus, i.count))
        .collect();
    assert_eq!(
        seen,
        [
            (24, "ACPI:Ged".to_owned(), vec![0, 1], 3),
            (28, "nvme0q1".to_owned(), vec![1], 7)
        ]
    );
}

#[test]
fn this_machine_is_whole() {
    let topology = Topology::discover().expect("topology");
    let affinity = allowed().expect("affinity");
    assert!(affinity.iter().all(|cpu| topology.get(*cpu).is_some()));
    assert!(
        topology
            .cpus
            .iter()
            .all(|cpu| topology.online.contains(&cpu.id))
    );
    assert!(
        topology
            .cpus
            .iter()
            .all(|cpu| cpu.siblings.contains(&cpu.id))
    );
    assert!(!topology.physical_cores().is_empty());
    // Whatever is under the source tree, finding it is no error.
    disk_of_path(&Host::this(), Path::new(env!("CARGO_MANIFEST_DIR"))).expect("sysfs");
    disk_of_path(&Host::this(), Path::new("/nowhere/at/all.img")).expect("sysfs");
}
