//! Groups and leaders: one truth, of which each rank hears sooner or later. Stands for the control plane or etcd.

use std::collections::BTreeSet;

use engine_iv::{Group, Rank};

/// The truth.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) group: Group,
    pub(crate) leader: Rank,
    pub(crate) term: u64,
}

impl Membership {
    pub(crate) fn new(ranks: u32) -> Membership {
        Membership {
            group: Group::new(1, 0..ranks),
            leader: 0,
            term: 1,
        }
    }

    /// Makes the group what it should be, and the leader one of its members. Says whether anything changed. Nobody to be a member: it
    /// stays as it is.
    pub(crate) fn settle(&mut self, members: &BTreeSet<Rank>) -> bool {
        if members.is_empty() || self.group.members().iter().eq(members.iter()) {
            return false;
        }
        self.group = Group::new(self.group.version() + 1, members.iter().copied());
        if !self.group.contains(self.leader) {
            self.elect(members.iter().next().copied().unwrap_or(self.leader));
        }
        true
    }

    pub(crate) fn elect(&mut self, leader: Rank) {
        self.leader = leader;
        self.term += 1;
    }
}
