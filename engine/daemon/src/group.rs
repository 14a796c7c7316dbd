//! This engine among others: who belongs to its group, and who of them is there.

use std::sync::Arc;
use std::time::Duration;

use drpc_wire::keel;
use engine_config::Config;
use engine_rpc::{Heartbeat, Member, Membership, Registry, Seen};
use engine_xstream::{Xstream, Xstreams};

use crate::error::BootError;
use crate::facts;
use crate::state::{Engine, NO_RANK};

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

/// Lets the others' heartbeats and questions be answered.
pub(crate) fn register(engine: &Engine, registry: &Registry) -> Result<(), BootError> {
    facts::register(&engine.incast).map_err(BootError::software)?;
    engine.incast.serve(registry).map_err(BootError::software)?;
    if is_alone(engine) {
        return Ok(());
    }
    engine_rpc::register(registry, &engine.membership).map_err(BootError::software)
}

/// Begins to share variables, to say who this engine is, and to watch the others.
pub(crate) fn start(
    engine: &Arc<Engine>,
    xstreams: &Xstreams,
) -> Result<Option<Heartbeat>, BootError> {
    let rank = match engine.rank() {
        // Without members the number matters to nobody.
        NO_RANK => 0,
        rank => rank,
    };
    let me = (rank, engine.incarnation);
    engine
        .incast
        .start(xstreams, me, &engine.membership)
        .map_err(BootError::software)?;
    let own = Arc::clone(engine);
    let begin = move |xstream: &Xstream| {
        let changed = facts::publish(&own, xstream, rank)?;
        if is_alone(&own) {
            return Ok(None);
        }
        let group = &own.config.group;
        let times = (
            Duration::from_millis(group.heartbeat_ms.into()),
            Duration::from_millis(group.silent_ms.into()),
        );
        let incast = own.incast.clone();
        let hear = move |seen: &Seen| {
            incast.seen(seen);
            // A leader that lost its memory has to be told again.
            changed.notify_one();
        };
        Heartbeat::start(&own.membership, times, hear).map(Some)
    };
    let begun = xstreams
        .system()
        .call_blocking("start the group", START, begin)
        .map_err(BootError::software)?;
    begun.map_err(BootError::software)
}

/// For `keel group status`.
pub(crate) async fn status(engine: &Engine) -> keel::GroupStatus {
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
    let mut members: Vec<keel::GroupMember> = group.members().iter().map(member).collect();
    facts::add(engine, &mut members).await;
    keel::GroupStatus {
        system: engine.config.engine.system.clone(),
        version: group.version(),
        rank: engine.rank(),
        incarnation: engine.membership.incarnation(),
        members,
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
