//! [`FaultControl`]: changes a running [`crate::FaultBdev`].

use core::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spdk_bdev::Request;

use crate::cache::{Cache, Unflushed};
use crate::rule::{Rule, RuleId, Rules, Verdict};

/// What of the volatile cache reaches the medium when the power goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PowerCut {
    /// Nothing.
    LoseAll,
    /// These writes (numbers from [`FaultControl::unflushed`]), the others not.
    KeepWrites(Vec<u64>),
    /// Each block or not, by the seed: writes of several blocks may be torn, later ones may arrive without earlier ones.
    KeepSome {
        /// The same seed keeps the same blocks.
        seed: u64,
    },
}

/// A handle on a fault device's faults. `Clone + Send + Sync`; works while I/O runs.
#[derive(Clone)]
pub struct FaultControl {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) rules: Rules,
    /// None: the device underneath gets every write at once.
    pub(crate) cache: Option<Cache>,
    pub(crate) powered: bool,
    /// Counts power cuts, so that I/O that was out during one is not believed.
    pub(crate) cuts: u64,
    /// The cache is being put on the device underneath: one at a time, or an older write could land on a newer one.
    pub(crate) destaging: bool,
}

impl Shared {
    pub(crate) fn new(seed: u64, cache: Option<Cache>) -> Shared {
        let state = State {
            rules: Rules::new(seed),
            cache,
            powered: true,
            cuts: 0,
            destaging: false,
        };
        Shared {
            state: Mutex::new(state),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn judge(&self, request: &Request) -> Verdict {
        self.lock().rules.judge(request)
    }
}

impl FaultControl {
    /// Puts a rule into force for I/O submitted from now on.
    pub fn add(&self, rule: Rule) -> RuleId {
        self.shared.lock().rules.add(rule)
    }

    /// Ends a rule; I/O that it holds goes on at the next poll.
    pub fn remove(&self, id: RuleId) {
        self.shared.lock().rules.remove(id);
    }

    /// Ends all rules.
    pub fn clear(&self) {
        self.shared.lock().rules.clear();
    }

    /// How many I/Os a rule has hit; 0 for one that was removed.
    #[must_use]
    pub fn hits(&self, id: RuleId) -> u64 {
        self.shared.lock().rules.hits(id)
    }

    /// The writes that a power cut would lose now, oldest first.
    #[must_use]
    pub fn unflushed(&self) -> Vec<Unflushed> {
        self.shared
            .lock()
            .cache
            .as_ref()
            .map_or_else(Vec::new, Cache::list)
    }

    /// Cuts the power: the volatile cache is lost but for what `keep` says, I/O in flight fails with unknown outcome, and all
    /// later I/O fails until [`FaultControl::power_on`].
    pub fn power_cut(&self, keep: &PowerCut) {
        let mut state = self.shared.lock();
        state.powered = false;
        state.cuts += 1;
        if let Some(cache) = &mut state.cache {
            cache.cut(keep);
        }
    }

    /// Switches it on again.
    pub fn power_on(&self) {
        self.shared.lock().powered = true;
    }
}

impl fmt::Debug for FaultControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("FaultControl")
            .field("powered", &state.powered)
            .field("cuts", &state.cuts)
            .finish_non_exhaustive()
    }
}
