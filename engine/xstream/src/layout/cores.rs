//! The CPUs that a layout may use, in the order of preference.

use std::collections::{BTreeMap, BTreeSet};

use spdk_env::cpu::{Cpu, Topology, format_list};

use super::{LayoutError, LayoutOptions};

/// One CPU that xstreams may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// The kernel's CPU number.
    pub cpu: usize,
    /// Its NUMA node.
    pub node: usize,
    /// The lowest usable CPU of its physical core. Other CPUs of the core, its hyper-threads, are used only when cores are shared
    /// anyway, or when the operator names them: DAOS too counts physical cores.
    pub physical: usize,
    /// Set aside by the operator for programs like this one (`isolcpus=`, `nohz_full=`).
    pub isolated: bool,
}

impl Core {
    /// A core of one CPU.
    #[must_use]
    pub fn alone(cpu: usize, node: usize) -> Core {
        Core {
            cpu,
            node,
            physical: cpu,
            isolated: false,
        }
    }

    /// What this process may use, as discovered.
    #[must_use]
    pub fn of(topology: &Topology) -> Vec<Core> {
        let core = |cpu: &Cpu| Core {
            cpu: cpu.id,
            node: cpu.node,
            physical: topology.first_of_core(cpu.id).unwrap_or(cpu.id),
            isolated: cpu.isolated,
        };
        topology.cpus.iter().map(core).collect()
    }

    /// Whether it is a further hyper-thread of a core.
    #[must_use]
    pub fn is_sibling(&self) -> bool {
        self.physical != self.cpu
    }
}

/// What may be used, first choice first.
pub(super) struct Usable {
    pub(super) cores: Vec<Core>,
    /// Hyper-threads that only sharing makes use of.
    pub(super) reserve: Vec<Core>,
    /// Where these are, for an error: " on NUMA node 1", or nothing.
    pub(super) place: String,
}

impl Usable {
    pub(super) fn of(options: &LayoutOptions, cores: &[Core]) -> Result<Usable, LayoutError> {
        if let Some(list) = &options.cpus {
            return listed(list, cores);
        }
        let (reserve, physical): (Vec<Core>, Vec<Core>) =
            cores.iter().copied().partition(Core::is_sibling);
        if physical.is_empty() {
            return Err(LayoutError::NoCores);
        }
        let nodes: BTreeSet<usize> = physical.iter().map(|core| core.node).collect();
        if let Some(node) = options.numa_node
            && !nodes.contains(&node)
        {
            return Err(LayoutError::NumaNode {
                node,
                nodes: nodes.into_iter().collect(),
            });
        }
        let wanted = |core: &Core| options.numa_node.is_none_or(|node| core.node == node);
        let mut usable = Usable {
            cores: physical.into_iter().filter(wanted).collect(),
            reserve: reserve.into_iter().filter(wanted).collect(),
            place: String::new(),
        };
        usable.skip(options)?;
        Ok(usable)
    }

    /// The cores before the first one: on a node they are not taken at all, otherwise last.
    fn skip(&mut self, options: &LayoutOptions) -> Result<(), LayoutError> {
        let first_core = options.first_core.unwrap_or(0);
        let available = self.cores.len();
        if first_core >= available {
            return Err(LayoutError::FirstCore {
                first_core,
                available,
            });
        }
        let Some(node) = options.numa_node else {
            self.cores.rotate_left(first_core);
            return Ok(());
        };
        self.cores.drain(..first_core);
        self.place = match first_core {
            0 => format!(" on NUMA node {node}"),
            _ => format!(" on NUMA node {node} after skipping {first_core}"),
        };
        Ok(())
    }

    /// Cores of each node.
    pub(super) fn by_node(&self) -> BTreeMap<usize, usize> {
        let mut nodes = BTreeMap::new();
        for core in &self.cores {
            *nodes.entry(core.node).or_default() += 1;
        }
        nodes
    }
}

/// The operator's list in its order, second hyper-threads of a core last.
fn listed(list: &[usize], cores: &[Core]) -> Result<Usable, LayoutError> {
    let find = |cpu: &usize| cores.iter().find(|core| core.cpu == *cpu).copied();
    let unusable: Vec<usize> = list
        .iter()
        .copied()
        .filter(|cpu| find(cpu).is_none())
        .collect();
    if !unusable.is_empty() {
        return Err(LayoutError::UnusableCpus {
            cpus: format_list(unusable),
            usable: format_list(cores.iter().map(|core| core.cpu)),
        });
    }
    if list.is_empty() {
        return Err(LayoutError::NoCores);
    }
    let (mut cpus, mut physical) = (BTreeSet::new(), BTreeSet::new());
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for core in list.iter().filter_map(find) {
        match (cpus.insert(core.cpu), physical.insert(core.physical)) {
            (false, _) => return Err(LayoutError::CpuTwice { cpu: core.cpu }),
            (true, true) => first.push(core),
            (true, false) => second.push(core),
        }
    }
    first.extend(second);
    Ok(Usable {
        cores: first,
        reserve: Vec::new(),
        place: format!(" in cpus = {}", format_list(list.iter().copied())),
    })
}
