//! Why there is no layout, and why no xstream serves a request.

use daos_errno::Der;

use super::MAX_TARGETS;
use crate::XsType;

/// What is wrong with the numbers. All of them are the operator's to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// DAOS divides by zero here.
    #[error("targets = 0: an engine needs at least one target")]
    NoTargets,
    /// Past the bound.
    #[error("targets = {targets}: at most {MAX_TARGETS}")]
    TooManyTargets {
        /// What was asked for.
        targets: u32,
    },
    /// One core per xstream, and there are not that many.
    #[error(
        "{needed} cores are needed (1 system + {targets} targets + {helpers} helpers) but {available} are usable{place}; \
         use fewer targets or helpers, or set oversubscribe = true to let xstreams share cores"
    )]
    TooFewCores {
        /// One per xstream.
        needed: usize,
        /// Mains.
        targets: u32,
        /// Helpers.
        helpers: u32,
        /// Physical cores that may be used.
        available: usize,
        /// " on NUMA node 1 after skipping 2", or nothing.
        place: String,
    },
    /// Nothing left after skipping.
    #[error("first_core = {first_core}: there are only {available} cores, numbered from 0")]
    FirstCore {
        /// What was asked for.
        first_core: usize,
        /// What there is.
        available: usize,
    },
    /// DAOS indexes out of range here when the number equals the count.
    #[error("numa_node = {node}: the usable nodes are {nodes:?}")]
    NumaNode {
        /// What was asked for.
        node: usize,
        /// What there is.
        nodes: Vec<usize>,
    },
    /// The list names CPUs that are not there, or that the process may not use.
    #[error("cpus: {cpus} cannot be used; usable: {usable}")]
    UnusableCpus {
        /// Those.
        cpus: String,
        /// What there is.
        usable: String,
    },
    /// The list names one twice.
    #[error("cpus: CPU {cpu} is named twice")]
    CpuTwice {
        /// That one.
        cpu: usize,
    },
    /// The process may use no core at all.
    #[error("no usable core: the process's CPU affinity or cgroup leaves none")]
    NoCores,
}

impl LayoutError {
    /// DAOS's code for all of these.
    pub fn der(&self) -> Der {
        Der::INVAL
    }
}

/// Why no xstream serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// There are fewer targets.
    #[error("target {target} does not exist: there are {targets}, numbered from 0")]
    NoSuchTarget {
        /// What was asked for.
        target: u32,
        /// What there is.
        targets: u32,
    },
    /// The kind of work belongs to a target and none was given.
    #[error("{kind:?} work belongs to a target, and none was given")]
    NeedsTarget {
        /// The kind.
        kind: XsType,
    },
    /// "The caller's own" from a thread that is no xstream.
    #[error("the caller is no xstream, so it has no xstream of its own")]
    NoCaller,
}

impl ServeError {
    /// DAOS's code for all of these.
    pub fn der(self) -> Der {
        Der::INVAL
    }
}
