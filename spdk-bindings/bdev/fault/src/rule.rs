//! What goes wrong, and when.

use core::ops::Range;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use spdk_bdev::{Op, OpSet, Request};

/// A rule's number, for changing it later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleId(pub(crate) u64);

/// What happens to an I/O that a rule hits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It starts this many ns later. Delays of several rules add up.
    Delay {
        /// Nanoseconds.
        ns: u64,
    },
    /// It starts when the rule is removed.
    Hold,
    /// It fails and nothing reaches the device.
    Fail {
        /// The reason to report.
        why: String,
        /// The error number to report.
        errno: Option<i32>,
    },
    /// Writes only: the first `blocks` blocks reach the device, the rest does not.
    Tear {
        /// How many arrive.
        blocks: u32,
        /// True: reported as done. False: reported as failed.
        acknowledge: bool,
    },
    /// Changes only: reported as done, and nothing reaches the device, ever.
    Lose,
}

/// One fault. The default hits everything, always.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Operations that it hits.
    pub ops: OpSet,
    /// Blocks that it hits; an I/O that touches one of them is hit. Flushes touch all.
    pub lbas: Range<u64>,
    /// So many matching I/Os pass first: "the nth".
    pub after: u64,
    /// So many are hit at most; none: no end.
    pub times: Option<u64>,
    /// Each matching I/O is hit with this probability (0 to 1).
    pub probability: f64,
    /// What happens.
    pub effect: Effect,
}

impl Rule {
    /// Hits every I/O of `ops`.
    #[must_use]
    pub fn new(ops: OpSet, effect: Effect) -> Rule {
        Rule {
            ops,
            lbas: 0..u64::MAX,
            after: 0,
            times: None,
            probability: 1.0,
            effect,
        }
    }

    fn matches(&self, request: &Request) -> bool {
        let touches = request.op == Op::Flush
            || (request.lba < self.lbas.end
                && self.lbas.start < request.lba + u64::from(request.blocks));
        self.ops.contains(request.op) && touches
    }
}

/// The rules in force.
pub(crate) struct Rules {
    active: Vec<Active>,
    random: StdRng,
    next: u64,
}

struct Active {
    id: RuleId,
    rule: Rule,
    matched: u64,
    hits: u64,
}

/// What the rules say about one I/O.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) delay: u64,
    pub(crate) held_by: Vec<RuleId>,
    /// The first of Fail, Tear and Lose.
    pub(crate) end: Option<Effect>,
}

impl Rules {
    pub(crate) fn new(seed: u64) -> Rules {
        Rules {
            active: Vec::new(),
            random: StdRng::seed_from_u64(seed),
            next: 1,
        }
    }

    pub(crate) fn add(&mut self, rule: Rule) -> RuleId {
        let id = RuleId(self.next);
        self.next += 1;
        self.active.push(Active {
            id,
            rule,
            matched: 0,
            hits: 0,
        });
        id
    }

    pub(crate) fn remove(&mut self, id: RuleId) {
        self.active.retain(|active| active.id != id);
    }

    pub(crate) fn clear(&mut self) {
        self.active.clear();
    }

    pub(crate) fn holds(&self, id: RuleId) -> bool {
        self.active.iter().any(|active| active.id == id)
    }

    pub(crate) fn hits(&self, id: RuleId) -> u64 {
        self.active
            .iter()
            .find(|active| active.id == id)
            .map_or(0, |active| active.hits)
    }

    pub(crate) fn judge(&mut self, request: &Request) -> Verdict {
        let mut verdict = Verdict::default();
        for active in &mut self.active {
            let rule = &active.rule;
            if !rule.matches(request) || rule.times.is_some_and(|times| active.hits >= times) {
                continue;
            }
            active.matched += 1;
            let chosen = rule.probability >= 1.0
                || self.random.random_bool(rule.probability.clamp(0.0, 1.0));
            if active.matched <= rule.after || !chosen {
                continue;
            }
            let applies = match rule.effect {
                Effect::Tear { .. } => request.op == Op::Write,
                Effect::Lose => request.op.changes_blocks(),
                _ => true,
            };
            if !applies {
                continue;
            }
            active.hits += 1;
            match &rule.effect {
                Effect::Delay { ns } => verdict.delay = verdict.delay.saturating_add(*ns),
                Effect::Hold => verdict.held_by.push(active.id),
                end => {
                    if verdict.end.is_none() {
                        verdict.end = Some(end.clone());
                    }
                }
            }
        }
        verdict
    }
}
