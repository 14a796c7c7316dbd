//! How other ranks see a variable: asked by operators, answered from what each rank knows at once.

use std::sync::Arc;
use std::time::Duration;

use daos_errno::Der;
use engine_iv::{Key, NsId, Rank, Version};
use engine_rpc::{Again, HandlerEntry, Opcode, RankCall, Ranks, Request};
use engine_tls::TypedKey;
use prost::Message as _;

use crate::history::{LastError, Past};
use crate::incast::Local;
use crate::inspect::Trace;
use crate::peers::{IV_MODULE, VERSION};

/// After DAOS's three.
const INDEX: u16 = 3;
/// For a rank that does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(bytes = "vec", tag = "1")]
    ns: Vec<u8>,
    #[prost(uint32, tag = "2")]
    class: u32,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(bool, tag = "1")]
    known: bool,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    sequence: u64,
    #[prost(uint64, optional, tag = "4")]
    len: Option<u64>,
    #[prost(bool, tag = "5")]
    valid: bool,
    #[prost(uint64, optional, tag = "6")]
    fresh_ns: Option<u64>,
    #[prost(uint32, repeated, tag = "7")]
    path: Vec<u32>,
    #[prost(uint64, optional, tag = "8")]
    age_ns: Option<u64>,
    #[prost(uint64, tag = "9")]
    operations: u64,
    #[prost(uint64, tag = "10")]
    failures: u64,
    #[prost(uint64, tag = "11")]
    retries: u64,
    #[prost(message, optional, tag = "12")]
    last: Option<Last>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Last {
    #[prost(sint32, tag = "1")]
    code: i32,
    #[prost(uint32, optional, tag = "2")]
    asked: Option<u32>,
    #[prost(uint64, tag = "3")]
    ago_ns: u64,
}

fn packed(trace: &Trace) -> Answer {
    let (version, past) = (trace.version.unwrap_or_default(), &trace.past);
    Answer {
        known: trace.version.is_some(),
        term: version.term,
        sequence: version.sequence,
        len: trace.len.map(|len| len as u64),
        valid: trace.valid,
        fresh_ns: trace.fresh_for,
        path: trace.path.clone(),
        age_ns: past.age,
        operations: past.operations,
        failures: past.failures,
        retries: past.retries,
        last: past.last_error.map(|last| Last {
            code: last.der.neg(),
            asked: last.asked,
            ago_ns: last.ago,
        }),
    }
}

fn unpacked(answer: Answer) -> Trace {
    let version = Version {
        term: answer.term,
        sequence: answer.sequence,
    };
    let last = |last: Last| LastError {
        der: Der::check(last.code).err().unwrap_or(Der::MISC),
        asked: last.asked,
        ago: last.ago_ns,
    };
    Trace {
        version: answer.known.then_some(version),
        len: answer.len.and_then(|len| usize::try_from(len).ok()),
        valid: answer.valid,
        fresh_for: answer.fresh_ns,
        path: answer.path,
        past: Past {
            age: answer.age_ns,
            operations: answer.operations,
            failures: answer.failures,
            retries: answer.retries,
            last_error: answer.last.map(last),
        },
    }
}

/// Answers other ranks.
pub(crate) fn entry(key: TypedKey<Local>) -> HandlerEntry {
    let take = move |request: Request| {
        let here = engine_xstream::current();
        let service = here.and_then(|here| key.get(here.tls())?.service());
        let Some(service) = service else {
            return request.reply_error(Der::UNINIT);
        };
        if request.engine().is_none() {
            return request.reply_error(Der::NO_PERM);
        }
        let found = question(request.body()).and_then(|(ns, key)| service.trace(ns, &key));
        match found {
            Ok(trace) => request.reply(0, &packed(&trace).encode_to_vec(), None),
            Err(der) => request.reply_error(der),
        }
    };
    HandlerEntry::new(INDEX, "iv_look", Arc::new(take))
}

fn question(body: &[u8]) -> Result<(NsId, Key), Der> {
    let asked = Question::decode(body).map_err(|_| Der::PROTO)?;
    let ns = <[u8; 16]>::try_from(&*asked.ns).map_err(|_| Der::PROTO)?;
    Ok((NsId::from_le_bytes(ns), Key::new(asked.class, &asked.key)?))
}

/// Asks one rank.
pub(crate) async fn ask(ranks: &Ranks, to: Rank, ns: NsId, key: &Key) -> Result<Trace, Der> {
    let question = Question {
        ns: ns.to_le_bytes().to_vec(),
        class: key.class(),
        key: key.bytes().to_vec(),
    };
    let call = RankCall {
        tag: 0,
        opcode: Opcode::new(IV_MODULE, VERSION, INDEX),
        body: question.encode_to_vec(),
        bulk: None,
        offer: None,
        limit: PATIENCE,
        again: Again::No,
    };
    let reply = ranks.call(to, call).await?.into_result()?;
    Answer::decode(&*reply.body)
        .map(unpacked)
        .map_err(|_| Der::PROTO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rank_knows_comes_over_whole() {
        let last = LastError {
            der: Der::NOTLEADER,
            asked: Some(0),
            ago: 5,
        };
        let full = Trace {
            version: Some(Version {
                term: 2,
                sequence: 9,
            }),
            len: Some(3),
            valid: true,
            fresh_for: Some(7),
            path: vec![5, 4, 0],
            past: Past {
                age: Some(1),
                operations: 4,
                failures: 1,
                retries: 2,
                last_error: Some(last),
            },
        };
        assert_eq!(unpacked(packed(&full)), full);
        let nothing = Trace {
            version: None,
            len: None,
            valid: false,
            fresh_for: None,
            path: Vec::new(),
            past: Past::default(),
        };
        assert_eq!(unpacked(packed(&nothing)), nothing);
    }
}
