//! What operators see of a rank's variables.

use std::collections::BTreeMap;

use engine_iv::{Cached, Iv, Key, NsId, Rank, Version};

use crate::history::{History, Past};
use crate::incast::{Incast, Scope};

/// A namespace at this rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// Its id.
    pub ns: NsId,
    /// Whether all engines of the group share it.
    pub shared: bool,
    /// Version of its group.
    pub group: u32,
    /// The root, if it is known.
    pub leader: Option<Rank>,
    /// The root's term.
    pub term: u64,
    /// From this rank up to the root.
    pub path: Vec<Rank>,
    /// Variables of which this rank keeps something.
    pub count: usize,
    /// The first of them.
    pub entries: Vec<Entry>,
}

/// A variable at this rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Id of its class.
    pub class: u32,
    /// Name of its class.
    pub class_name: String,
    /// Its key.
    pub key: Vec<u8>,
    /// The newest version that this rank has heard of.
    pub version: Version,
    /// Bytes of the value, if this rank has it.
    pub len: Option<usize>,
    /// Whether this rank may serve it.
    pub valid: bool,
    /// How long it may still, nanoseconds; `None`: until it changes.
    pub fresh_for: Option<u64>,
    /// What has happened to it here.
    pub past: Past,
}

/// A variable as one rank sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The newest version that the rank has heard of; `None`: it knows nothing of the variable.
    pub version: Option<Version>,
    /// Bytes of the value, if the rank has it.
    pub len: Option<usize>,
    /// Whether it may serve it.
    pub valid: bool,
    /// How long it may still, nanoseconds; `None`: until it changes.
    pub fresh_for: Option<u64>,
    /// From this rank up to the root; empty without a place in the tree.
    pub path: Vec<Rank>,
    /// What has happened to it there.
    pub past: Past,
}

fn left(now: u64, cached: &Cached<'_>) -> Option<u64> {
    match cached.fresh_until {
        u64::MAX => None,
        until => Some(until.saturating_sub(now)),
    }
}

/// `None`: there is no such namespace.
pub(crate) fn trace(iv: &Iv, history: &History, now: u64, ns: NsId, key: &Key) -> Option<Trace> {
    iv.view(ns)?;
    let key = iv.canonical(*key);
    let cached = iv.cached(now, ns, &key);
    Some(Trace {
        version: cached.map(|cached| cached.version),
        len: cached.and_then(|cached| Some(cached.value?.len())),
        valid: cached.is_some_and(|cached| cached.valid),
        fresh_for: cached.and_then(|cached| left(now, &cached)),
        path: iv.path(ns),
        past: history.past(now, ns, &key),
    })
}

pub(crate) fn list(
    (iv, history): (&Iv, &History),
    now: u64,
    most: usize,
    scopes: &BTreeMap<NsId, Scope>,
    names: &Incast,
) -> Vec<Space> {
    let space = |(ns, scope): (&NsId, &Scope)| {
        let (group, leader, term) = iv.view(*ns)?;
        let entries = iv.entries(now, *ns).take(most).map(|(key, cached)| Entry {
            class: key.class(),
            class_name: names.class_name(key.class()),
            key: key.bytes().to_vec(),
            version: cached.version,
            len: cached.value.map(|value| value.len()),
            valid: cached.valid,
            fresh_for: left(now, &cached),
            past: history.past(now, *ns, key),
        });
        Some(Space {
            ns: *ns,
            shared: *scope == Scope::Group,
            group,
            leader,
            term,
            path: iv.path(*ns),
            count: iv.entries(now, *ns).count(),
            entries: entries.collect(),
        })
    };
    scopes.iter().filter_map(space).collect()
}
