//! The server's figures for operators.

use engine_telemetry::{Kind, counter, describe, gauge};

use crate::stats::Stats;

type Set = Box<dyn Fn(&Stats)>;

/// Handles, made once; publishing is a store each.
pub(crate) struct Metrics(Vec<Set>);

type Read = fn(&Stats) -> u64;

const COUNTERS: [(&str, &str, Read); 7] = [
    (
        "keel_drpc_connections_accepted_total",
        "dRPC connections accepted",
        |s| s.accepted,
    ),
    (
        "keel_drpc_connections_refused_total",
        "dRPC connections refused for their user",
        |s| s.refused_peers,
    ),
    ("keel_drpc_calls_total", "dRPC calls started", |s| s.calls),
    (
        "keel_drpc_replies_total",
        "dRPC replies written whole",
        |s| s.replies,
    ),
    (
        "keel_drpc_calls_unreadable_total",
        "dRPC calls that could not be read",
        |s| s.unreadable,
    ),
    (
        "keel_drpc_sessions_stalled_total",
        "dRPC sessions closed for stalling in the middle of a message",
        |s| s.stalled,
    ),
    (
        "keel_drpc_sessions_evicted_total",
        "idle dRPC sessions closed to make room",
        |s| s.evicted,
    ),
];

const GAUGES: [(&str, &str, Read); 3] = [
    ("keel_drpc_sessions", "dRPC sessions open", |s| {
        s.sessions as u64
    }),
    ("keel_drpc_calls_in_flight", "dRPC calls running", |s| {
        s.in_flight as u64
    }),
    ("keel_drpc_held_bytes", "bytes held for dRPC peers", |s| {
        s.bytes as u64
    }),
];

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let counters = COUNTERS.map(|(name, help, read)| -> Set {
            describe(Kind::Counter, name, help);
            let handle = counter(name, &[]);
            Box::new(move |stats| handle.absolute(read(stats)))
        });
        let gauges = GAUGES.map(|(name, help, read)| -> Set {
            describe(Kind::Gauge, name, help);
            let handle = gauge(name, &[]);
            Box::new(move |stats| handle.set(read(stats) as f64))
        });
        Metrics(counters.into_iter().chain(gauges).collect())
    }

    pub(crate) fn publish(&self, stats: &Stats) {
        self.0.iter().for_each(|set| set(stats));
    }
}
