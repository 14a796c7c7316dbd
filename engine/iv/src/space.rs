//! A namespace at one rank.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use daos_errno::Der;

use crate::class::Place;
use crate::entry::Entry;
use crate::fetch::Miss;
use crate::hash::QuickBuild;
use crate::operation::OpId;
use crate::spread::Spread;
use crate::update::Passing;
use crate::window::Window;
use crate::{Group, Key, NsId, Rank, Tree, Version};

/// Ends of spreads that a rank remembers, for parents that ask again because an answer was lost.
const REMEMBERED: usize = 64;

/// Who gets an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// An operation of this rank.
    Own(OpId),
    /// A question of another rank, asked in this version of the group.
    Peer { rank: Rank, token: u64, group: u32 },
}

/// The last names that were noted.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    known: HashSet<(Rank, u64), QuickBuild>,
    order: VecDeque<(Rank, u64)>,
}

impl Finished {
    pub(crate) fn contains(&self, name: (Rank, u64)) -> bool {
        self.known.contains(&name)
    }

    pub(crate) fn note(&mut self, name: (Rank, u64)) {
        if !self.known.insert(name) {
            return;
        }
        self.order.push_back(name);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.known.clear();
        self.order.clear();
    }
}

#[derive(Debug, Default)]
pub(crate) struct Space {
    pub(crate) id: NsId,
    /// Who connected and has not disconnected.
    pub(crate) users: u32,
    /// Takes nothing new.
    pub(crate) stopping: bool,
    pub(crate) tree: Tree,
    pub(crate) group: Group,
    pub(crate) leader: Option<Rank>,
    pub(crate) term: u64,
    /// The last one that this rank stamped in this term.
    sequence: u64,
    /// From group and leader.
    pub(crate) parent: Option<Rank>,
    pub(crate) children: Vec<Rank>,
    pub(crate) entries: BTreeMap<Key, Entry>,
    pub(crate) misses: BTreeMap<Key, Miss>,
    pub(crate) passing: HashMap<u64, Passing, QuickBuild>,
    pub(crate) spreads: HashMap<u64, Spread, QuickBuild>,
    /// Of these, the ones that a parent began: by it and its token.
    pub(crate) begun: HashSet<(Rank, u64), QuickBuild>,
    /// Spreads that ended well here a moment ago, by parent and token, for parents that did not hear the answer.
    pub(crate) finished: Finished,
    pub(crate) window: Window,
}

impl Space {
    pub(crate) fn new(id: NsId, tree: Tree) -> Space {
        Space {
            id,
            tree,
            ..Space::default()
        }
    }

    /// A leader that the group has left out is no root: it would find that all of nobody have its changes.
    pub(crate) fn is_root(&self, me: Rank) -> bool {
        self.leader == Some(me) && self.group.contains(me)
    }

    pub(crate) fn place(&self, me: Rank) -> Place {
        Place {
            ns: self.id,
            term: self.term,
            root: self.is_root(me),
        }
    }

    /// The next version, newer than whatever this rank has heard of the key.
    pub(crate) fn stamp(&mut self, key: &Key) -> Version {
        let heard = self
            .entries
            .get(key)
            .map(|entry| entry.version)
            .unwrap_or_default();
        if heard.term == self.term {
            self.sequence = self.sequence.max(heard.sequence);
        }
        self.sequence += 1;
        Version {
            term: self.term,
            sequence: self.sequence,
        }
    }

    /// Another leader: this rank counts anew. One that comes back in its term goes on counting.
    pub(crate) fn lead(&mut self, leader: Rank, term: u64) {
        if term > self.term {
            self.sequence = 0;
        }
        (self.leader, self.term) = (Some(leader), term);
    }

    /// After a change of group or leader.
    pub(crate) fn find_place(&mut self, me: Rank) {
        let leader = self.leader.filter(|leader| self.group.contains(*leader));
        self.parent = leader.and_then(|leader| self.tree.parent(&self.group, leader, me));
        self.children = leader.map_or_else(Vec::new, |leader| {
            self.tree.children(&self.group, leader, me)
        });
    }

    /// Whom to ask: the parent, or the root itself.
    pub(crate) fn upwards(&self, to_root: bool) -> Result<Rank, Der> {
        let leader = self.leader.ok_or(Der::NOTLEADER)?;
        let parent = self.parent.ok_or(Der::OOG)?;
        Ok(if to_root { leader } else { parent })
    }

    /// Nothing that is kept may be served before the root confirms it.
    pub(crate) fn doubt(&mut self) {
        for entry in self.entries.values_mut() {
            entry.confirmed = false;
        }
    }
}
