//! What the watchdog counts, by xstream.

use engine_telemetry::{Counter, Gauge, Kind};

const LONG_UNITS: &str = "keel_watchdog_long_units_total";
const STALLS: &str = "keel_watchdog_stalls_total";
const STALLED: &str = "keel_watchdog_stalled";
const FEEDS: &str = "keel_watchdog_systemd_feeds_total";

pub(crate) struct XstreamMetrics {
    pub(crate) long_units: Counter,
    pub(crate) stalls: Counter,
    pub(crate) stalled: Gauge,
}

impl XstreamMetrics {
    pub(crate) fn new(xstream: &str) -> XstreamMetrics {
        let labels = [("xstream", xstream)];
        XstreamMetrics {
            long_units: engine_telemetry::counter(LONG_UNITS, &labels),
            stalls: engine_telemetry::counter(STALLS, &labels),
            stalled: engine_telemetry::gauge(STALLED, &labels),
        }
    }
}

pub(crate) fn feeds() -> Counter {
    engine_telemetry::counter(FEEDS, &[])
}

pub(crate) fn describe() {
    engine_telemetry::describe(
        Kind::Counter,
        LONG_UNITS,
        "ULTs, pollers and messages that ran past ult_runtime_max_ms",
    );
    engine_telemetry::describe(
        Kind::Counter,
        STALLS,
        "Times that the xstream made no progress for xstream_stall_max_s",
    );
    engine_telemetry::describe(Kind::Gauge, STALLED, "1 while the xstream is stalled");
    engine_telemetry::describe(
        Kind::Counter,
        FEEDS,
        "Times that systemd's watchdog was fed: every xstream had turned",
    );
}
