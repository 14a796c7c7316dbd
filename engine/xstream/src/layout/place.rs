//! Which core each xstream runs on.
//!
//! One xstream after the other takes the best core that is left. Best is, in this order: the one with the fewest xstreams on it; for
//! mains and helpers an isolated one, for the system xstream one that is not; on the wanted NUMA node; on a physical core without
//! a main; the first in line.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::cores::{Core, Usable};
use super::{HelperMode, Layout, LayoutError, LayoutOptions, SYS_XS_NR, UNPLACED, XstreamSpec};
use crate::{Role, XstreamId};

/// How cores were chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// In order of their numbers, from the first core on, around the end (DAOS: legacy mode); or in the order of the operator's list.
    Linear,
    /// In order, on one NUMA node.
    SingleNuma,
    /// Targets and helpers spread evenly over this many NUMA nodes.
    MultiSocket(usize),
    /// Each target near its device.
    NearDevices,
}

impl Placement {
    /// Whether work of a target stays with xstreams of its node.
    pub(super) fn is_spread(self) -> bool {
        matches!(self, Placement::MultiSocket(_) | Placement::NearDevices)
    }
}

/// A core in the making of a layout.
struct Seat {
    core: Core,
    /// Xstreams that count as its load.
    load: usize,
}

/// What is known while xstreams are placed.
struct Plan<'a> {
    options: &'a LayoutOptions,
    seats: Vec<Seat>,
    /// The nodes by number, each with its cores.
    nodes: Vec<(usize, usize)>,
    /// Whether the operator set cores aside.
    isolation: bool,
    /// Whether the system xstream has a core for itself: as long as there are more cores than targets.
    system_alone: bool,
}

impl Layout {
    pub(super) fn place(
        &mut self,
        options: &LayoutOptions,
        cores: &[Core],
    ) -> Result<(), LayoutError> {
        let mut usable = Usable::of(options, cores)?;
        let (needed, available) = (self.xstreams.len(), usable.cores.len());
        if needed > available && !options.oversubscribe {
            return Err(LayoutError::TooFewCores {
                needed,
                targets: self.targets,
                helpers: self.helpers,
                available,
                place: usable.place,
            });
        }
        let nodes = usable.by_node();
        self.placement = self.choose(options, &nodes);
        let shared = needed > available;
        if shared {
            usable.cores.append(&mut usable.reserve);
        }
        let mut plan = Plan {
            options,
            nodes: nodes.into_iter().collect(),
            isolation: usable.cores.iter().any(|core| core.isolated),
            system_alone: usable.cores.len() > self.targets as usize,
            seats: (usable.cores.into_iter().map(|core| Seat { core, load: 0 })).collect(),
        };
        for at in self.order(&plan, shared) {
            let core = plan.seat(self, at);
            (self.xstreams[at].cpu, self.xstreams[at].node) = (core.cpu, core.node);
        }
        self.note(&plan);
        self.find_neighbours();
        Ok(())
    }

    fn choose(&self, options: &LayoutOptions, nodes: &BTreeMap<usize, usize>) -> Placement {
        let count = nodes.len();
        if options.numa_node.is_some() {
            return Placement::SingleNuma;
        }
        if count < 2 || options.first_core.is_some() {
            return Placement::Linear;
        }
        let known = |node: &Option<usize>| node.is_some_and(|node| nodes.contains_key(&node));
        if options.target_nodes.iter().any(known) {
            return Placement::NearDevices;
        }
        let divides = |number: u32| (number as usize).is_multiple_of(count);
        let mut sizes = nodes.values();
        let first = sizes.next();
        let even = divides(self.targets)
            && divides(self.helpers)
            && sizes.all(|size| Some(size) == first)
            && self.xstreams.len() <= nodes.values().sum()
            && !options.oversubscribe
            && options.cpus.is_none();
        match even {
            true => Placement::MultiSocket(count),
            false => Placement::Linear,
        }
    }

    /// In which order xstreams take their cores. By id, as DAOS does, as long as cores are all alike; otherwise those first that
    /// suffer most from a bad one.
    fn order(&self, plan: &Plan<'_>, shared: bool) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.xstreams.len()).collect();
        let threads = plan.seats.iter().any(|seat| seat.core.is_sibling());
        if plan.isolation || shared || threads || self.placement == Placement::NearDevices {
            order.sort_by_key(|&at| {
                let xs = &self.xstreams[at];
                let class = match xs.role {
                    Role::System => 0,
                    Role::Main => 1,
                    Role::Offload => 2,
                };
                (class, Reverse(self.wanted_node(plan, xs).is_some()))
            });
        }
        order
    }

    /// The node where an xstream should run; `None`: any.
    fn wanted_node(&self, plan: &Plan<'_>, xs: &XstreamSpec) -> Option<usize> {
        let count = plan.nodes.len();
        match self.placement {
            Placement::Linear | Placement::SingleNuma => None,
            Placement::MultiSocket(_) => {
                let per_node = |number: u32| (number as usize / count).max(1);
                let at = match (xs.role, xs.target) {
                    (Role::System, _) => 0,
                    (_, Some(target)) => target as usize / per_node(self.targets),
                    (_, None) => {
                        (xs.id.0 - SYS_XS_NR - self.targets) as usize / per_node(self.helpers)
                    }
                };
                plan.nodes.get(at).map(|(node, _)| *node)
            }
            Placement::NearDevices => match (xs.role, xs.target) {
                (Role::System, _) => plan.nodes.iter().find_map(|(node, cores)| {
                    (self.wanting(plan, *node) < *cores).then_some(*node)
                }),
                (_, Some(target)) => plan.device_node(target),
                (_, None) => {
                    // Helpers of the pool in the same proportion as targets.
                    let at = xs.id.0 - SYS_XS_NR - self.targets;
                    plan.device_node(at * self.targets / self.helpers.max(1))
                }
            },
        }
    }

