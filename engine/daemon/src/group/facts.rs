//! What each engine says of itself to the others of its group, as incast variables: a key for each rank, in the namespace that is named
//! after the system.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use daos_errno::Der;
use drpc_wire::{Message, keel};
use engine_config::Config;
use engine_iv_service::{Class, Incast, IvValue, Key, NsId, Scope, Sync, Var};
use engine_rpc::Ranks;
use engine_xstream::Xstream;
use spdk_thread::{sleep, timeout};

use crate::state::Engine;

/// Id of the class: above DAOS's, which end at 12.
const CLASS: u32 = 64;
/// For one attempt to say it.
const BUDGET: Duration = Duration::from_secs(5);
/// Between two attempts that fail.
const PAUSE_NS: u64 = 500_000_000;
/// For `keel group status` to learn what is not known here yet.
const LOOK_NS: u64 = 300_000_000;

struct Facts;

impl Class for Facts {
    fn max_value(&self) -> usize {
        1024
    }
}

/// The value, which belongs to another crate.
struct Said(keel::MemberFacts);

impl IvValue for Said {
    fn read(bytes: &[u8]) -> Option<Said> {
        keel::MemberFacts::decode(bytes).ok().map(Said)
    }

    fn write(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }
}

/// The namespace of a system: its name, which has at most 15 bytes.
pub(crate) fn namespace(system: &str) -> NsId {
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(system.bytes()) {
        *to = from;
    }
    NsId::from_le_bytes(id)
}

/// Before the service starts.
pub(crate) fn register(incast: &Incast) -> Result<(), Der> {
    incast.register(CLASS, "member", Box::new(Facts))
}

fn var(incast: &Incast, ns: NsId, rank: u32) -> Result<Var<Said>, Der> {
    let key = Key::new(CLASS, &rank.to_be_bytes())?;
    Ok(Var::new(incast, ns, key))
}

/// Says what this engine is, each time that somebody leads who may not know it. System xstream, but for making it.
#[derive(Clone)]
pub(crate) struct Sayer(Arc<Shared>);

struct Shared {
    incast: Incast,
    ns: NsId,
    facts: keel::MemberFacts,
    rank: AtomicU64,
    /// How often it was to be said: an older attempt gives way to a newer one.
    asked: AtomicU64,
}

/// Its rank is not known yet, or nothing is shared.
const SILENT: u64 = u64::MAX;

impl Sayer {
    pub(crate) fn new(config: &Config, uuid: String, incast: &Incast) -> Sayer {
        Sayer(Arc::new(Shared {
            incast: incast.clone(),
            ns: namespace(&config.engine.system),
            facts: keel::MemberFacts {
                uuid,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                targets: config.engine.targets,
            },
            rank: AtomicU64::new(SILENT),
            asked: AtomicU64::new(0),
        }))
    }

    /// This engine is this rank, and says so from now on.
    pub(super) fn begin(&self, xstream: &Xstream, rank: u32) -> Result<(), Der> {
        self.0.rank.store(rank.into(), Ordering::Release);
        let own = self.clone();
        let task = async move {
            if let Err(der) = own.0.incast.connect(own.0.ns, Scope::Group).await {
                tracing::error!(%der, "this engine shares nothing with others");
                return;
            }
            own.say();
        };
        let spawned = xstream.spawn("group facts", task);
        spawned.map(drop).map_err(|error| error.der())
    }

    /// Says it once more, until it is heard.
    pub(super) fn say(&self) {
        let rank = self.0.rank.load(Ordering::Acquire);
        let (Ok(rank), Some(xstream)) = (u32::try_from(rank), engine_xstream::current()) else {
            return;
        };
        let asked = self.0.asked.fetch_add(1, Ordering::AcqRel) + 1;
        let own = self.clone();
        let task = async move {
            let (Ok(ranks), Ok(mine)) = (Ranks::current(), var(&own.0.incast, own.0.ns, rank))
            else {
                return;
            };
            let facts = Said(own.0.facts.clone());
            while own.0.asked.load(Ordering::Acquire) == asked {
                match mine.update(&facts, Sync::Lazy.into(), BUDGET).await {
                    Ok(_) => return,
                    Err(failure) if failure.der == Der::SHUTDOWN => return,
                    Err(failure) => {
                        tracing::debug!(
                            rank,
                            "this engine's facts did not reach the group's root: {failure}"
                        );
                    }
                }
                if first(sleep(PAUSE_NS), ranks.closed()).await {
                    return;
                }
            }
        };
        if let Err(error) = xstream.spawn("group facts", task) {
            tracing::warn!(%error, "this engine does not say what it is");
        }
    }
}

/// Waits for either; true: the second came.
async fn first(one: impl Future<Output = ()>, two: impl Future<Output = ()>) -> bool {
    let (mut one, mut two) = (pin!(one), pin!(two));
    poll_fn(|cx| match (two.as_mut().poll(cx), one.as_mut().poll(cx)) {
        (Poll::Ready(()), _) => Poll::Ready(true),
        (_, Poll::Ready(())) => Poll::Ready(false),
        _ => Poll::Pending,
    })
    .await
}

/// Adds what the members have said.
pub(super) async fn add(engine: &Engine, members: &mut [keel::GroupMember]) {
    let ns = namespace(&engine.config.engine.system);
    let look = async {
        for member in members {
            let Ok(var) = var(&engine.incast, ns, member.rank) else {
                continue;
            };
            let known = match member.state.as_str() {
                "self" | "alive" => var.fetch(BUDGET).await.ok(),
                _ => var.get(),
            };
            member.facts = known.map(|said| said.0.clone());
        }
    };
    // What is not learnt in time stays empty.
    let _ = timeout(LOOK_NS, look).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_systems_namespace_is_its_name() {
        assert_eq!(
            namespace("keel").to_le_bytes(),
            *b"keel\0\0\0\0\0\0\0\0\0\0\0\0"
        );
        assert_ne!(namespace("a"), namespace("b"));
    }
}
