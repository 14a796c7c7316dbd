//! `keel group check`: every member of the group is asked, along a tree, and says how it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use daos_errno::Der;
use drpc_wire::{Message, keel};
use engine_rpc::{Collective, HandlerEntry, Opcode, Part, Ranks, Registry, Request};

use crate::error::BootError;
use crate::state::Engine;

/// Module id of what engines ask each other.
const ENGINE_MODULE: u8 = 125;
const ABOUT: Opcode = Opcode::new(ENGINE_MODULE, 1, 0);
/// Longest wait that may be asked for.
const LONGEST: Duration = Duration::from_secs(600);

/// Lets the engine answer for itself.
pub(crate) fn register(engine: &Arc<Engine>, registry: &Registry) -> Result<(), BootError> {
    let engine = Arc::downgrade(engine);
    let about = move |request: Request| match engine.upgrade() {
        Some(engine) => request.reply(0, &about(&engine).encode_to_vec(), None),
        None => request.reply_error(Der::SHUTDOWN),
    };
    let entry = HandlerEntry::new(ABOUT.index(), "engine_about", Arc::new(about));
    registry
        .register_protocol(ENGINE_MODULE, ABOUT.version(), vec![entry])
        .map_err(BootError::software)
}

fn about(engine: &Engine) -> keel::MemberAnswer {
    keel::MemberAnswer {
        state: engine.state().as_str().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: engine.started.elapsed().as_millis() as u64,
        incarnation: engine.membership.incarnation(),
    }
}

/// Asks all members. System xstream.
pub(crate) async fn check(engine: &Engine, limit_ms: u32) -> Result<keel::GroupCheck, Der> {
    let group = engine.membership.get();
    let ranks: Vec<u32> = group.members().iter().map(|member| member.rank).collect();
    let call = Collective {
        tag: 0,
        opcode: ABOUT,
        body: Vec::new(),
        limit: Duration::from_millis(limit_ms.into()).min(LONGEST),
    };
    let begun = Instant::now();
    let parts = Ranks::current()?.call_all(&ranks, call).await?;
    Ok(keel::GroupCheck {
        version: group.version(),
        took_us: begun.elapsed().as_micros() as u64,
        members: parts.iter().map(member).collect(),
    })
}

fn member(part: &Part) -> keel::MemberCheck {
    let answer = Der::check(part.status).and_then(|()| {
        let answer = keel::MemberAnswer::decode(part.body.as_slice());
        answer.map_err(|_| Der::PROTO)
    });
    keel::MemberCheck {
        rank: part.rank,
        failure: answer
            .as_ref()
            .err()
            .map(Der::to_string)
            .unwrap_or_default(),
        answer: answer.ok(),
    }
}
