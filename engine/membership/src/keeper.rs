//! What is known of the group, and what new word changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use daos_errno::Der;
use thiserror::Error;

use crate::{Leader, Map, Member};

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another version: [`Keeper::map`].
    Map,
    /// Somebody else leads, or in another term, or nobody that is known: [`Keeper::leader`].
    Leader,
    /// A rank is a member now.
    Joined {
        /// The rank.
        rank: u32,
        /// Where it is reached.
        address: SocketAddr,
    },
    /// A rank is no member any more.
    Left {
        /// The rank.
        rank: u32,
    },
    /// A member lives another life: it has died and come back.
    Reborn {
        /// The rank.
        rank: u32,
        /// Its life.
        incarnation: u64,
    },
}

/// Why a map is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A newer one is known.
    #[error("version {offered} of the group is older than {known}, which this engine knows")]
    Older {
        /// The offered one's version.
        offered: u32,
        /// The known one's.
        known: u32,
    },
    /// Two maps have one version.
    #[error("version {0} of the group has other members here: a change needs a new version")]
    Differs(u32),
    /// The leader is one of the past.
    #[error("term {offered} of the group's leader is older than {known}, which this engine knows")]
    OldTerm {
        /// The offered leader's term.
        offered: u64,
        /// The known one's.
        known: u64,
    },
}

impl From<Refusal> for Der {
    fn from(_: Refusal) -> Der {
        Der::GRPVER
    }
}

/// What one engine knows of its group.
#[derive(Clone, Debug)]
pub struct Keeper {
    me: Option<u32>,
    incarnation: u64,
    may_lead: bool,
    map: Map,
    /// Lives that members said they live.
    lives: BTreeMap<u32, u64>,
    leader: Option<Leader>,
    /// The greatest term that was known.
    term: u64,
}

impl Keeper {
    /// This engine is rank `me`, or will learn which, and knows of no group yet.
    pub fn new(me: Option<u32>, incarnation: u64) -> Keeper {
        Keeper {
            me,
            incarnation,
            may_lead: true,
            map: Map::default(),
            lives: BTreeMap::new(),
            leader: None,
            term: 0,
        }
    }

    /// The members.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// Who leads, as far as it is known here.
    pub fn leader(&self) -> Option<Leader> {
        self.leader
    }

    /// Whether this engine leads.
    pub fn leads(&self) -> bool {
        self.leader
            .is_some_and(|leader| Some(leader.rank) == self.me)
    }

    /// Whether this engine is a member.
    pub fn is_member(&self) -> bool {
        self.me.is_some_and(|me| self.map.member(me).is_some())
    }

    /// Takes a map.
    ///
    /// # Errors
    /// It is not newer than the known one. The same once more is no error, and no news.
    pub fn take(&mut self, map: Map) -> Result<Vec<Change>, Refusal> {
        let (offered, known) = (map.version(), self.map.version());
        if offered < known {
            return Err(Refusal::Older { offered, known });
        }
        if offered == known {
            return match map == self.map {
                true => Ok(Vec::new()),
                false => Err(Refusal::Differs(known)),
            };
        }
        if let Some(leader) = map.leader().filter(|leader| leader.term < self.term) {
            return Err(Refusal::OldTerm {
                offered: leader.term,
                known: self.term,
            });
        }
        let old = std::mem::replace(&mut self.map, map);
        self.lives
            .retain(|rank, _| self.map.member(*rank).is_some());
        let mut changes = vec![Change::Map];
        changes.extend(difference(&old, &self.map));
        changes.extend(self.find_leader());
        Ok(changes)
    }

    /// A member says which life it lives. An earlier one than it said before is an answer that was late.
    pub fn heard(&mut self, rank: u32, incarnation: u64) -> Vec<Change> {
        let Some(member) = self.map.member(rank) else {
            return Vec::new();
        };
        let before = self.lives.get(&rank).copied().unwrap_or(0);
        if incarnation <= before {
            return Vec::new();
        }
        self.lives.insert(rank, incarnation);
        // A source that counts lives has told of it already, or will.
        let reborn = before != 0 && member.incarnation == 0;
        let mut changes = Vec::new();
        changes.extend(reborn.then_some(Change::Reborn { rank, incarnation }));
        changes.extend(self.find_leader());
        changes
    }

    /// This engine's rank and life.
    pub fn set_me(&mut self, me: u32, incarnation: u64) -> Vec<Change> {
        (self.me, self.incarnation) = (Some(me), incarnation);
        self.find_leader().into_iter().collect()
    }

    /// Whether this engine's lease holds. Without one it does not lead, whatever the map says.
    pub fn set_may_lead(&mut self, may_lead: bool) -> Vec<Change> {
        self.may_lead = may_lead;
        self.find_leader().into_iter().collect()
    }

    fn find_leader(&mut self) -> Option<Change> {
        let leader = self.appointed().or_else(|| self.lowest());
        let leader = leader.filter(|leader| self.may_lead || Some(leader.rank) != self.me);
        self.term = self.term.max(leader.map_or(0, |leader| leader.term));
        if leader == self.leader {
            return None;
        }
        self.leader = leader;
        Some(Change::Leader)
    }

    fn appointed(&self) -> Option<Leader> {
        self.map.leader()
    }

    /// Of a list: who has the lowest rank, once its life is known. A leader that starts again has forgotten all, so its life is part of
    /// the term; lives are counted in 32 bits.
    fn lowest(&self) -> Option<Leader> {
        let rank = self.map.members().first()?.rank;
        let life = match Some(rank) == self.me {
            true => self.incarnation,
            false => *self.lives.get(&rank)?,
        };
        let term = u64::from(self.map.version()) << 32 | life.min(u64::from(u32::MAX));
        Some(Leader { rank, term })
    }
}

fn difference(old: &Map, new: &Map) -> Vec<Change> {
    let mut changes = Vec::new();
    for member in old.members() {
        if new.member(member.rank).is_none() {
            changes.push(Change::Left { rank: member.rank });
        }
    }
    for Member {
        rank,
        address,
        incarnation,
    } in new.members().iter().copied()
    {
        match old.member(rank) {
            None => changes.push(Change::Joined { rank, address }),
            Some(before) if before.incarnation < incarnation => {
                changes.push(Change::Reborn { rank, incarnation });
            }
            Some(_) => {}
        }
    }
    changes
}

#[cfg(test)]
mod tests;
