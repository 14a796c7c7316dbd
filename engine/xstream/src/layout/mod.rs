//! How many xstreams there are, what each is for and on which core it runs. Pure: numbers in, table out.
//!
//! DAOS's formulas (`src/engine/init.c`, `srv.c`, `srv_internal.h`) with one system xstream instead of three: where
//! DAOS counts 3 + targets + helpers, we count 1 + targets + helpers. Why: docs/decisions/0021-one-system-xstream.md.

mod cores;
mod error;
mod place;
mod serve;

use engine_tls::{Tags, XsInfo};

use crate::{Role, XstreamId};

pub use cores::Core;
pub use error::{LayoutError, ServeError};
pub use place::Placement;

/// System xstreams.
pub const SYS_XS_NR: u32 = 1;
/// Most targets of one engine.
pub const MAX_TARGETS: u32 = 256;

/// What the operator asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutOptions {
    /// Main xstreams, at least 1.
    pub targets: u32,
    /// Offload xstreams in the whole engine. Divisible by `targets`: so many belong to each target; otherwise they
    /// are a pool. More than two per target are cut to two.
    pub helpers: u32,
    /// Cores to skip; `None`: none, and several sockets may be used evenly.
    pub first_core: Option<usize>,
    /// Only cores of this NUMA node.
    pub numa_node: Option<usize>,
    /// Exactly these CPUs, by the kernel's numbers and in this order; second hyper-threads of a core come last. `None`: all cores that
    /// the process may use.
    pub cpus: Option<Vec<usize>>,
    /// NUMA node of each target's device, where known: the target is placed there if there is a core. Shorter than `targets`: unknown.
    pub target_nodes: Vec<Option<usize>>,
    /// Several xstreams may share a core.
    pub oversubscribe: bool,
}

impl Default for LayoutOptions {
    /// One target, no helpers, any core.
    fn default() -> LayoutOptions {
        LayoutOptions {
            targets: 1,
            helpers: 0,
            first_core: None,
            numa_node: None,
            cpus: None,
            target_nodes: Vec::new(),
            oversubscribe: false,
        }
    }
}

/// The CPU of an xstream that has none yet.
const UNPLACED: usize = usize::MAX;

/// How helpers relate to targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelperMode {
    /// Each target has this many of its own: 0, 1 or 2.
    PerTarget(u32),
    /// All targets share them.
    Pool,
}

/// One xstream of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XstreamSpec {
    /// Its id.
    pub id: XstreamId,
    /// What it is for.
    pub role: Role,
    /// A main's target, or the target that a helper belongs to.
    pub target: Option<u32>,
    /// The CPU it is bound to.
    pub cpu: usize,
    /// That CPU's NUMA node.
    pub node: usize,
    /// Whether it drives a device of its own (DAOS: has an NVMe context).
    pub device: bool,
    /// Whether it may forward I/O (DAOS: `dx_iofw`).
    pub iofw: bool,
}

impl XstreamSpec {
    /// `keel_sys_0`, `keel_io_<target>`, `keel_off_<id>`.
    pub fn name(&self) -> String {
        match self.role {
            Role::System => format!("keel_sys_{}", self.id),
            Role::Main => format!("keel_io_{}", self.target.unwrap_or_default()),
            Role::Offload => format!("keel_off_{}", self.id),
        }
    }

    /// Its TLS tags.
    pub fn tags(&self) -> Tags {
        self.role.tags()
    }

    /// How TLS constructors and modules see it; -1: no target.
    pub fn info(&self) -> XsInfo {
        let target = self.target.and_then(|target| i32::try_from(target).ok());
        XsInfo {
            tags: self.tags(),
            xs_id: self.id.0 as i32,
            tgt_id: target.unwrap_or(-1),
        }
    }
}

/// The table of xstreams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    targets: u32,
    helpers: u32,
    mode: HelperMode,
    placement: Placement,
    xstreams: Vec<XstreamSpec>,
    notes: Vec<String>,
    /// For each target the one whose main takes its work when there are no helpers.
    next_target: Vec<u32>,
    /// For each target the helpers of the pool that are near it.
    near_helpers: Vec<Vec<XstreamId>>,
}

impl Layout {
    /// What [`Layout::compute`] refuses: there is no other way to see what code does without targets.
    #[cfg(test)]
    pub(crate) fn without_targets() -> Layout {
        Layout {
            targets: 0,
            helpers: 0,
            mode: HelperMode::PerTarget(0),
            placement: Placement::Linear,
            xstreams: Vec::new(),
            notes: Vec::new(),
            next_target: Vec::new(),
            near_helpers: Vec::new(),
        }
    }

