//! Which core each xstream runs on.

use std::collections::BTreeMap;

use spdk_env::cpu::{Cpu, Topology};

use super::{HelperMode, Layout, LayoutError, LayoutOptions, SYS_XS_NR, XstreamSpec};
use crate::Role;

/// One CPU that xstreams may run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// The kernel's CPU number.
    pub cpu: usize,
    /// Its NUMA node.
    pub node: usize,
    /// Shares its physical core with a CPU listed as not a sibling. Siblings are used only when cores are shared
    /// anyway: DAOS too counts physical cores.
    pub sibling: bool,
}

impl Core {
    /// What this process may use, as discovered: one CPU of each physical core first in line, the others siblings.
    pub fn of(topology: &Topology) -> Vec<Core> {
        let physical = topology.physical_cores();
        let core = |cpu: &Cpu| Core {
            cpu: cpu.id,
            node: cpu.node,
            sibling: !physical.contains(&cpu.id),
        };
        topology.cpus.iter().map(core).collect()
    }
}

/// How cores were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In order of their numbers, from the first core on, around the end (DAOS: legacy mode).
    Linear,
    /// In order, on one NUMA node.
    SingleNuma,
    /// Targets and helpers spread evenly over this many NUMA nodes.
    MultiSocket(usize),
}

impl Layout {
    pub(super) fn place(
        &mut self,
        options: &LayoutOptions,
        cores: &[Core],
    ) -> Result<(), LayoutError> {
        let physical: Vec<Core> = cores.iter().copied().filter(|core| !core.sibling).collect();
        if physical.is_empty() {
            return Err(LayoutError::NoCores);
        }
        let nodes = by_node(&physical);
        if let Some(node) = options.numa_node
            && !nodes.contains_key(&node)
        {
            return Err(LayoutError::NumaNode {
                node,
                nodes: nodes.into_keys().collect(),
            });
        }
        if self.fits_sockets(options, &nodes) {
            self.check_count(options, physical.len(), String::new())?;
            self.place_on_sockets(&nodes);
            return Ok(());
        }
        self.placement = if options.numa_node.is_some() {
            Placement::SingleNuma
        } else {
            Placement::Linear
        };
        let mut usable = candidates(&physical, options)?;
        let place = options
            .numa_node
            .map_or_else(String::new, |node| match options.first_core {
                Some(first) if first > 0 => format!(" on NUMA node {node} after skipping {first}"),
                _ => format!(" on NUMA node {node}"),
            });
        self.check_count(options, usable.len(), place)?;
        if self.xstreams.len() > usable.len() {
            usable = with_siblings(cores, options)?;
        }
        self.place_in_order(&usable);
        Ok(())
    }

    fn check_count(
        &self,
        options: &LayoutOptions,
        available: usize,
        place: String,
    ) -> Result<(), LayoutError> {
        let needed = self.xstreams.len();
        if needed > available && !options.oversubscribe {
            let (targets, helpers) = (self.targets, self.helpers);
            return Err(LayoutError::TooFewCores {
                needed,
                targets,
                helpers,
                available,
                place,
            });
        }
        Ok(())
    }

    fn fits_sockets(&self, options: &LayoutOptions, nodes: &BTreeMap<usize, Vec<Core>>) -> bool {
        let count = nodes.len();
        let free =
            options.first_core.is_none() && options.numa_node.is_none() && !options.oversubscribe;
        let divides = |number: u32| (number as usize).is_multiple_of(count);
        let mut sizes = nodes.values().map(Vec::len);
        let first = sizes.next();
        free && count >= 2
            && divides(self.targets)
            && divides(self.helpers)
            && sizes.all(|size| Some(size) == first)
            && self.xstreams.len() <= nodes.values().map(Vec::len).sum()
    }

    /// The system xstream on the first core of the first node; it keeps that core for itself. That always fits: with
    /// N equal nodes and both counts divisible by N, a node's share is below its size if the total is not above.
    fn place_on_sockets(&mut self, nodes: &BTreeMap<usize, Vec<Core>>) {
        let count = nodes.len();
        let per_node = |number: u32| (number as usize / count).max(1);
        let (targets, helpers) = (per_node(self.targets), per_node(self.helpers));
        let first_helper = SYS_XS_NR + self.targets;
        let mut free: Vec<_> = nodes.values().map(|cores| cores.iter()).collect();
        for xs in &mut self.xstreams {
            let node = match (xs.role, xs.target) {
                (Role::System, _) => 0,
                (_, Some(target)) => target as usize / targets,
                (_, None) => (xs.id.0 - first_helper) as usize / helpers,
            };
            if let Some(core) = free[node].next() {
                (xs.cpu, xs.node) = (core.cpu, core.node);
            }
        }
        self.placement = Placement::MultiSocket(count);
    }

    /// One core after the other and around the end. The system xstream has the first core for itself while there
    /// are more cores than targets; otherwise it shares it with the first main.
    fn place_in_order(&mut self, usable: &[Core]) {
        let own = usable.len() > self.targets as usize;
        for (at, xs) in self.xstreams.iter_mut().enumerate() {
            let index = if own {
                at
            } else {
                at.saturating_sub(SYS_XS_NR as usize)
            };
            let core = usable[index % usable.len()];
            (xs.cpu, xs.node) = (core.cpu, core.node);
        }
        let cores = self.cpus().len();
        if cores < self.xstreams.len() {
            self.notes.push(format!(
                "over-subscribed: {} xstreams share {cores} cores",
                self.xstreams.len()
            ));
        }
    }

    /// The helper of a pool that serves `target` as its `turn`th: on the target's own node where nodes are used evenly.
    pub(super) fn pool_helpers_near(&self, target: u32) -> Vec<&XstreamSpec> {
        let pool = self.xstreams.iter().filter(|xs| xs.role == Role::Offload);
        let node = self
            .main_of(target)
            .map(|main| self.xstreams[main.0 as usize].node);
        match (self.placement, self.mode) {
            (Placement::MultiSocket(_), HelperMode::Pool) => {
                pool.filter(|xs| Some(xs.node) == node).collect()
            }
            _ => pool.collect(),
        }
    }
}

/// The cores that may be used, the first one first.
fn candidates(cores: &[Core], options: &LayoutOptions) -> Result<Vec<Core>, LayoutError> {
    let first_core = options.first_core.unwrap_or(0);
    let mut usable: Vec<Core> = cores
        .iter()
        .copied()
        .filter(|core| options.numa_node.is_none_or(|node| core.node == node))
        .collect();
    if first_core >= usable.len() {
        return Err(LayoutError::FirstCore {
            first_core,
            available: usable.len(),
        });
    }
    match options.numa_node {
        Some(_) => drop(usable.drain(..first_core)),
        None => usable.rotate_left(first_core),
    }
    Ok(usable)
}

/// Physical cores first, then their hyper-threads.
fn with_siblings(cores: &[Core], options: &LayoutOptions) -> Result<Vec<Core>, LayoutError> {
    let (siblings, physical): (Vec<Core>, Vec<Core>) =
        cores.iter().copied().partition(|core| core.sibling);
    let mut usable = candidates(&physical, options)?;
    let wanted = |core: &Core| options.numa_node.is_none_or(|node| core.node == node);
    usable.extend(siblings.into_iter().filter(wanted));
    Ok(usable)
}

fn by_node(cores: &[Core]) -> BTreeMap<usize, Vec<Core>> {
    let mut nodes: BTreeMap<usize, Vec<Core>> = BTreeMap::new();
    for core in cores {
        nodes.entry(core.node).or_default().push(*core);
    }
    nodes
}
