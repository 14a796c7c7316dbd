//! What a source of membership is.

use std::net::SocketAddr;

use thiserror::Error;

use crate::Map;

/// What an engine says of itself when it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The engine's uuid: its rank belongs to it.
    pub uuid: String,
    /// Its rank, if it is known yet.
    pub rank: Option<u32>,
    /// Which life it lives; grows with each start.
    pub incarnation: u64,
    /// Where its data RPC is reached.
    pub address: SocketAddr,
}

/// How this engine stands with its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether the source is heard.
    pub connected: bool,
    /// Whether this engine may lead, if the map says that it does: its lease holds.
    pub may_lead: bool,
    /// For an operator: what is wrong and what cures it; empty when nothing is.
    pub note: String,
}

impl Standing {
    /// All is well.
    pub fn good() -> Standing {
        Standing {
            connected: true,
            may_lead: true,
            note: String::new(),
        }
    }
}

/// All that a source knows. A later one replaces an earlier one that nobody has looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The newest map, if there is one.
    pub map: Option<Map>,
    /// How this engine stands.
    pub standing: Standing,
    /// The life in which it is a member: another one after it was put out and came back.
    pub incarnation: u64,
}

/// Where a source hands in what it knows: the engine.
pub trait Desk: Send + Sync {
    /// Hands in a report; never blocks.
    fn report(&self, report: Report);

    /// Begins another life, which is on the disk when this returns. Blocks.
    ///
    /// # Errors
    /// The disk's.
    fn new_life(&self) -> std::io::Result<u64>;
}

/// Why a source does not serve: what, and its cure.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// Where an engine learns who belongs to its group. Calls come from the control thread, and may block for as long as their
/// implementation says.
pub trait Source: Send {
    /// Its word in the configuration.
    fn name(&self) -> &'static str;

    /// The rank of the engine with this uuid, which was given `asked` by its operator; `None`: the source does not say, or not yet.
    ///
    /// # Errors
    /// The rank belongs to another engine, or the source cannot be reached.
    fn rank(&mut self, uuid: &str, asked: Option<u32>) -> Result<Option<u32>, SourceError>;

    /// Announces this engine, and reports from now on.
    ///
    /// # Errors
    /// Only such as a new start with another configuration would cure; what passes by itself is waited for.
    fn start(
        &mut self,
        me: Announcement,
        desk: std::sync::Arc<dyn Desk>,
    ) -> Result<(), SourceError>;

    /// Leaves the group, so that nobody has to wait for this engine's silence.
    fn stop(&mut self);
}
