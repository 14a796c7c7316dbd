//! CPUs, cores and nodes of a machine, and which of them this process may use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{CpuError, Cpuset, Host, Node, Quota, allowed, cgroup, format_list};

/// One logical CPU that this process may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    /// The kernel's number.
    pub id: usize,
    /// Physical core, as the kernel numbers it: unique in a die at most. [`Cpu::siblings`] says what shares a core.
    pub core: usize,
    /// Package (socket).
    pub package: usize,
    /// NUMA node; 0 on a machine without NUMA.
    pub node: usize,
    /// All logical CPUs of the same physical core, this one included, usable or not.
    pub siblings: Vec<usize>,
    /// Set aside by the operator: `isolcpus=` or `nohz_full=`.
    pub isolated: bool,
}

/// The processors of a machine, as far as this process is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The CPUs that this process may use, ascending.
    pub cpus: Vec<Cpu>,
    /// All CPUs that are built in, online or not.
    pub present: Vec<usize>,
    /// Those that run.
    pub online: Vec<usize>,
    /// Those that the kernel's command line keeps free of ordinary processes (`isolcpus=`).
    pub isolated: Vec<usize>,
    /// Those without a periodic tick (`nohz_full=`).
    pub nohz_full: Vec<usize>,
    /// The affinity that the process was started with.
    pub affinity: Vec<usize>,
    /// NUMA nodes, ascending; empty on a kernel without NUMA.
    pub nodes: Vec<Node>,
    /// What the process's cgroup leaves it, if there are cpusets.
    pub cpuset: Option<Cpuset>,
    /// How much CPU time its cgroups leave it, if they limit it.
    pub quota: Option<Quota>,
}

/// Why this process may not use a CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// There is none.
    Missing {
        /// What there is.
        present: Vec<usize>,
    },
    /// It is there and switched off.
    Offline,
    /// The cgroup forbids it.
    Cpuset(Cpuset),
    /// The affinity that the process was started with leaves it out.
    Affinity {
        /// What it leaves.
        affinity: Vec<usize>,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Missing { present } => {
                let list = format_list(present.iter().copied());
                write!(f, "this machine has CPUs {list}")
            }
            Unusable::Offline => f.write_str("it is switched off"),
            Unusable::Cpuset(set) => {
                let list = format_list(set.cpus.iter().copied());
                write!(f, "cgroup {} leaves CPUs {list}", set.cgroup)
            }
            Unusable::Affinity { affinity } => {
                let list = format_list(affinity.iter().copied());
                write!(f, "the process was started on CPUs {list}")
            }
        }
    }
}

impl Unusable {
    /// What an operator can do about it.
    #[must_use]
    pub fn cure(&self, cpu: usize) -> String {
        match self {
            Unusable::Missing { .. } => "name CPUs that are there".to_owned(),
            Unusable::Offline => {
                format!("switch it on: echo 1 > /sys/devices/system/cpu/cpu{cpu}/online")
            }
            Unusable::Cpuset(set) => format!(
                "allow it there (systemd: AllowedCPUs=; by hand: cpuset.cpus of {}), or name other CPUs",
                set.cgroup
            ),
            Unusable::Affinity { .. } => {
                "start the engine without taskset or CPUAffinity=, or name other CPUs".to_owned()
            }
        }
    }
}

impl Topology {
    /// This machine, for the calling OS thread.
    ///
    /// # Errors
    /// [`CpuError`] if the affinity cannot be read or a topology file is malformed. Files that are missing (containers
    /// without sysfs) are no error: each CPU then counts as a core of its own on node 0.
    pub fn discover() -> Result<Topology, CpuError> {
        Self::read(&Host::this(), &allowed()?)
    }

