//! The group in metrics.

use engine_membership::{Change, Leader, Map};
use engine_telemetry::{Counter, Gauge, counter, gauge};

/// Handles are made once.
pub(super) struct Meter {
    version: Gauge,
    members: Gauge,
    leads: Gauge,
    source: Gauge,
    joined: Counter,
    left: Counter,
    reborn: Counter,
    leader: Counter,
}

impl Meter {
    pub(super) fn new() -> Meter {
        let changes = |kind| counter("keel_group_changes_total", &[("kind", kind)]);
        Meter {
            version: gauge("keel_group_version", &[]),
            members: gauge("keel_group_members", &[]),
            leads: gauge("keel_group_leads", &[]),
            source: gauge("keel_group_source_connected", &[]),
            joined: changes("joined"),
            left: changes("left"),
            reborn: changes("reborn"),
            leader: changes("leader"),
        }
    }

    /// Whether the source is heard.
    pub(super) fn hears(&self, source: bool) {
        self.source.set(if source { 1.0 } else { 0.0 });
    }

    /// After changes that led to this.
    pub(super) fn count(&self, map: &Map, leader: Option<Leader>, me: u32, changes: &[Change]) {
        self.version.set(map.version());
        self.members.set(map.members().len() as f64);
        let leads = leader.is_some_and(|leader| leader.rank == me);
        self.leads.set(if leads { 1.0 } else { 0.0 });
        for change in changes {
            match change {
                Change::Map => {}
                Change::Leader => self.leader.increment(1),
                Change::Joined { .. } => self.joined.increment(1),
                Change::Left { .. } => self.left.increment(1),
                Change::Reborn { .. } => self.reborn.increment(1),
            }
        }
    }
}
