//! The members of a namespace.

use std::sync::Arc;

/// Number of an engine in its system.
pub type Rank = u32;

/// Members at one point of the group's history. Made by membership, the same at all ranks that have the same version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    version: u32,
    members: Arc<[Rank]>,
}

impl Group {
    /// A group with these members, in any order.
    pub fn new(version: u32, members: impl IntoIterator<Item = Rank>) -> Group {
        let mut members: Vec<Rank> = members.into_iter().collect();
        members.sort_unstable();
        members.dedup();
        Group {
            version,
            members: members.into(),
        }
    }

    /// Grows by one with every change; 0: no group yet.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The members, ascending.
    pub fn members(&self) -> &[Rank] {
        &self.members
    }

    /// Whether the rank belongs to it.
    pub fn contains(&self, rank: Rank) -> bool {
        self.position(rank).is_some()
    }

    pub(crate) fn position(&self, rank: Rank) -> Option<u32> {
        self.members.binary_search(&rank).ok().map(|at| at as u32)
    }
}
