//! This engine among others: who belongs to its group, and who of them is there.

use std::time::Duration;

use drpc_wire::keel;
use engine_config::Config;
use engine_rpc::{Heartbeat, Member, Membership, Registry, Seen};
use engine_xstream::Xstreams;

use crate::error::BootError;
use crate::state::Engine;

/// For the system xstream to begin asking.
const START: Duration = Duration::from_secs(5);

/// The group of the configuration; without members this engine is alone.
pub(crate) fn membership(config: &Config, incarnation: u64) -> Membership {
    let group = &config.group;
    let Some(rank) = config.engine.rank.filter(|_| !group.member.is_empty()) else {
        return Membership::default();
    };
    let membership = Membership::new(rank, incarnation);
    let members = group.member.iter().map(|member| Member {
        rank: member.rank,
        address: member.address,
    });
    membership.set(engine_rpc::Group::new(group.version, members));
    membership
}

fn is_alone(engine: &Engine) -> bool {
    engine.config.group.member.is_empty()
}

/// Lets the others' heartbeats be answered.
pub(crate) fn register(engine: &Engine, registry: &Registry) -> Result<(), BootError> {
    if is_alone(engine) {
        return Ok(());
    }
    engine_rpc::register(registry, &engine.membership).map_err(BootError::software)
}

/// Begins to watch the others.
pub(crate) fn start(engine: &Engine, xstreams: &Xstreams) -> Result<Option<Heartbeat>, BootError> {
    if is_alone(engine) {
        return Ok(None);
    }
    let membership = engine.membership.clone();
    let group = &engine.config.group;
    let times = (
        Duration::from_millis(group.heartbeat_ms.into()),
        Duration::from_millis(group.silent_ms.into()),
    );
    let begin = move |_: &engine_xstream::Xstream| Heartbeat::start(&membership, times, |_| {});
    let begun = xstreams
        .system()
        .call_blocking("start heartbeats", START, begin)
        .map_err(BootError::software)?;
    begun.map(Some).map_err(BootError::software)
}

/// For `keel group status`.
pub(crate) fn status(engine: &Engine) -> keel::GroupStatus {
    let group = engine.membership.get();
    let heartbeat = engine.running.get().and_then(|r| r.heartbeat.as_ref());
    let seen = heartbeat.map(Heartbeat::seen).unwrap_or_default();
    let now = spdk_thread::current().map_or(0, |thread| thread.now());
    let member = |member: &Member| {
        let seen = seen.iter().find(|seen| seen.rank == member.rank);
        let row = keel::GroupMember {
            rank: member.rank,
            address: member.address.to_string(),
            ..keel::GroupMember::default()
        };
        match seen {
            _ if member.rank == engine.membership.me() => keel::GroupMember {
                state: "self".to_owned(),
                incarnation: engine.membership.incarnation(),
                ..row
            },
            Some(seen) => keel::GroupMember {
                state: state(seen).to_owned(),
                incarnation: seen.incarnation,
                heard_ms: match seen.heard_ns {
                    0 => 0,
                    heard => now.saturating_sub(heard) / 1_000_000,
                },
                took_us: seen.took_ns / 1000,
                failure: seen.failure.map(|der| der.to_string()).unwrap_or_default(),
                ..row
            },
            None => keel::GroupMember {
                state: "unknown".to_owned(),
                ..row
            },
        }
    };
    keel::GroupStatus {
        system: engine.config.engine.system.clone(),
        version: group.version(),
        rank: engine.rank(),
        incarnation: engine.membership.incarnation(),
        members: group.members().iter().map(member).collect(),
    }
}

fn state(seen: &Seen) -> &'static str {
    match seen.failure {
        Some(daos_errno::Der::GRPVER) => "other version",
        _ if seen.alive => "alive",
        _ if seen.incarnation == 0 => "unknown",
        _ => "silent",
    }
}
