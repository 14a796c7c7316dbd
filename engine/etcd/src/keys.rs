//! What stands in etcd: names and values.

use std::net::SocketAddr;

use engine_membership::{Leader, Map, Member};
use serde::{Deserialize, Serialize};

/// Names of keys.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

/// What a key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Rank(u32),
    Member(u32),
    Group,
    Other,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Keys {
        Keys {
            prefix: prefix.trim_end_matches('/').to_owned(),
        }
    }

    /// Whose uuid has a rank.
    pub(crate) fn rank(&self, rank: u32) -> Vec<u8> {
        format!("{}/ranks/{rank:05}", self.prefix).into_bytes()
    }

    pub(crate) fn member(&self, rank: u32) -> Vec<u8> {
        format!("{}/members/{rank:05}", self.prefix).into_bytes()
    }

    pub(crate) fn group(&self) -> Vec<u8> {
        format!("{}/group", self.prefix).into_bytes()
    }

    /// All of them: the first, and the one behind the last.
    pub(crate) fn all(&self) -> (Vec<u8>, Vec<u8>) {
        let first = format!("{}/", self.prefix).into_bytes();
        let behind = format!("{}0", self.prefix).into_bytes(); // '0' follows '/'
        (first, behind)
    }

    pub(crate) fn read(&self, key: &[u8]) -> Key {
        let name = std::str::from_utf8(key).ok();
        let Some(name) = name.and_then(|name| name.strip_prefix(&self.prefix)?.strip_prefix('/'))
        else {
            return Key::Other;
        };
        let number = |text: &str| text.parse().ok();
        match name.split_once('/') {
            None if name == "group" => Key::Group,
            Some(("ranks", rank)) => number(rank).map_or(Key::Other, Key::Rank),
            Some(("members", rank)) => number(rank).map_or(Key::Other, Key::Member),
            _ => Key::Other,
        }
    }
}

/// The value of a member's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Card {
    pub(crate) uuid: String,
    pub(crate) address: SocketAddr,
    pub(crate) incarnation: u64,
    /// What it has seen of a group that etcd knows no more; all zero: nothing.
    #[serde(default)]
    pub(crate) seen: Seen,
}

/// The greatest version and term that an engine has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) version: u32,
    pub(crate) term: u64,
}

impl Seen {
    /// The greater of each.
    pub(crate) fn max(self, other: Seen) -> Seen {
        Seen {
            version: self.version.max(other.version),
            term: self.term.max(other.term),
        }
    }
}

/// A member in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) rank: u32,
    pub(crate) address: SocketAddr,
    pub(crate) incarnation: u64,
}

/// The document that the leader writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) version: u32,
    pub(crate) leader: u32,
    pub(crate) term: u64,
    pub(crate) members: Vec<Row>,
}

impl Document {
    pub(crate) fn map(&self) -> Result<Map, engine_membership::MapError> {
        let member = |row: &Row| Member {
            rank: row.rank,
            address: row.address,
            incarnation: row.incarnation,
        };
        let leader = Leader {
            rank: self.leader,
            term: self.term,
        };
        let members = self.members.iter().map(member).collect();
        Map::new(self.version, members, Some(leader))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_and_read() {
        let keys = Keys::new("/keel/one/");
        assert_eq!(keys.member(7), b"/keel/one/members/00007");
        assert_eq!(keys.read(&keys.member(7)), Key::Member(7));
        assert_eq!(keys.read(&keys.rank(65_535)), Key::Rank(65_535));
        assert_eq!(keys.read(&keys.group()), Key::Group);
        for other in [
            "/keel/one2/group",
            "/keel/one/group/x",
            "/keel/one/ranks/x",
            "/keel/one",
        ] {
            assert_eq!(keys.read(other.as_bytes()), Key::Other, "{other}");
        }
        let (first, behind) = keys.all();
        assert!(first < keys.group() && keys.rank(0) < behind);
        assert!(!(first..behind).contains(&b"/keel/one2/group".to_vec()));
    }
}