    /// The topology that the files of `host` describe, for a process that may run on `affinity`.
    ///
    /// Isolated CPUs are usable although the kernel leaves them out of a new process's affinity, as long as nobody narrowed that
    /// affinity further and the cpuset allows them.
    ///
    /// # Errors
    /// [`CpuError::Sysfs`] if a file is malformed.
    pub fn read(host: &Host, affinity: &[usize]) -> Result<Topology, CpuError> {
        let list = |name: &str| host.list(format!("/sys/devices/system/cpu/{name}"));
        let online = list("online")?.unwrap_or_else(|| affinity.to_vec());
        let mut topology = Topology {
            cpus: Vec::new(),
            present: list("present")?.unwrap_or_else(|| online.clone()),
            isolated: list("isolated")?.unwrap_or_default(),
            nohz_full: list("nohz_full")?.unwrap_or_default(),
            affinity: affinity.to_vec(),
            nodes: Node::all(host)?,
            cpuset: cgroup::cpuset(host)?,
            quota: cgroup::quota(host)?,
            online,
        };
        let usable = topology.usable();
        let node_of: BTreeMap<usize, usize> = topology
            .nodes
            .iter()
            .flat_map(|node| node.cpus.iter().map(|&cpu| (cpu, node.id)))
            .collect();
        for id in usable {
            let file = |name: &str| format!("/sys/devices/system/cpu/cpu{id}/topology/{name}");
            topology.cpus.push(Cpu {
                id,
                core: host.number(file("core_id"))?.unwrap_or(id),
                package: host.number(file("physical_package_id"))?.unwrap_or(0),
                node: node_of.get(&id).copied().unwrap_or(0),
                siblings: host
                    .list(file("thread_siblings_list"))?
                    .filter(|siblings| siblings.contains(&id))
                    .unwrap_or_else(|| vec![id]),
                isolated: topology.is_set_aside(id),
            });
        }
        Ok(topology)
    }

    /// Whether the operator keeps ordinary processes off it.
    fn is_set_aside(&self, cpu: usize) -> bool {
        self.isolated.contains(&cpu) || self.nohz_full.contains(&cpu)
    }

    fn usable(&self) -> BTreeSet<usize> {
        let mut usable: BTreeSet<usize> = self.affinity.iter().copied().collect();
        let in_cpuset = |cpu: &usize| {
            self.cpuset
                .as_ref()
                .is_none_or(|set| set.cpus.contains(cpu))
        };
        let admitted: Vec<usize> = self.online.iter().copied().filter(in_cpuset).collect();
        let ordinary = |cpu: &&usize| !self.isolated.contains(cpu);
        // Narrowed by taskset or systemd: then exactly what they say.
        let untouched = admitted
            .iter()
            .filter(ordinary)
            .all(|cpu| usable.contains(cpu));
        if untouched {
            usable.extend(admitted);
        }
        usable
    }

    /// The CPU with this id, if this process may use it.
    #[must_use]
    pub fn get(&self, id: usize) -> Option<&Cpu> {
        self.cpus.iter().find(|cpu| cpu.id == id)
    }

    /// Why this process may not use a CPU; `None`: it may.
    #[must_use]
    pub fn why_not(&self, id: usize) -> Option<Unusable> {
        if self.get(id).is_some() {
            return None;
        }
        Some(match &self.cpuset {
            _ if !self.present.contains(&id) => Unusable::Missing {
                present: self.present.clone(),
            },
            _ if !self.online.contains(&id) => Unusable::Offline,
            Some(set) if !set.cpus.contains(&id) => Unusable::Cpuset(set.clone()),
            _ => Unusable::Affinity {
                affinity: self.affinity.clone(),
            },
        })
    }

    /// The usable CPUs of a NUMA node.
    pub fn on_node(&self, node: usize) -> impl Iterator<Item = &Cpu> {
        self.cpus.iter().filter(move |cpu| cpu.node == node)
    }

    /// One usable CPU of each physical core, the lowest: hyper-thread siblings left out.
    #[must_use]
    pub fn physical_cores(&self) -> Vec<usize> {
        let first = |cpu: &&Cpu| self.first_of_core(cpu.id) == Some(cpu.id);
        self.cpus.iter().filter(first).map(|cpu| cpu.id).collect()
    }

    /// The lowest usable CPU of the physical core that `cpu` is on.
    #[must_use]
    pub fn first_of_core(&self, cpu: usize) -> Option<usize> {
        let siblings = &self.get(cpu)?.siblings;
        let usable = siblings.iter().filter(|id| self.get(**id).is_some());
        usable.min().copied()
    }

    /// NUMA nodes with at least one usable CPU, ascending.
    #[must_use]
    pub fn numa_nodes(&self) -> Vec<usize> {
        let nodes: BTreeSet<usize> = self.cpus.iter().map(|cpu| cpu.node).collect();
        nodes.into_iter().collect()
    }

    /// How far memory or a device on node `to` is from a CPU on node `from`: 10 on the node itself. Without a table in
    /// sysfs every other node counts as 20, ACPI's usual value.
    #[must_use]
    pub fn distance(&self, from: usize, to: usize) -> usize {
        let node = self.nodes.iter().find(|node| node.id == from);
        let told = node.and_then(|node| node.distances.iter().find(|(id, _)| *id == to));
        match told {
            Some((_, distance)) => *distance,
            None if from == to => 10,
            None => 20,
        }
    }
}
