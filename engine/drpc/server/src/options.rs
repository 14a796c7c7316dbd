//! What an operator can set, and every bound with what happens at it.

use drpc_wire::MAX_MESSAGE;

/// Bounds of a server. Each says what happens when it is reached; none of them loses an accepted call.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections at a time. At the bound no more are accepted: they wait in the listen queue, and sessions that have been
    /// idle longer than `idle_timeout_ms` are closed, longest idle first, to make room.
    pub max_sessions: usize,
    /// Calls running at a time, over all sessions. At the bound no session is read until one ends.
    pub max_in_flight: usize,
    /// Calls of one session that run or whose reply is not written yet. At the bound this session is not read.
    pub max_in_flight_per_session: usize,
    /// Bytes held for peers: begun messages, bodies of running calls, unwritten replies. At the bound only the session that
    /// has been in the middle of a message longest is read, so that it can end; the overshoot is at most one message
    /// plus the replies of calls already running.
    pub max_bytes: usize,
    /// Largest message taken. A larger one is answered `FAILED_UNMARSHAL_CALL` and its session closed.
    pub max_message: usize,
    /// A session whose message is begun and not complete for this long, or whose replies cannot be written for this long, is
    /// closed. Time in which the server itself does not read the session does not count.
    pub stall_timeout_ms: u64,
    /// See `max_sessions`.
    pub idle_timeout_ms: u64,
    /// Permissions of the socket file, set before anyone can connect.
    pub mode: u32,
    /// Users that may call, besides root and the engine's own. For others than these two `mode` must let them in as well.
    pub allow_uids: Vec<u32>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_sessions: 128,
            max_in_flight: 256,
            max_in_flight_per_session: 32,
            max_bytes: 256 << 20,
            max_message: MAX_MESSAGE,
            stall_timeout_ms: 10_000,
            idle_timeout_ms: 60_000,
            mode: 0o600,
            allow_uids: Vec::new(),
        }
    }
}
