//! The group as operators and control planes ask for it.

use std::collections::BTreeMap;

use daos_errno::Der;
use drpc_wire::keel;
use engine_config::GroupSource;
use engine_membership::Member;
use engine_rpc::{Heartbeat, Presence, Seen};

use super::facts;
use crate::state::Engine;

/// GROUP_STATUS_GET: the ranks that do not answer; GRPVER: this engine knows another version than the one that is meant.
pub(crate) fn dead_ranks(engine: &Engine, version: u32) -> Result<Vec<u32>, Der> {
    let known = engine.group.known();
    if version != 0 && version != known.map.version() {
        return Err(Der::GRPVER);
    }
    let dead = seen(engine).into_values();
    Ok(dead
        .filter(|seen| seen.presence == Presence::Silent)
        .map(|seen| seen.rank)
        .collect())
}

fn seen(engine: &Engine) -> BTreeMap<u32, Seen> {
    let heartbeat = engine.running.get().and_then(|r| r.heartbeat.as_ref());
    let seen = heartbeat.map(Heartbeat::seen).unwrap_or_default();
    seen.into_iter().map(|seen| (seen.rank, seen)).collect()
}

/// For `keel group status`.
pub(crate) async fn status(engine: &Engine) -> keel::GroupStatus {
    let (known, seen) = (engine.group.known(), seen(engine));
    let now = spdk_thread::current().map_or(0, |thread| thread.now());
    let rows = known.map.members().iter();
    let mut members: Vec<_> = rows
        .map(|member| row(engine, member, seen.get(&member.rank), now))
        .collect();
    facts::add(engine, &mut members).await;
    let source = match engine.group.source() {
        None => "",
        Some(GroupSource::Static) => "static",
        Some(GroupSource::Control) => "control",
        Some(GroupSource::Etcd) => "etcd",
    };
    keel::GroupStatus {
        system: engine.config.engine.system.clone(),
        version: known.map.version(),
        rank: engine.rank(),
        incarnation: engine.membership.incarnation(),
        members,
        source: source.to_owned(),
        leader: known.leader.map(|leader| leader.rank),
        term: known.leader.map_or(0, |leader| leader.term),
        note: known.standing.note,
    }
}

fn row(engine: &Engine, member: &Member, seen: Option<&Seen>, now: u64) -> keel::GroupMember {
    let row = keel::GroupMember {
        rank: member.rank,
        address: member.address.to_string(),
        incarnation: member.incarnation,
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
            incarnation: seen.incarnation.max(member.incarnation),
            heard_ms: match seen.incarnation {
                0 => 0,
                _ => now.saturating_sub(seen.heard_ns) / 1_000_000,
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
}

fn state(seen: &Seen) -> &'static str {
    match (seen.failure, seen.presence) {
        (Some(Der::GRPVER), _) => "other version",
        (Some(Der::EXCLUDED), _) => "other life",
        (_, Presence::Alive) => "alive",
        (_, Presence::Silent) if seen.incarnation != 0 => "silent",
        (_, Presence::Silent | Presence::Unknown) => "unknown",
    }
}
