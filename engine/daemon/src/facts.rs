//! What each engine says of itself to the others of its group, as incast variables: a key for each rank, in the namespace that is named
//! after the system.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use daos_errno::Der;
use drpc_wire::{Message, keel};
use engine_iv_service::{Class, Incast, IvValue, Key, NsId, Scope, Sync, Var};
use engine_rpc::Ranks;
use engine_xstream::Xstream;
use spdk_thread::sync::Notify;
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

fn var(engine: &Engine, rank: u32) -> Result<Var<Said>, Der> {
    let key = Key::new(CLASS, &rank.to_be_bytes())?;
    let ns = namespace(&engine.config.engine.system);
    Ok(Var::new(&engine.incast, ns, key))
}

/// Says it from now on, on the system xstream, and again each time that the result is notified: a root that was started anew knows nothing.
pub(crate) fn publish(engine: &Engine, xstream: &Xstream, rank: u32) -> Result<Rc<Notify>, Der> {
    let facts = Said(keel::MemberFacts {
        uuid: engine.uuid.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        targets: engine.config.engine.targets,
    });
    let (mine, ranks) = (var(engine, rank)?, Ranks::current()?);
    let (incast, ns) = (
        engine.incast.clone(),
        namespace(&engine.config.engine.system),
    );
    let again = Rc::new(Notify::new());
    let wake = Rc::clone(&again);
    let task = async move {
        if let Err(der) = incast.connect(ns, Scope::Group).await {
            tracing::error!(%der, "this engine shares nothing with others");
            return;
        }
        loop {
            let said = mine.update(&facts, Sync::Lazy.into(), BUDGET).await;
            let over = match said {
                Ok(_) => first(wake.notified(), ranks.closed()).await,
                Err(failure) if failure.der == Der::SHUTDOWN => true,
                Err(failure) => {
                    tracing::debug!(
                        rank,
                        "this engine's facts did not reach the group's root: {failure}"
                    );
                    first(sleep(PAUSE_NS), ranks.closed()).await
                }
            };
            if over {
                return;
            }
        }
    };
    drop(
        xstream
            .spawn("group facts", task)
            .map_err(|error| error.der())?,
    );
    Ok(again)
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
pub(crate) async fn add(engine: &Engine, members: &mut [keel::GroupMember]) {
    let look = async {
        for member in members {
            let Ok(var) = var(engine, member.rank) else {
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