    /// How many mains and helpers of their own want a node.
    fn wanting(&self, plan: &Plan<'_>, node: usize) -> usize {
        let wants = |xs: &&XstreamSpec| {
            xs.target
                .is_some_and(|target| plan.device_node(target) == Some(node))
        };
        self.xstreams.iter().filter(wants).count()
    }

    /// What the operator should know about the cores.
    fn note(&mut self, plan: &Plan<'_>) {
        let (xstreams, cores) = (self.xstreams.len(), self.cpus().len());
        if cores < xstreams {
            self.notes.push(format!(
                "over-subscribed: {xstreams} xstreams share {cores} cores"
            ));
        }
        if plan.isolation {
            let set_aside = plan.seats.iter().filter(|seat| seat.core.isolated).count();
            let isolated = |xs: &XstreamSpec| {
                let seat = plan.seats.iter().find(|seat| seat.core.cpu == xs.cpu);
                seat.is_some_and(|seat| seat.core.isolated)
            };
            let mains = self.xstreams.iter().filter(|xs| xs.role == Role::Main);
            let outside = mains.filter(|xs| !isolated(xs)).count();
            if outside > 0 {
                self.notes.push(format!(
                    "{outside} of {} mains run on cores that are not isolated: {set_aside} are",
                    self.targets
                ));
            }
            if isolated(&self.xstreams[0]) {
                self.notes.push(
                    "the system xstream runs on an isolated core: all usable ones are".to_owned(),
                );
            }
        }
        if self.placement == Placement::NearDevices {
            let far = self.xstreams.iter().filter_map(|xs| {
                let wanted = plan.device_node(xs.target?)?;
                let far = xs.role == Role::Main && xs.node != wanted;
                far.then(|| (xs.target.unwrap_or_default(), wanted, xs.node))
            });
            let far = far.map(|(target, wanted, node)| {
                format!("target {target} runs on NUMA node {node}: node {wanted}, where its device is, has no core left")
            });
            self.notes.extend(far.collect::<Vec<_>>());
        }
    }

    /// Who takes a target's work: see serve.rs.
    fn find_neighbours(&mut self) {
        let node_of = |layout: &Layout, target: u32| {
            let main = layout.main_of(target).unwrap_or(XstreamId(SYS_XS_NR));
            layout.xstreams[main.0 as usize].node
        };
        let spread = self.placement.is_spread();
        for target in 0..self.targets {
            let node = node_of(self, target);
            let others = (1..=self.targets).map(|step| (target + step) % self.targets);
            let next = others
                .into_iter()
                .find(|&other| !spread || node_of(self, other) == node);
            self.next_target.push(next.unwrap_or(target));
            let pool = self.xstreams.iter().filter(|xs| xs.role == Role::Offload);
            let pool: Vec<(XstreamId, usize)> = pool.map(|xs| (xs.id, xs.node)).collect();
            let all = || pool.iter().map(|(id, _)| *id).collect::<Vec<_>>();
            let near = pool.iter().filter(|(_, at)| *at == node);
            let near: Vec<XstreamId> = near.map(|(id, _)| *id).collect();
            self.near_helpers.push(match self.mode {
                HelperMode::PerTarget(_) => Vec::new(),
                HelperMode::Pool if spread && !near.is_empty() => near,
                HelperMode::Pool => all(),
            });
        }
    }
}

impl Plan<'_> {
    /// The node of a target's device, if it has cores.
    fn device_node(&self, target: u32) -> Option<usize> {
        let node = self.options.target_nodes.get(target as usize).copied()??;
        self.nodes.iter().any(|(id, _)| *id == node).then_some(node)
    }

    /// Gives an xstream the best core.
    fn seat(&mut self, layout: &Layout, at: usize) -> Core {
        let xs = &layout.xstreams[at];
        let wanted = layout.wanted_node(self, xs);
        // Who sits on the same physical core: mains count double, so that none of them gets a neighbour before all have a core.
        let mut crowd: BTreeMap<usize, usize> = BTreeMap::new();
        let counts = |other: &&XstreamSpec| {
            other.cpu != UNPLACED && (self.system_alone || other.role != Role::System)
        };
        for other in layout.xstreams.iter().filter(counts) {
            let physical = self.seats.iter().find(|seat| seat.core.cpu == other.cpu);
            if let Some(seat) = physical {
                *crowd.entry(seat.core.physical).or_default() +=
                    1 + usize::from(other.role == Role::Main);
            }
        }
        let system = xs.role == Role::System;
        let score = |seat: &Seat| {
            (
                seat.load,
                self.isolation && seat.core.isolated == system,
                wanted.is_some_and(|node| node != seat.core.node),
                crowd.get(&seat.core.physical).copied().unwrap_or(0),
            )
        };
        let best = (0..self.seats.len()).min_by_key(|&seat| score(&self.seats[seat]));
        let seat = &mut self.seats[best.unwrap_or_default()];
        seat.load += usize::from(!system || self.system_alone);
        seat.core
    }
}