    /// Counts, roles and cores. `cores`: what this process may use, see [`Core::of`].
    pub fn compute(options: &LayoutOptions, cores: &[Core]) -> Result<Layout, LayoutError> {
        let LayoutOptions { targets, .. } = *options;
        if targets == 0 {
            return Err(LayoutError::NoTargets);
        }
        if targets > MAX_TARGETS {
            return Err(LayoutError::TooManyTargets { targets });
        }
        let mut notes = Vec::new();
        let helpers = options.helpers.min(2 * targets);
        if helpers < options.helpers {
            notes.push(format!(
                "{} helpers are more than two for each of {targets} targets: using {helpers}",
                options.helpers
            ));
        }
        if helpers == 0 {
            notes.push(
                "no helpers: mains do all work themselves; at least one is recommended".to_owned(),
            );
        }
        let mode = match helpers % targets {
            0 => HelperMode::PerTarget(helpers / targets),
            _ => HelperMode::Pool,
        };
        let mut layout = Layout {
            targets,
            helpers,
            mode,
            placement: Placement::Linear,
            xstreams: Vec::new(),
            notes,
            next_target: Vec::new(),
            near_helpers: Vec::new(),
        };
        layout.xstreams = (0..SYS_XS_NR + targets + helpers)
            .map(|id| layout.unplaced(XstreamId(id)))
            .collect();
        layout.place(options, cores)?;
        Ok(layout)
    }

    /// Main xstreams.
    pub fn targets(&self) -> u32 {
        self.targets
    }

    /// Offload xstreams, after the cut to two per target.
    pub fn helpers(&self) -> u32 {
        self.helpers
    }

    /// How they relate to targets.
    pub fn mode(&self) -> HelperMode {
        self.mode
    }

    /// How cores were chosen.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// All xstreams by id.
    pub fn xstreams(&self) -> &[XstreamSpec] {
        &self.xstreams
    }

    /// What the operator should know: a clamped number, no helpers, shared cores.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The CPUs in use, ascending: one reactor each.
    pub fn cpus(&self) -> Vec<usize> {
        let mut cpus: Vec<usize> = self.xstreams.iter().map(|xs| xs.cpu).collect();
        cpus.sort_unstable();
        cpus.dedup();
        cpus
    }

    /// In which order they start: system, mains by target, helpers by id.
    pub fn start_order(&self) -> Vec<XstreamId> {
        let of = |role| {
            self.xstreams
                .iter()
                .filter(move |xs| xs.role == role)
                .map(|xs| xs.id)
        };
        of(Role::System)
            .chain(of(Role::Main))
            .chain(of(Role::Offload))
            .collect()
    }

    /// The main xstream of a target.
    pub fn main_of(&self, target: u32) -> Option<XstreamId> {
        let id = match self.mode {
            HelperMode::PerTarget(helpers) => SYS_XS_NR + target * (helpers + 1),
            HelperMode::Pool => SYS_XS_NR + target,
        };
        (target < self.targets).then_some(XstreamId(id))
    }

    /// The xstream behind an RPC tag: 0 is the system xstream, 1 + t the main of target t.
    pub fn by_tag(&self, tag: u32) -> Option<XstreamId> {
        match tag {
            0 => Some(XstreamId(0)),
            tag => self.main_of(tag - 1),
        }
    }

    fn unplaced(&self, id: XstreamId) -> XstreamSpec {
        let (role, target) = match (id.0.checked_sub(SYS_XS_NR), self.mode) {
            (None, _) => (Role::System, None),
            (Some(at), HelperMode::Pool) if at < self.targets => (Role::Main, Some(at)),
            (Some(_), HelperMode::Pool) => (Role::Offload, None),
            (Some(at), HelperMode::PerTarget(helpers)) => {
                let role = if at.is_multiple_of(helpers + 1) {
                    Role::Main
                } else {
                    Role::Offload
                };
                (role, Some(at / (helpers + 1)))
            }
        };
        let iofw = role == Role::Offload || (role == Role::Main && self.helpers == 0);
        XstreamSpec {
            id,
            role,
            target,
            cpu: UNPLACED,
            node: 0,
            device: role == Role::Main,
            iofw,
        }
    }
}

#[cfg(test)]
mod tests;
