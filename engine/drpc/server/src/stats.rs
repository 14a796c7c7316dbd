//! What a server has done and holds.

/// Counters since the start, and gauges of now (the last three).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed because their user may not call.
    pub refused_peers: u64,
    /// Calls started.
    pub calls: u64,
    /// Replies written whole.
    pub replies: u64,
    /// Calls that could not be read.
    pub unreadable: u64,
    /// Sessions closed in the middle of a message, or for not reading their replies.
    pub stalled: u64,
    /// Idle sessions closed to make room.
    pub evicted: u64,
    /// Sessions open.
    pub sessions: usize,
    /// Calls running.
    pub in_flight: usize,
    /// Bytes held for peers.
    pub bytes: usize,
}
