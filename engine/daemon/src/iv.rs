//! For `keel iv`: incast variables at this engine.

use std::fmt::Write;

use daos_errno::Der;
use drpc_wire::keel;
use engine_iv_service::{Entry, NsId, Space};

use crate::group;
use crate::state::Engine;

/// Variables of one namespace in an answer at most, whatever is asked for.
const MOST: u32 = 10_000;

pub(crate) async fn list(engine: &Engine, most: u32) -> Result<keel::IvList, Der> {
    let spaces = engine.incast.list(most.min(MOST) as usize).await?;
    let system = &engine.config.engine.system;
    let own = group::namespace(system);
    let name = |ns: NsId| match ns == own {
        true => system.clone(),
        false => uuid::Uuid::from_u128_le(ns).to_string(),
    };
    let spaces = spaces.into_iter().map(|space| row(name(space.ns), space));
    Ok(keel::IvList {
        spaces: spaces.collect(),
    })
}

fn row(name: String, space: Space) -> keel::IvSpace {
    keel::IvSpace {
        name,
        shared: space.shared,
        group: space.group,
        leader: space.leader,
        term: space.term,
        path: space.path,
        count: space.count as u64,
        entries: space.entries.into_iter().map(entry).collect(),
    }
}

fn entry(entry: Entry) -> keel::IvEntry {
    let mut key = String::new();
    for byte in &entry.key {
        // Writing to a string does not fail.
        let _ = write!(key, "{byte:02x}");
    }
    keel::IvEntry {
        class: entry.class_name,
        key,
        term: entry.version.term,
        sequence: entry.version.sequence,
        bytes: entry.len.map(|len| len as u64),
        valid: entry.valid,
        fresh_ms: entry.fresh_for.map(|ns| ns / 1_000_000),
    }
}
