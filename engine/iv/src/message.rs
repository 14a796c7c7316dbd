//! What travels between ranks.

use daos_errno::Der;

use crate::options::{How, INLINE, Nanos};
use crate::{Key, NsId, Rank, Value, Version};

/// A message of one rank to another. How it is written is the transport's.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The namespace.
    pub ns: NsId,
    /// The sender's version of the group. A receiver with another one refuses: GRPVER.
    pub group: u32,
    /// The term of the leader that the sender knows. An older one than the receiver's is refused: NOTLEADER; a newer one: GRPVER.
    pub term: u64,
    /// The rest.
    pub body: Body,
}

/// What it is about. `token` ties an answer to its question; `budget` says how long the question is worth answering.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// To the parent: a value, not older than `at_least`.
    Fetch {
        /// Of the question.
        token: u64,
        /// The variable.
        key: Key,
        /// The oldest version that helps.
        at_least: Version,
        /// Time left.
        budget: Nanos,
    },
    /// Answers `Fetch`.
    Fetched {
        /// Of the question.
        token: u64,
        /// The value, or why there is none.
        result: Result<Copy, Der>,
    },
    /// Towards the root: a change.
    Update {
        /// Of the question.
        token: u64,
        /// The variable.
        key: Key,
        /// What shall be.
        change: Change,
        /// How it travels.
        how: How,
        /// The same for each attempt.
        request: RequestId,
        /// Time left.
        budget: Nanos,
    },
    /// Answers `Update`.
    Updated {
        /// Of the question.
        token: u64,
        /// The stamp, or why there is none.
        result: Result<Stamp, Der>,
    },
    /// To the children: a stamped change.
    Sync {
        /// Of the question.
        token: u64,
        /// The variable.
        key: Key,
        /// Its stamp.
        version: Version,
        /// What is now.
        change: Change,
        /// Answer only when all below have it.
        wait: bool,
        /// Time left.
        budget: Nanos,
    },
    /// Answers `Sync`.
    Synced {
        /// Of the question.
        token: u64,
        /// Whether it, and with `wait` all below, took the change.
        result: Result<(), Der>,
    },
}

/// A new state of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This value.
    Set(Value),
    /// None that may be served: whoever wants one asks the root.
    Invalidate,
}

impl Change {
    pub(crate) fn len(&self) -> usize {
        match self {
            Change::Set(value) => value.len(),
            Change::Invalidate => 0,
        }
    }
}

/// A value as a parent hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Its stamp.
    pub version: Version,
    /// The bytes.
    pub value: Value,
    /// How long the parent may serve it still.
    pub fresh_for: Nanos,
}

/// What the root made of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The version that it got.
    pub version: Version,
    /// The value that takes effect, for [`Sync::Bidirectional`].
    pub value: Option<Value>,
}

/// Names a change over all its attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// Whose it is.
    pub rank: Rank,
    /// Which life of that rank.
    pub incarnation: u64,
    /// Counts there, from 1.
    pub number: u64,
}

impl Message {
    /// Whether its value is too long to travel inline: the transport moves it by bulk.
    pub fn is_bulk(&self) -> bool {
        let len = match &self.body {
            Body::Fetched {
                result: Ok(copy), ..
            } => copy.value.len(),
            Body::Updated {
                result: Ok(stamp), ..
            } => stamp.value.as_ref().map_or(0, |v| v.len()),
            Body::Update { change, .. } | Body::Sync { change, .. } => change.len(),
            Body::Fetch { .. }
            | Body::Synced { .. }
            | Body::Fetched { .. }
            | Body::Updated { .. } => 0,
        };
        len > INLINE
    }
}
