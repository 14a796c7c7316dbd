//! Questions and answers as bytes. Protobuf, so that either side may learn new fields; long values beside it, as bulk data.

use daos_errno::Der;
use engine_iv::{
    Body, Change, Copy, How, Key, Message, RequestId, Shortcut, Stamp, Sync, Value, Version,
};
use prost::Message as _;
use spdk_env::DmaBuf;

/// DAOS's operations, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Fetch = 0,
    Update = 1,
    Sync = 2,
}

/// A body and, if its value is long, the value beside it.
pub(crate) struct Packed {
    pub(crate) body: Vec<u8>,
    pub(crate) long: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(bytes = "vec", tag = "1")]
    ns: Vec<u8>,
    #[prost(uint32, tag = "2")]
    group: u32,
    #[prost(uint64, tag = "3")]
    term: u64,
    #[prost(uint64, tag = "4")]
    token: u64,
    #[prost(uint32, tag = "5")]
    class: u32,
    #[prost(bytes = "vec", tag = "6")]
    key: Vec<u8>,
    /// Of a fetch the oldest that helps, of a sync the version of the change.
    #[prost(message, optional, tag = "7")]
    version: Option<Stamped>,
    #[prost(uint64, tag = "8")]
    budget_ns: u64,
    #[prost(message, optional, tag = "9")]
    value: Option<Bytes>,
    #[prost(uint32, tag = "10")]
    sync: u32,
    #[prost(bool, tag = "11")]
    to_root: bool,
    #[prost(message, optional, tag = "12")]
    request: Option<Requested>,
    #[prost(bool, tag = "13")]
    wait: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Stamped {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    sequence: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Requested {
    #[prost(uint32, tag = "1")]
    rank: u32,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(uint64, tag = "3")]
    number: u64,
}

/// A value; there is none where the message is left out.
#[derive(Clone, PartialEq, prost::Message)]
struct Bytes {
    #[prost(bytes = "vec", tag = "1")]
    inline: Vec<u8>,
    #[prost(bool, tag = "2")]
    is_bulk: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    /// 0, or a negative DAOS error number.
    #[prost(sint32, tag = "1")]
    code: i32,
    #[prost(message, optional, tag = "2")]
    version: Option<Stamped>,
    #[prost(message, optional, tag = "3")]
    value: Option<Bytes>,
    #[prost(uint64, tag = "4")]
    fresh_for_ns: u64,
}

fn stamped(version: Version) -> Option<Stamped> {
    Some(Stamped {
        term: version.term,
        sequence: version.sequence,
    })
}

fn version(stamped: Option<Stamped>) -> Version {
    let stamped = stamped.unwrap_or_default();
    Version {
        term: stamped.term,
        sequence: stamped.sequence,
    }
}

/// A value inline, or what goes beside it.
fn pack(value: Option<&Value>, is_bulk: bool) -> (Option<Bytes>, Option<Value>) {
    match value {
        None => (None, None),
        Some(value) if is_bulk => {
            let bytes = Bytes {
                inline: Vec::new(),
                is_bulk,
            };
            (Some(bytes), Some(value.clone()))
        }
        Some(value) => {
            let inline = value.to_vec();
            (Some(Bytes { inline, is_bulk }), None)
        }
    }
}

/// The value; an error when it should be beside and is not.
fn unpack(bytes: Option<Bytes>, bulk: Option<&[u8]>) -> Result<Option<Value>, Der> {
    match bytes {
        None => Ok(None),
        Some(Bytes { is_bulk: true, .. }) => bulk.map(|bulk| Some(bulk.into())).ok_or(Der::PROTO),
        Some(Bytes { inline, .. }) => Ok(Some(inline.into())),
    }
}

/// A buffer with a long value.
pub(crate) fn bulk(long: Option<&[u8]>) -> Result<Option<(DmaBuf, usize)>, Der> {
    let Some(long) = long else { return Ok(None) };
    let mut buffer = DmaBuf::alloc(long.len()).map_err(|_| Der::NOMEM)?;
    buffer.as_mut_slice()[..long.len()].copy_from_slice(long);
    Ok(Some((buffer, long.len())))
}

fn change_value(change: &Change) -> Option<&Value> {
    match change {
        Change::Set(value) => Some(value),
        Change::Invalidate => None,
    }
}

/// A question of the machine: its kind, its token, its bytes, its budget.
pub(crate) fn ask(message: &Message) -> Option<(Kind, u64, Packed, u64)> {
    let mut question = Question {
        ns: message.ns.to_le_bytes().to_vec(),
        group: message.group,
        term: message.term,
        ..Question::default()
    };
    let is_bulk = message.is_bulk();
    let (kind, key, long) = match &message.body {
        Body::Fetch {
            token,
            key,
            at_least,
            budget,
        } => {
            (question.token, question.budget_ns) = (*token, *budget);
            question.version = stamped(*at_least);
            (Kind::Fetch, key, None)
        }
        Body::Update {
            token,
            key,
            change,
            how,
            request,
            budget,
        } => {
            (question.token, question.budget_ns) = (*token, *budget);
            question.sync = match how.sync {
                Sync::None => 0,
                Sync::Eager => 1,
                Sync::Lazy => 2,
                Sync::Bidirectional => 3,
            };
            question.to_root = how.shortcut == Shortcut::ToRoot;
            question.request = Some(Requested {
                rank: request.rank,
                incarnation: request.incarnation,
                number: request.number,
            });
            let (value, long) = pack(change_value(change), is_bulk);
            question.value = value;
            (Kind::Update, key, long)
        }
        Body::Sync {
            token,
            key,
            version,
            change,
            wait,
            budget,
        } => {
            (question.token, question.budget_ns) = (*token, *budget);
            (question.version, question.wait) = (stamped(*version), *wait);
            let (value, long) = pack(change_value(change), is_bulk);
            question.value = value;
            (Kind::Sync, key, long)
        }
        Body::Fetched { .. } | Body::Updated { .. } | Body::Synced { .. } => return None,
    };
    (question.class, question.key) = (key.class(), key.bytes().to_vec());
    let body = question.encode_to_vec();
    Some((
        kind,
        question.token,
        Packed { body, long },
        question.budget_ns,
    ))
}

