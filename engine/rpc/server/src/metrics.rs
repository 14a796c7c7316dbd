//! Counters of one xstream's RPC service. Handles are made once; counting is one add on memory that no other xstream
//! writes.

use engine_telemetry::{counter, gauge};
use metrics::{Counter, Gauge};

/// Why an xstream left a socket unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The connection's or the xstream's requests in flight, or their bytes, are at the bound.
    InFlight,
    /// Answers wait for a slow reader.
    SlowReader,
    /// No bulk buffer is free.
    BulkPool,
}

/// One xstream's.
pub(crate) struct Metrics {
    pub requests: Counter,
    pub errors: Counter,
    pub forwarded: Counter,
    pub slow: Counter,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    pub damaged: Counter,
    /// Parts of offered data that handlers asked for.
    pub pulls: Counter,
    /// Connections that got no owner.
    pub refused: Counter,
    /// Calls from engine to engine: begun, failed without an answer, sent again; connections begun for them.
    pub rank_calls: Counter,
    pub rank_failures: Counter,
    pub sent_again: Counter,
    pub connects: Counter,
    /// Calls of engines: of another version of the group, and those that came before.
    pub strangers: Counter,
    pub duplicates: Counter,
    /// Requests whose answer the peer did not want any more.
    pub canceled: Counter,
    pub in_flight: Gauge,
    pub connections: Gauge,
    held_in_flight: Counter,
    held_slow_reader: Counter,
    held_bulk_pool: Counter,
}

impl Metrics {
    pub(crate) fn new(xstream: &str) -> Metrics {
        let labels = [("xstream", xstream)];
        let held = |reason| {
            counter(
                "keel_rpc_held_total",
                &[("xstream", xstream), ("reason", reason)],
            )
        };
        Metrics {
            requests: counter("keel_rpc_requests_total", &labels),
            errors: counter("keel_rpc_errors_total", &labels),
            forwarded: counter("keel_rpc_forwarded_total", &labels),
            slow: counter("keel_rpc_slow_requests_total", &labels),
            received_bytes: counter("keel_rpc_received_bytes_total", &labels),
            sent_bytes: counter("keel_rpc_sent_bytes_total", &labels),
            damaged: counter("keel_rpc_damaged_frames_total", &labels),
            pulls: counter("keel_rpc_pulls_total", &labels),
            refused: counter("keel_rpc_refused_connections_total", &labels),
            rank_calls: counter("keel_rpc_rank_calls_total", &labels),
            rank_failures: counter("keel_rpc_rank_failures_total", &labels),
            sent_again: counter("keel_rpc_rank_sent_again_total", &labels),
            connects: counter("keel_rpc_rank_connects_total", &labels),
            strangers: counter("keel_rpc_group_mismatches_total", &labels),
            duplicates: counter("keel_rpc_duplicates_total", &labels),
            canceled: counter("keel_rpc_canceled_total", &labels),
            in_flight: gauge("keel_rpc_in_flight", &labels),
            connections: gauge("keel_rpc_connections", &labels),
            held_in_flight: held("in_flight"),
            held_slow_reader: held("slow_reader"),
            held_bulk_pool: held("bulk_pool"),
        }
    }

    pub(crate) fn held(&self, why: Hold) {
        match why {
            Hold::InFlight => self.held_in_flight.increment(1),
            Hold::SlowReader => self.held_slow_reader.increment(1),
            Hold::BulkPool => self.held_bulk_pool.increment(1),
        }
    }
}
