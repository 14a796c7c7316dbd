//! What operators see of a rank's variables.

use std::collections::BTreeMap;

use engine_iv::{Iv, NsId, Rank, Version};

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
}

pub(crate) fn list(
    iv: &Iv,
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
            fresh_for: match cached.fresh_until {
                u64::MAX => None,
                until => Some(until.saturating_sub(now)),
            },
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
