//! For `keel iv`: incast variables at this engine, and at others.

use std::fmt::Write;

use daos_errno::Der;
use drpc_wire::keel;
use engine_iv_service::{Entry, Key, NsId, Past, Space, Trace};

use crate::group;
use crate::state::Engine;

/// Variables of one namespace in an answer at most, whatever is asked for.
const MOST: u32 = 10_000;
/// Engines that a trace asks at most.
const MOST_RANKS: u32 = 256;

pub(crate) async fn list(engine: &Engine, most: u32) -> Result<keel::IvList, Der> {
    let spaces = engine.incast.list(most.min(MOST) as usize).await?;
    let spaces = spaces
        .into_iter()
        .map(|space| row(name(engine, space.ns), space));
    Ok(keel::IvList {
        spaces: spaces.collect(),
    })
}

/// The system's, or a uuid.
fn name(engine: &Engine, ns: NsId) -> String {
    let system = &engine.config.engine.system;
    match ns == group::namespace(system) {
        true => system.clone(),
        false => uuid::Uuid::from_u128_le(ns).to_string(),
    }
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
    keel::IvEntry {
        class: entry.class_name,
        key: hex(&entry.key),
        term: entry.version.term,
        sequence: entry.version.sequence,
        bytes: entry.len.map(|len| len as u64),
        valid: entry.valid,
        fresh_ms: entry.fresh_for.map(millis),
        past: Some(past(&entry.past)),
    }
}

fn millis(ns: u64) -> u64 {
    ns / 1_000_000
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn past(past: &Past) -> keel::IvPast {
    let last = past.last_error;
    keel::IvPast {
        age_ms: past.age.map(millis),
        operations: past.operations,
        failures: past.failures,
        retries: past.retries,
        error: last.map(|last| last.der.to_string()).unwrap_or_default(),
        error_asked: last.and_then(|last| last.asked),
        error_ms: last.map_or(0, |last| millis(last.ago)),
    }
}

pub(crate) async fn trace(engine: &Engine, asked: &keel::IvTraceReq) -> Result<keel::IvTrace, Der> {
    let (ns, key) = match named(engine, asked) {
        Ok(named) => named,
        Err(error) => return Ok(wrong(error)),
    };
    let most = asked.most.clamp(1, MOST_RANKS) as usize;
    match engine.incast.trace(ns, key, most).await {
        Ok(ranks) => {
            let ranks = ranks.into_iter();
            let class = engine.incast.class_name(key.class());
            Ok(keel::IvTrace {
                error: String::new(),
                ranks: ranks
                    .map(|(rank, seen)| view(rank, seen, &class, &key))
                    .collect(),
            })
        }
        Err(Der::NONEXIST) => Ok(wrong(format!(
            "this engine has no namespace {}",
            asked.space
        ))),
        Err(der) => Err(der),
    }
}

fn wrong(error: String) -> keel::IvTrace {
    keel::IvTrace {
        error,
        ranks: Vec::new(),
    }
}

/// The names of a question, understood.
fn named(engine: &Engine, asked: &keel::IvTraceReq) -> Result<(NsId, Key), String> {
    let system = &engine.config.engine.system;
    let ns = match asked.space == *system {
        true => group::namespace(system),
        false => uuid::Uuid::try_parse(&asked.space)
            .map_err(|_| format!("{} is neither this system nor a uuid", asked.space))?
            .to_u128_le(),
    };
    let class = engine.incast.class_id(&asked.class);
    let class = class.ok_or_else(|| format!("this engine has no class {}", asked.class))?;
    let digits = asked.key.as_bytes();
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = match digits.iter().all(u8::is_ascii_hexdigit) {
        true if digits.len().is_multiple_of(2) => digits.chunks(2).map(byte).collect(),
        _ => None,
    };
    let bytes = bytes.ok_or_else(|| format!("{} is no row of hexadecimal digits", asked.key))?;
    let key = Key::new(class, &bytes).map_err(|_| "a key has at most 48 bytes".to_owned())?;
    Ok((ns, key))
}

fn view(rank: u32, seen: Result<Trace, Der>, class: &str, key: &Key) -> keel::IvTraceRank {
    let trace = match seen {
        Ok(trace) => trace,
        Err(der) => {
            return keel::IvTraceRank {
                rank,
                failure: der.to_string(),
                ..keel::IvTraceRank::default()
            };
        }
    };
    let known = |version: engine_iv_service::Version| keel::IvEntry {
        class: class.to_owned(),
        key: hex(key.bytes()),
        term: version.term,
        sequence: version.sequence,
        bytes: trace.len.map(|len| len as u64),
        valid: trace.valid,
        fresh_ms: trace.fresh_for.map(millis),
        past: None,
    };
    keel::IvTraceRank {
        rank,
        failure: String::new(),
        entry: trace.version.map(known),
        past: Some(past(&trace.past)),
        path: trace.path,
    }
}
