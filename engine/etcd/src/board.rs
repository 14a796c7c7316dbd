//! What stands in etcd, as far as it was seen, and what the leader has to write. Sans-I/O: the same for lists, events and tests.

use std::collections::BTreeMap;

use crate::fence::Stamp;
use crate::keys::{Card, Document, Key, Keys, Row, Seen};
use crate::proto::event::EventType;
use crate::proto::{Event, KeyValue};

/// Ranks are below this: the document of so many members still fits into a request to etcd (1.5 MiB).
pub(crate) const RANKS: u32 = 16_384;

/// A member's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) card: Card,
    /// The revision at which it was made: its term, should it lead.
    pub(crate) since: i64,
    pub(crate) lease: i64,
}

/// Everything under the prefix.
#[derive(Debug)]
pub(crate) struct Board {
    keys: Keys,
    pub(crate) ranks: BTreeMap<u32, String>,
    pub(crate) members: BTreeMap<u32, Candidate>,
    /// The document and the revision at which it was written.
    group: Option<(Document, i64)>,
    /// The revision of a document that cannot be read, which the leader replaces.
    damaged: Option<i64>,
}

/// What the leader has to write, and what must still hold then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) document: Document,
    /// The revision of the document that it replaces; 0: there is none.
    pub(crate) replaces: i64,
    /// The revision at which the leader's key was made.
    pub(crate) since: i64,
}

impl Board {
    pub(crate) fn new(keys: Keys) -> Board {
        Board {
            keys,
            ranks: BTreeMap::new(),
            members: BTreeMap::new(),
            group: None,
            damaged: None,
        }
    }

    /// Replaces everything by a list.
    pub(crate) fn load(&mut self, listed: &[KeyValue]) {
        *self = Board::new(self.keys.clone());
        listed.iter().for_each(|kv| self.put(kv));
    }

    /// Something has changed.
    pub(crate) fn apply(&mut self, event: &Event) {
        let Some(kv) = &event.kv else { return };
        match event.r#type() {
            EventType::Put => self.put(kv),
            EventType::Delete => self.delete(kv),
        }
    }

    fn put(&mut self, kv: &KeyValue) {
        match self.keys.read(&kv.key) {
            Key::Other => {}
            Key::Rank(rank) => {
                let uuid = String::from_utf8_lossy(&kv.value).into_owned();
                self.ranks.insert(rank, uuid);
            }
            Key::Member(rank) => match serde_json::from_slice(&kv.value) {
                Ok(card) => {
                    let candidate = Candidate {
                        card,
                        since: kv.create_revision,
                        lease: kv.lease,
                    };
                    self.members.insert(rank, candidate);
                }
                Err(error) => {
                    self.members.remove(&rank);
                    tracing::error!(rank, %error, "the key of a member cannot be read: it is left out of the group");
                }
            },
            Key::Group => self.document(kv),
        }
    }

    fn document(&mut self, kv: &KeyValue) {
        if self
            .group
            .as_ref()
            .is_some_and(|(_, written)| *written >= kv.mod_revision)
        {
            return; // our own, written since
        }
        match serde_json::from_slice::<Document>(&kv.value) {
            Ok(document) if document.map().is_ok() => {
                (self.group, self.damaged) = (Some((document, kv.mod_revision)), None);
            }
            _ => {
                tracing::error!(
                    revision = kv.mod_revision,
                    "the group's document in etcd cannot be read: the leader will replace it"
                );
                (self.group, self.damaged) = (None, Some(kv.mod_revision));
            }
        }
    }

    fn delete(&mut self, kv: &KeyValue) {
        match self.keys.read(&kv.key) {
            Key::Rank(rank) => drop(self.ranks.remove(&rank)),
            Key::Member(rank) => drop(self.members.remove(&rank)),
            Key::Group => (self.group, self.damaged) = (None, None),
            Key::Other => {}
        }
    }

    /// The document as it stands.
    pub(crate) fn group(&self) -> Option<&Document> {
        self.group.as_ref().map(|(document, _)| document)
    }

    /// What the fence wants to know of it.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        self.group.as_ref().map(|(document, written)| Stamp {
            version: document.version,
            term: document.term,
            written: *written,
        })
    }

    /// What members have seen of a group that etcd knows no more.
    pub(crate) fn seen(&self) -> Seen {
        let seen = self.members.values().map(|candidate| candidate.card.seen);
        seen.fold(Seen::default(), Seen::max)
    }

    /// The rank whose key is the oldest, and since when.
    pub(crate) fn leader(&self) -> Option<(u32, i64)> {
        let since = |(rank, candidate): (&u32, &Candidate)| (*rank, candidate.since);
        self.members
            .iter()
            .map(since)
            .min_by_key(|(_, since)| *since)
    }

    /// Whether `me` would lead in a term that may be over, or somebody else's, for all that a member in doubt has seen: it has to get a younger key.
    pub(crate) fn is_of_the_past(&self, me: u32) -> bool {
        let mine = self.leader().filter(|(leader, _)| *leader == me);
        mine.is_some_and(|(_, since)| term(since) <= self.seen().term)
    }

    /// What `me` has to write, if it leads and what stands there is not so. Its version is greater than what any member has seen, `me` among them.
    pub(crate) fn publication(&self, me: u32, mine: u32) -> Option<Publication> {
        let (leader, since) = self.leader().filter(|(leader, _)| *leader == me)?;
        let row = |(rank, candidate): (&u32, &Candidate)| Row {
            rank: *rank,
            address: candidate.card.address,
            incarnation: candidate.card.incarnation,
        };
        let members: Vec<Row> = self.members.iter().map(row).collect();
        let (term, seen) = (term(since), self.seen().version);
        let stands = self.group().is_some_and(|document| {
            (document.leader, document.term, &document.members) == (leader, term, &members)
                && document.version > seen
        });
        if stands {
            return None;
        }
        let version = self.group().map_or(0, |document| document.version);
        Some(Publication {
            document: Document {
                version: version.max(seen).max(mine).checked_add(1)?,
                leader,
                term,
                members,
            },
            replaces: match (&self.group, self.damaged) {
                (Some((_, written)), _) => *written,
                (None, damaged) => damaged.unwrap_or(0),
            },
            since,
        })
    }

    /// What was written stands.
    pub(crate) fn published(&mut self, publication: Publication, revision: i64) {
        (self.group, self.damaged) = (Some((publication.document, revision)), None);
    }

    /// A member has said what it has seen.
    pub(crate) fn tells(&mut self, rank: u32, seen: Seen) {
        if let Some(candidate) = self.members.get_mut(&rank) {
            candidate.card.seen = seen;
        }
    }

    /// The rank of an engine, if one belongs to it.
    pub(crate) fn rank_of(&self, uuid: &str) -> Option<u32> {
        let of = |(rank, owner): (&u32, &String)| (owner == uuid).then_some(*rank);
        self.ranks.iter().find_map(of)
    }

    /// The lowest rank that belongs to nobody.
    pub(crate) fn free_rank(&self) -> Option<u32> {
        (0..RANKS).find(|rank| !self.ranks.contains_key(rank))
    }
}

fn term(since: i64) -> u64 {
    u64::try_from(since).unwrap_or_default()
}

#[cfg(test)]
mod tests;