/// The question of another rank; `None`: it is none.
pub(crate) fn question(
    kind: Kind,
    body: &[u8],
    bulk: Option<&[u8]>,
) -> Option<(Message, u64, u64)> {
    let question = Question::decode(body).ok()?;
    let ns = u128::from_le_bytes(question.ns.as_slice().try_into().ok()?);
    let key = Key::new(question.class, &question.key).ok()?;
    let (token, budget) = (question.token, question.budget_ns);
    let value = unpack(question.value, bulk).ok()?;
    let change = value.map_or(Change::Invalidate, Change::Set);
    let body = match kind {
        Kind::Fetch => Body::Fetch {
            token,
            key,
            at_least: version(question.version),
            budget,
        },
        Kind::Update => {
            let request = question.request?;
            let sync = match question.sync {
                0 => Sync::None,
                1 => Sync::Eager,
                2 => Sync::Lazy,
                3 => Sync::Bidirectional,
                _ => return None,
            };
            let shortcut = match question.to_root {
                true => Shortcut::ToRoot,
                false => Shortcut::None,
            };
            Body::Update {
                token,
                key,
                change,
                how: How { sync, shortcut },
                request: RequestId {
                    rank: request.rank,
                    incarnation: request.incarnation,
                    number: request.number,
                },
                budget,
            }
        }
        Kind::Sync => Body::Sync {
            token,
            key,
            version: version(question.version),
            change,
            wait: question.wait,
            budget,
        },
    };
    let message = Message {
        ns,
        group: question.group,
        term: question.term,
        body,
    };
    Some((message, token, budget))
}

/// An answer of the machine: its kind, its question's token, its bytes.
pub(crate) fn answer(body: &Body) -> Option<(Kind, u64, Packed)> {
    let refusal = |der: &Der| Answer {
        code: der.neg(),
        ..Answer::default()
    };
    let is_long = |value: &Value| value.len() > engine_iv::INLINE;
    let (kind, token, answer, long) = match body {
        Body::Fetched { token, result } => match result {
            Ok(copy) => {
                let (value, long) = pack(Some(&copy.value), is_long(&copy.value));
                let answer = Answer {
                    version: stamped(copy.version),
                    value,
                    fresh_for_ns: copy.fresh_for,
                    ..Answer::default()
                };
                (Kind::Fetch, token, answer, long)
            }
            Err(der) => (Kind::Fetch, token, refusal(der), None),
        },
        Body::Updated { token, result } => match result {
            Ok(stamp) => {
                let long = stamp.value.as_ref().is_some_and(is_long);
                let (value, long) = pack(stamp.value.as_ref(), long);
                let answer = Answer {
                    version: stamped(stamp.version),
                    value,
                    ..Answer::default()
                };
                (Kind::Update, token, answer, long)
            }
            Err(der) => (Kind::Update, token, refusal(der), None),
        },
        Body::Synced { token, result } => {
            let answer = result.as_ref().err().map_or_else(Answer::default, refusal);
            (Kind::Sync, token, answer, None)
        }
        Body::Fetch { .. } | Body::Update { .. } | Body::Sync { .. } => return None,
    };
    let body = answer.encode_to_vec();
    Some((kind, *token, Packed { body, long }))
}

/// Another rank's answer to a question of this one.
pub(crate) fn answered(kind: Kind, token: u64, body: &[u8], bulk: &[u8]) -> Body {
    let read = || {
        let answer = Answer::decode(body).map_err(|_| Der::PROTO)?;
        Der::check(answer.code)?;
        let value = unpack(answer.value, Some(bulk))?;
        Ok((version(answer.version), value, answer.fresh_for_ns))
    };
    let result: Result<_, Der> = read();
    match kind {
        Kind::Fetch => Body::Fetched {
            token,
            result: result.and_then(|(version, value, fresh_for)| {
                Ok(Copy {
                    version,
                    value: value.ok_or(Der::PROTO)?,
                    fresh_for,
                })
            }),
        },
        Kind::Update => Body::Updated {
            token,
            result: result.map(|(version, value, _)| Stamp { version, value }),
        },
        Kind::Sync => Body::Synced {
            token,
            result: result.map(drop),
        },
    }
}

/// No answer came.
pub(crate) fn failed(kind: Kind, token: u64, der: Der) -> Body {
    match kind {
        Kind::Fetch => Body::Fetched {
            token,
            result: Err(der),
        },
        Kind::Update => Body::Updated {
            token,
            result: Err(der),
        },
        Kind::Sync => Body::Synced {
            token,
            result: Err(der),
        },
    }
}
