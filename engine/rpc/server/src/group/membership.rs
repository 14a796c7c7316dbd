//! The engines that belong together, at one point of their history.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// An engine of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number in the group.
    pub rank: u32,
    /// Where its data RPC listens.
    pub address: SocketAddr,
    /// The life in which it is a member; calls of an earlier one are refused. 0: any.
    pub incarnation: u64,
}

/// The members in one version. Engines that have the same version have the same members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    version: u32,
    /// By rank, ascending.
    members: Vec<Member>,
}

impl Group {
    /// A group; of members with the same rank the first counts.
    pub fn new(version: u32, members: impl IntoIterator<Item = Member>) -> Group {
        let mut members: Vec<Member> = members.into_iter().collect();
        members.sort_by_key(|member| member.rank);
        members.dedup_by_key(|member| member.rank);
        Group { version, members }
    }

    /// Grows by one with every change; 0: no group.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The members, by rank.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member with this rank.
    pub fn member(&self, rank: u32) -> Option<&Member> {
        let at = self
            .members
            .binary_search_by_key(&rank, |member| member.rank);
        at.ok().map(|at| &self.members[at])
    }
}

/// The group as this engine knows it, and who the engine is in it. A handle: clones share it; any thread.
#[derive(Clone)]
pub struct Membership {
    shared: Arc<Shared>,
}

struct Shared {
    alone: bool,
    me: AtomicU32,
    incarnation: AtomicU64,
    generation: AtomicU64,
    group: Mutex<Arc<Group>>,
}

/// A rank that is not known yet (DAOS: `CRT_NO_RANK`).
const NO_RANK: u32 = u32::MAX;

impl Membership {
    /// This engine is `me`, in a life whose number grows with each start, and knows of no group yet.
    pub fn new(me: u32, incarnation: u64) -> Membership {
        Membership::make(false, me, incarnation)
    }

    /// As [`Membership::new`], for an engine that learns its rank later: [`Membership::set_me`].
    pub fn unranked(incarnation: u64) -> Membership {
        Membership::make(false, NO_RANK, incarnation)
    }

    fn make(alone: bool, me: u32, incarnation: u64) -> Membership {
        Membership {
            shared: Arc::new(Shared {
                alone,
                me: AtomicU32::new(me),
                incarnation: AtomicU64::new(incarnation),
                generation: AtomicU64::new(1),
                group: Mutex::default(),
            }),
        }
    }

    /// Whether this engine is in no group and never will be.
    pub fn is_alone(&self) -> bool {
        self.shared.alone
    }

    /// This engine's rank.
    pub fn me(&self) -> u32 {
        self.shared.me.load(Ordering::Acquire)
    }

    /// This engine's life.
    pub fn incarnation(&self) -> u64 {
        self.shared.incarnation.load(Ordering::Acquire)
    }

    /// This engine has a rank now, or begins another life: it was put out of its group and comes back.
    pub fn set_me(&self, me: u32, incarnation: u64) {
        self.shared.me.store(me, Ordering::Release);
        self.shared
            .incarnation
            .store(incarnation, Ordering::Release);
    }

    /// Replaces the group. An older version than the known one is ignored; false says so.
    pub fn set(&self, group: Group) -> bool {
        let mut current = self.lock();
        if group.version <= current.version {
            return false;
        }
        *current = Arc::new(group);
        self.shared.generation.fetch_add(1, Ordering::Release);
        true
    }

    /// The group as it is now.
    pub fn get(&self) -> Arc<Group> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Group>> {
        // A group is replaced as a whole, so a panic elsewhere cannot leave it half changed.
        self.shared
            .group
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Membership {
    /// An engine that is in no group.
    fn default() -> Membership {
        Membership::make(true, NO_RANK, 0)
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = self.get();
        write!(
            f,
            "Membership(rank {} of version {}",
            self.me(),
            group.version
        )?;
        write!(f, ", {} members)", group.members.len())
    }
}

/// One xstream's view of the membership: a look at it takes no lock.
pub(crate) struct View {
    membership: Membership,
    seen: RefCell<(u64, Arc<Group>)>,
}

impl View {
    pub(crate) fn new(membership: Membership) -> View {
        // Generations begin with 1, so the first look fetches the group.
        View {
            membership,
            seen: RefCell::default(),
        }
    }

    pub(crate) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Looks at the group.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Group) -> T) -> T {
        let generation = self.membership.shared.generation.load(Ordering::Acquire);
        let mut seen = self.seen.borrow_mut();
        if seen.0 != generation {
            *seen = (generation, self.membership.get());
        }
        look(&seen.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(version: u32, ranks: &[u32]) -> Group {
        Group::new(
            version,
            ranks.iter().map(|rank| Member {
                rank: *rank,
                address: SocketAddr::from(([127, 0, 0, 1], 1000 + *rank as u16)),
                incarnation: 0,
            }),
        )
    }

    #[test]
    fn members_are_found_by_rank_and_no_version_comes_back() {
        let membership = Membership::new(2, 7);
        let view = View::new(membership.clone());
        assert_eq!(view.with(Group::version), 0);
        assert!(membership.set(group(3, &[5, 2, 5, 0])));
        let ranks =
            |group: &Group| -> Vec<u32> { group.members().iter().map(|m| m.rank).collect() };
        assert_eq!(view.with(ranks), [0, 2, 5]);
        assert_eq!(
            view.with(|g| g.member(5).map(|m| m.address.port())),
            Some(1005)
        );
        assert_eq!(view.with(|g| g.member(1).copied()), None);
        assert!(
            !membership.set(group(3, &[])),
            "the same version is the same group"
        );
        assert!(!membership.set(group(2, &[])));
        assert_eq!(view.with(Group::version), 3);
    }
}
