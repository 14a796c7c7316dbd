//! Bounds of the RPC service; each says what happens there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::group::Membership;
use crate::security::Security;
use crate::slow::SlowRequest;

/// One pool of bulk buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkClass {
    /// Bytes of each buffer. The largest class bounds the bulk of a request; it needs at most
    /// [`rpc_wire::MAX_BULK`].
    pub buffer_len: usize,
    /// Buffers in all.
    pub count: usize,
}

/// Called for each slow request, on the xstream that received it; must not block.
pub type SlowHook = Arc<dyn Fn(&SlowRequest<'_>) + Send + Sync>;

/// Bounds and time-outs.
#[derive(Clone)]
pub struct Options {
    /// Connections in all; a further one gets BUSY as the answer to its HELLO.
    pub max_connections: usize,
    /// Connections that have not said HELLO yet; further ones wait in the kernel's accept queue.
    pub max_handshakes: usize,
    /// Unanswered requests of one connection; further ones stay in its socket.
    pub max_in_flight_per_connection: usize,
    /// Parts of offered data on their way over one connection; further pulls wait for these. Each has its buffer of `bulk` before the
    /// requester is asked.
    pub max_pulls_per_connection: usize,
    /// Unanswered requests of all connections of one xstream; at the bound it reads none of its sockets.
    pub max_in_flight: usize,
    /// Bytes of request bodies held by one xstream; at the bound it reads none of its sockets.
    pub max_body_bytes: usize,
    /// Bytes of replies that may wait for one slow reader before its requests are left in its socket.
    pub max_queued_reply_bytes: usize,
    /// Messages from other xstreams that may wait for one xstream; a request beyond gets OVERLOAD_RETRY.
    pub ring_capacity: usize,
    /// In-process calls that one xstream may have in flight; one more gets OVERLOAD_RETRY.
    pub max_calls: usize,
    /// Memory for bulk data of requests, for all xstreams; when it is out, sockets that need it are not read.
    pub bulk: Vec<BulkClass>,
    /// From accepting a connection to its HELLO; then it is closed.
    pub handshake_timeout: Duration,
    /// From the first byte of a frame to its last, not counting time in which the engine itself did not read; then the
    /// connection is closed. As long may nothing come at all while offered data was asked for.
    pub frame_timeout: Duration,
    /// Time without progress while replies wait for the peer to read; then the connection is closed.
    pub write_timeout: Duration,
    /// A request that took this long is counted and logged; zero = none is.
    pub slow_request: Duration,
    /// The engine's group, for calls among its members; by default it is in none, and refuses all such calls with GRPVER.
    pub group: Membership,
    /// TLS of connections; `None`: there is none, and peers that want it are refused.
    pub tls: Option<Security>,
    /// Called for each slow request.
    pub on_slow: Option<SlowHook>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_connections: 1024,
            max_handshakes: 64,
            max_in_flight_per_connection: 128,
            max_pulls_per_connection: 8,
            max_in_flight: 4096,
            max_body_bytes: 64 << 20,
            max_queued_reply_bytes: 16 << 20,
            ring_capacity: 1024,
            max_calls: 4096,
            bulk: vec![
                BulkClass {
                    buffer_len: 64 << 10,
                    count: 128,
                },
                BulkClass {
                    buffer_len: 1 << 20,
                    count: 24,
                },
                BulkClass {
                    buffer_len: rpc_wire::MAX_BULK,
                    count: 8,
                },
            ],
            handshake_timeout: Duration::from_secs(5),
            frame_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            slow_request: Duration::from_secs(1),
            group: Membership::default(),
            tls: None,
            on_slow: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max_connections", &self.max_connections)
            .field(
                "max_in_flight_per_connection",
                &self.max_in_flight_per_connection,
            )
            .field("max_in_flight", &self.max_in_flight)
            .field("bulk", &self.bulk)
            .field("group", &self.group)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
