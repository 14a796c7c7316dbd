//! What this engine knows of its group, and who is told when it changes: the RPC, the incast variables, the operator.
//!
//! Sources and heartbeats bring news. A source's thread leaves its report on the desk and sends the system xstream there; everything
//! else happens on the system xstream.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use daos_errno::Der;
use engine_config::{Config, GroupSource};
use engine_iv_service::Incast;
use engine_membership::{Change, Desk, Keeper, Leader, Map, Refusal, Report, Standing};
use engine_rpc::{Membership, Presence, Seen};
use engine_xstream::{Xstream, Xstreams};
use uuid::Uuid;

use super::facts::Sayer;
use super::meter::Meter;
use crate::identity;
use crate::ras::{GroupEvent, Herald};
use crate::state::NO_RANK;

/// What is known, at one moment.
pub(crate) struct Known {
    pub(crate) map: Map,
    pub(crate) leader: Option<Leader>,
    pub(crate) standing: Standing,
}

struct State {
    keeper: Keeper,
    standing: Standing,
}

/// The engine's view of its group.
pub(crate) struct GroupKeeper {
    myself: Weak<GroupKeeper>,
    source: Option<GroupSource>,
    storage_dir: PathBuf,
    membership: Membership,
    incast: Incast,
    facts: Sayer,
    herald: Herald,
    meter: Meter,
    xstreams: OnceLock<Xstreams>,
    state: Mutex<State>,
    /// What the source left and nobody has looked at yet.
    desk: Mutex<Option<Report>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Values are replaced as a whole: a panic elsewhere leaves none half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GroupKeeper {
    pub(crate) fn new(
        config: &Config,
        membership: &Membership,
        incast: &Incast,
        uuid: Uuid,
    ) -> io::Result<Arc<GroupKeeper>> {
        let me = Some(membership.me()).filter(|me| *me != NO_RANK);
        let source = config.group_source();
        let mut standing = Standing::good();
        if source == Some(GroupSource::Control) {
            standing.note = "waiting for GROUP_UPDATE".to_owned();
        }
        let herald = Herald::start(config.drpc.control_server.clone())?;
        Ok(Arc::new_cyclic(|myself| GroupKeeper {
            myself: myself.clone(),
            source,
            storage_dir: config.engine.storage_dir.clone(),
            membership: membership.clone(),
            incast: incast.clone(),
            facts: Sayer::new(config, uuid.to_string(), incast),
            herald,
            meter: Meter::new(),
            xstreams: OnceLock::new(),
            state: Mutex::new(State {
                keeper: Keeper::new(me, membership.incarnation()),
                standing,
            }),
            desk: Mutex::default(),
        }))
    }

    /// Who says the members; `None`: this engine is alone.
    pub(crate) fn source(&self) -> Option<GroupSource> {
        self.source
    }

    pub(super) fn membership(&self) -> &Membership {
        &self.membership
    }

    pub(super) fn myself(&self) -> Option<Arc<GroupKeeper>> {
        self.myself.upgrade()
    }

    pub(crate) fn known(&self) -> Known {
        let state = locked(&self.state);
        Known {
            map: state.keeper.map().clone(),
            leader: state.keeper.leader(),
            standing: state.standing.clone(),
        }
    }

    /// Before anything is reported.
    pub(crate) fn set_xstreams(&self, xstreams: &Xstreams) {
        // Set once: an engine starts its group once.
        let _ = self.xstreams.set(xstreams.clone());
    }

    /// This engine has a rank: it shares variables from now on. System xstream, once.
    pub(crate) fn join(&self, xstream: &Xstream, rank: u32) -> Result<(), Der> {
        let xstreams = self.xstreams.get().ok_or(Der::UNINIT)?;
        let incarnation = self.membership.incarnation();
        self.herald.set_rank(rank);
        self.incast
            .start_here(xstream, xstreams, (rank, incarnation), &self.membership)
            .map_err(|error| error.der())?;
        if !self.membership.is_alone() {
            self.membership.set_me(rank, incarnation);
            self.change(|keeper| keeper.set_me(rank, incarnation));
            let leader = self.known().leader;
            self.incast
                .group_changed(leader.map(|leader| (leader.rank, leader.term)));
        }
        self.facts.begin(xstream, rank)
    }

    /// Another map, from wherever. System xstream.
    pub(crate) fn take(&self, map: Map) -> Result<(), Refusal> {
        let changes = {
            let mut state = locked(&self.state);
            let changes = state.keeper.take(map)?;
            if self.source == Some(GroupSource::Control) {
                state.standing = Standing::good();
            }
            changes
        };
        self.apply(&changes);
        Ok(())
    }

    /// Of a heartbeat. System xstream.
    pub(crate) fn heard(&self, before: &Seen, now: &Seen) {
        // A source that found the xstream's mailbox full has left its report all the same.
        self.look();
        if now.incarnation != before.incarnation {
            self.change(|keeper| keeper.heard(now.rank, now.incarnation));
        }
        if now.presence != before.presence {
            let (event, text) = match now.presence {
                Presence::Silent => (
                    GroupEvent::RankDead,
                    format!("rank {} at {} does not answer", now.rank, now.address),
                ),
                _ => (
                    GroupEvent::RankAlive,
                    format!("rank {} at {} answers", now.rank, now.address),
                ),
            };
            self.herald.raise(event, (now.rank, now.incarnation), text);
        }
        if now.failure == Some(Der::GRPVER) && self.source == Some(GroupSource::Control) {
            self.tell(now.rank);
        }
    }

    /// Looks at what the source has left. System xstream.
    fn look(&self) {
        let Some(report) = locked(&self.desk).take() else {
            return;
        };
        let before = std::mem::replace(&mut locked(&self.state).standing, report.standing.clone());
        self.meter.hears(report.standing.connected);
        self.stands(&before, &report.standing);
        if report.incarnation != self.membership.incarnation() {
            let me = self.membership.me();
            self.membership.set_me(me, report.incarnation);
            self.change(|keeper| keeper.set_me(me, report.incarnation));
        }
        self.change(|keeper| keeper.set_may_lead(report.standing.may_lead));
        if let Some(map) = report.map
            && let Err(refusal) = self.take(map)
        {
            tracing::error!(%refusal, "a map of the group is refused");
        }
    }

    fn stands(&self, before: &Standing, now: &Standing) {
        let me = (self.membership.me(), self.membership.incarnation());
        let event = match (before.connected, now.connected) {
            (true, false) => GroupEvent::SourceLost,
            (false, true) => GroupEvent::SourceBack,
            _ if before.note != now.note && !now.note.is_empty() => GroupEvent::SourceLost,
            _ => return,
        };
        let text = match now.note.as_str() {
            "" => "the source of the group is heard again".to_owned(),
            note => note.to_owned(),
        };
        self.herald.raise(event, me, text);
    }

    fn change(&self, change: impl FnOnce(&mut Keeper) -> Vec<Change>) {
        let changes = change(&mut locked(&self.state).keeper);
        self.apply(&changes);
    }

    /// Tells everybody. System xstream.
    fn apply(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        let Known { map, leader, .. } = self.known();
        if changes.contains(&Change::Map) {
            let member = |member: &engine_membership::Member| engine_rpc::Member {
                rank: member.rank,
                address: member.address,
                incarnation: member.incarnation,
            };
            let members = map.members().iter().map(member);
            self.membership
                .set(engine_rpc::Group::new(map.version(), members));
        }
        let me = self.membership.me();
        self.meter.count(&map, leader, me, changes);
        if changes.contains(&Change::Map) || changes.contains(&Change::Leader) {
            self.incast
                .group_changed(leader.map(|leader| (leader.rank, leader.term)));
            // Whoever leads now may know nothing.
            self.facts.say();
        }
        for change in changes {
            self.announce(change, &map, leader);
        }
    }

    fn announce(&self, change: &Change, map: &Map, leader: Option<Leader>) {
        let version = map.version();
        let (event, rank, text) = match *change {
            Change::Map => {
                let members = map.members().len();
                return tracing::info!(version, members, "the group has another version");
            }
            Change::Joined { rank, address } => (
                GroupEvent::RankJoined,
                (rank, 0),
                format!("rank {rank} at {address} belongs to the group, version {version}"),
            ),
            Change::Left { rank } => (
                GroupEvent::RankLeft,
                (rank, 0),
                format!("rank {rank} belongs to the group no more, version {version}"),
            ),
            Change::Reborn { rank, incarnation } => (
                GroupEvent::RankReborn,
                (rank, incarnation),
                format!("rank {rank} has died and come back, incarnation {incarnation}"),
            ),
            Change::Leader => match leader {
                Some(Leader { rank, term }) => (
                    GroupEvent::LeaderChanged,
                    (rank, 0),
                    format!("rank {rank} leads the group, term {term}"),
                ),
                None => (
                    GroupEvent::LeaderChanged,
                    (NO_RANK, 0),
                    "nobody that is known here leads the group".to_owned(),
                ),
            },
        };
        self.herald.raise(event, rank, text);
    }
}

impl Desk for GroupKeeper {
    fn report(&self, report: Report) {
        *locked(&self.desk) = Some(report);
        let Some(xstreams) = self.xstreams.get() else {
            return;
        };
        let myself = self.myself.clone();
        // A full mailbox delays it until the next heartbeat; an xstream at its end needs no news.
        let _ = xstreams.system().send(move |_| {
            if let Some(keeper) = myself.upgrade() {
                keeper.look();
            }
        });
    }

    fn new_life(&self) -> io::Result<u64> {
        identity::one_more_life(&self.storage_dir).map_err(io::Error::other)
    }
}
