//! The members in one version.

use std::net::SocketAddr;

use thiserror::Error;

/// Members at most, as DAOS's largest systems have.
const MOST: usize = 65_536;

/// An engine of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number in the group.
    pub rank: u32,
    /// Where its data RPC listens.
    pub address: SocketAddr,
    /// The life in which it is a member; 0: the source does not say.
    pub incarnation: u64,
}

/// Who leads the group, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its rank.
    pub rank: u32,
    /// Greater than those of all leaders before it.
    pub term: u64,
}

/// Why a list of members is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MapError {
    /// Versions begin with 1.
    #[error("the list of members has version 0; versions begin with 1")]
    NoVersion,
    /// Two members are one.
    #[error("rank {0} stands twice in the list of members")]
    Twice(u32),
    /// More than anybody has.
    #[error("{0} members; at most {MOST} are possible")]
    TooMany(usize),
    /// The leader is none of them.
    #[error("the leader, rank {0}, is no member")]
    StrangeLeader(u32),
}

/// The members in one version. Engines that know the same version know the same members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    version: u32,
    /// By rank, ascending.
    members: Vec<Member>,
    leader: Option<Leader>,
}

impl Map {
    /// A map. Without a leader the member with the lowest rank leads.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(
        version: u32,
        mut members: Vec<Member>,
        leader: Option<Leader>,
    ) -> Result<Map, MapError> {
        if version == 0 {
            return Err(MapError::NoVersion);
        }
        if members.len() > MOST {
            return Err(MapError::TooMany(members.len()));
        }
        members.sort_by_key(|member| member.rank);
        if let Some(pair) = members.windows(2).find(|pair| pair[0].rank == pair[1].rank) {
            return Err(MapError::Twice(pair[0].rank));
        }
        let map = Map {
            version,
            members,
            leader,
        };
        match leader {
            Some(leader) if map.member(leader.rank).is_none() => {
                Err(MapError::StrangeLeader(leader.rank))
            }
            _ => Ok(map),
        }
    }

    /// Grows with every change; 0: nobody has said anything yet.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// By rank, ascending.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The leader that the source named.
    pub fn leader(&self) -> Option<Leader> {
        self.leader
    }

    /// The member with this rank.
    pub fn member(&self, rank: u32) -> Option<&Member> {
        let at = self
            .members
            .binary_search_by_key(&rank, |member| member.rank);
        at.ok().map(|at| &self.members[at])
    }
}
