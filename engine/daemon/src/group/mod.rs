//! This engine among others: who belongs to its group, who leads it, and who of them is there.
//!
//! | module | holds |
//! |---|---|
//! | `keeper` | what is known, and who is told when it changes; system xstream |
//! | `maps` | lists of members from control planes and other engines |
//! | `facts` | what engines say of themselves, as incast variables |
//! | `meter` | what operators see in metrics |
//! | `status` | what operators ask |

mod facts;
mod keeper;
mod maps;
mod meter;
mod status;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engine_config::{Config, GroupSource};
use engine_etcd::Etcd;
use engine_membership::{Announcement, Desk, Listed, Map, Member, Source, Told};
use engine_rpc::{Heartbeat, Membership, Registry, Request, Seen};
use engine_xstream::{Xstream, Xstreams};

pub(crate) use facts::namespace;
pub(crate) use keeper::GroupKeeper;
pub(crate) use status::{dead_ranks, status};

use crate::error::BootError;
use crate::identity::Identity;
use crate::state::{Engine, NO_RANK};
use crate::wiring;

/// For the system xstream to begin asking.
const START: Duration = Duration::from_secs(5);

/// Who says the members, and which rank this engine has among them if that is known already.
pub(crate) struct Place {
    pub(crate) source: Option<Box<dyn Source>>,
    pub(crate) rank: Option<u32>,
}

/// Asks the source for this engine's rank.
pub(crate) fn place(config: &Config, identity: &Identity) -> Result<Place, BootError> {
    let Some(mut source) = source(config)? else {
        // Nobody else numbers this engine.
        let rank = config.engine.rank.or(Some(0));
        return Ok(Place { source: None, rank });
    };
    let rank = source
        .rank(&identity.uuid.to_string(), config.engine.rank)
        .map_err(BootError::cannot_use)?;
    Ok(Place {
        source: Some(source),
        rank,
    })
}

fn source(config: &Config) -> Result<Option<Box<dyn Source>>, BootError> {
    Ok(match config.group_source() {
        None => None,
        Some(GroupSource::Control) => Some(Box::new(Told)),
        Some(GroupSource::Etcd) => Some(Box::new(Etcd::new(wiring::etcd(config)))),
        Some(GroupSource::Static) => {
            let member = |member: &engine_config::GroupMember| Member {
                rank: member.rank,
                address: member.address,
                incarnation: 0,
            };
            let members = config.group.member.iter().map(member).collect();
            let map = Map::new(config.group.version, members, None).map_err(BootError::config)?;
            Some(Box::new(Listed::new(map)))
        }
    })
}

/// What the RPC knows of the group.
pub(crate) fn membership(place: &Place, incarnation: u64) -> Membership {
    match (&place.source, place.rank) {
        (None, _) => Membership::default(),
        (Some(_), Some(rank)) => Membership::new(rank, incarnation),
        (Some(_), None) => Membership::unranked(incarnation),
    }
}

/// Lets the others' heartbeats and questions be answered.
pub(crate) fn register(engine: &Arc<Engine>, registry: &Registry) -> Result<(), BootError> {
    facts::register(&engine.incast).map_err(BootError::software)?;
    engine.incast.serve(registry).map_err(BootError::software)?;
    if engine.membership.is_alone() {
        return Ok(());
    }
    let group = Arc::clone(&engine.group);
    let told = move |request: Request| group.told(request);
    engine_rpc::register(registry, &engine.membership, told).map_err(BootError::software)
}

/// Begins to share variables, to hear of the group, and to watch the others.
pub(crate) fn start(
    engine: &Arc<Engine>,
    xstreams: &Xstreams,
    source: Option<&mut Box<dyn Source>>,
    listens: Option<SocketAddr>,
) -> Result<Option<Heartbeat>, BootError> {
    engine.group.set_xstreams(xstreams);
    let own = Arc::clone(engine);
    let begin = move |xstream: &Xstream| {
        if own.rank() != NO_RANK {
            own.group.join(xstream, own.rank())?;
        }
        if own.membership.is_alone() {
            return Ok(None);
        }
        let config = &own.config.group;
        let times = (
            Duration::from_millis(config.heartbeat_ms.into()),
            Duration::from_millis(config.silent_ms.into()),
        );
        let group = Arc::clone(&own.group);
        let heard = move |before: &Seen, now: &Seen| group.heard(before, now);
        Heartbeat::start(&own.membership, times, heard).map(Some)
    };
    let begun = xstreams
        .system()
        .call_blocking("start the group", START, begin)
        .map_err(BootError::software)?;
    let heartbeat = begun.map_err(BootError::software)?;
    let Some(source) = source else {
        return Ok(heartbeat);
    };
    let me = Announcement {
        uuid: engine.uuid.to_string(),
        rank: Some(engine.rank()).filter(|rank| *rank != NO_RANK),
        incarnation: engine.membership.incarnation(),
        address: engine
            .config
            .group
            .address
            .or(listens)
            .unwrap_or(engine.config.rpc.listen),
    };
    let desk: Arc<dyn Desk> = Arc::clone(&engine.group) as Arc<dyn Desk>;
    source.start(me, desk).map_err(BootError::cannot_use)?;
    Ok(heartbeat)
}
