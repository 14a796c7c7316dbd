//! What operators see of a scheduler. DAOS's names: `sched/...`; `docs/operating/metrics.md` has both.

use engine_sched::{Class, SchedStats};
use engine_telemetry::{Kind, counter, gauge};
use metrics::Histogram;
use spdk_thread::CycleStats;

use crate::XstreamRef;

const CYCLES: &str = "keel_sched_cycles_total";
const CYCLE_TIME: &str = "keel_sched_cycle_nanoseconds_total";
const CYCLE_ULTS: &str = "keel_sched_cycle_ults_total";
const CYCLE_LONGEST: &str = "keel_sched_cycle_longest_seconds";
const CYCLE_LARGEST: &str = "keel_sched_cycle_largest_ults";
const SLEEPING: &str = "keel_sched_sleeping";
const QUEUED: &str = "keel_sched_queued";
const KICKED: &str = "keel_sched_kicked_total";
const URGENT: &str = "keel_sched_urgent_total";
const REJECTED: &str = "keel_sched_rejected_total";
const RESENT: &str = "keel_sched_resent_total";
const IN_SERVICE: &str = "keel_sched_in_service";
const POOLS: &str = "keel_sched_pools";
const MEMORY: &str = "keel_sched_memory_bytes";

pub(crate) fn describe() {
    let all = [
        (Kind::Counter, CYCLES, "Cycles with at least one ULT"),
        (
            Kind::Counter,
            CYCLE_TIME,
            "Time from the beginning of each cycle to its end",
        ),
        (Kind::Counter, CYCLE_ULTS, "ULTs run in cycles"),
        (Kind::Gauge, CYCLE_LONGEST, "The longest cycle so far"),
        (
            Kind::Gauge,
            CYCLE_LARGEST,
            "The most ULTs of a cycle so far",
        ),
        (Kind::Gauge, SLEEPING, "ULTs that sleep"),
        (Kind::Gauge, QUEUED, "Requests that wait, by class"),
        (Kind::Counter, KICKED, "Requests kicked, by class"),
        (
            Kind::Counter,
            URGENT,
            "Requests kicked whatever the limits, by class",
        ),
        (
            Kind::Counter,
            REJECTED,
            "Requests refused with OVERLOAD_RETRY, by class",
        ),
        (
            Kind::Counter,
            RESENT,
            "Requests that came back after a refusal, by class",
        ),
        (
            Kind::Gauge,
            IN_SERVICE,
            "Weights of kicked requests without an answer",
        ),
        (Kind::Gauge, POOLS, "Pools that the scheduler knows"),
        (Kind::Gauge, MEMORY, "Memory of queues and records of pools"),
        (
            Kind::Histogram,
            "keel_sched_wait_seconds",
            "From arrival to kick, by class",
        ),
        (
            Kind::Histogram,
            "keel_sched_service_seconds",
            "From kick to answer, by class",
        ),
    ];
    for (kind, name, help) in all {
        engine_telemetry::describe(kind, name, help);
    }
}

/// Cycles and sleepers of any xstream; `sched` where it has a scheduler.
pub(crate) fn publish(
    xstream: &XstreamRef,
    cycles: &CycleStats,
    sleeping: u64,
    sched: Option<&SchedStats>,
) {
    let labels = [("xstream", xstream.name())];
    let seconds = |ns: u64| ns as f64 / 1e9;
    counter(CYCLES, &labels).absolute(cycles.cycles);
    counter(CYCLE_TIME, &labels).absolute(cycles.ns);
    counter(CYCLE_ULTS, &labels).absolute(cycles.tasks);
    gauge(CYCLE_LONGEST, &labels).set(seconds(cycles.longest_ns));
    gauge(CYCLE_LARGEST, &labels).set(f64::from(cycles.largest));
    gauge(SLEEPING, &labels).set(sleeping as f64);
    let Some(sched) = sched else { return };
    gauge(IN_SERVICE, &labels).set(f64::from(sched.in_service));
    gauge(POOLS, &labels).set(f64::from(sched.pools));
    gauge(MEMORY, &labels).set(sched.bytes as f64);
    for class in Class::ALL {
        let labels = [("xstream", xstream.name()), ("class", class.name())];
        let stats = sched.class(class);
        gauge(QUEUED, &labels).set(f64::from(stats.queued));
        counter(KICKED, &labels).absolute(stats.kicked);
        counter(URGENT, &labels).absolute(stats.urgent);
        counter(REJECTED, &labels).absolute(stats.rejected);
        counter(RESENT, &labels).absolute(stats.resent);
    }
}

/// A histogram per class.
pub(super) struct Histograms([Histogram; Class::ALL.len()]);

impl Histograms {
    pub(super) fn new(name: &'static str, xstream: &str) -> Histograms {
        Histograms(Class::ALL.map(|class| {
            engine_telemetry::histogram(name, &[("xstream", xstream), ("class", class.name())])
        }))
    }

    pub(super) fn record(&self, class: Class, ns: u64) {
        self.0[class as usize].record(ns as f64 / 1e9);
    }
}
