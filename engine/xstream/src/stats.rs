//! What each xstream did, for operators. Threads count for themselves in plain cells; a scrape asks them by message.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use engine_telemetry::{Collector, Kind};
use engine_ult::StackStats;
use spdk_reactor::{Depth, ReactorHandle};
use spdk_thread::{CycleStats, ThreadStats};

use crate::sched::{self, SchedStats};
use crate::{ChoreStats, Remote, Xstream, XstreamId, XstreamRef, Xstreams, current};

/// How long a scrape waits for an xstream; the numbers of one that does not answer stay as they were.
const SAMPLE_WAIT: Duration = Duration::from_millis(200);

/// An xstream's totals since its start, and what it has now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XstreamStats {
    /// Turns, messages, busy pollers, polls and starts of ULTs, caught panics.
    pub thread: ThreadStats,
    /// ULTs that exist now.
    pub ults: u64,
    /// Of these, those that sleep.
    pub sleeping: u64,
    /// Cycles of ULTs.
    pub cycles: CycleStats,
    /// Stacks of ULTs, of all xstreams on its core together.
    pub stacks: StackStats,
    /// Requests; on main xstreams.
    pub sched: Option<SchedStats>,
    /// Chores; on helpers.
    pub chores: Option<ChoreStats>,
}

impl Xstream {
    /// This xstream's numbers.
    pub fn stats(&self) -> XstreamStats {
        let ults = self.thread().tasks();
        let sleeping = ults.iter().filter(|ult| ult.waits_for == "sleep").count();
        XstreamStats {
            thread: self.thread().stats(),
            ults: ults.len() as u64,
            sleeping: sleeping as u64,
            cycles: self.thread().cycle_stats(),
            stacks: engine_ult::stack_stats(),
            sched: self.sched().map(|sched| sched.stats()),
            chores: {
                let queue = self.inner.chores.as_ref();
                queue.map(|queue| queue.stats(&self.xref()))
            },
        }
    }
}

impl Xstreams {
    /// The numbers of every xstream; `None` for one that does not take the question. Waits as long as the slowest
    /// needs to finish its turn.
    pub async fn stats(&self) -> Vec<(XstreamId, Option<XstreamStats>)> {
        let asked: Vec<Remote<XstreamStats>> = self
            .all()
            .iter()
            .map(|xstream| xstream.call("stats", Xstream::stats))
            .collect();
        let mut all = Vec::with_capacity(asked.len());
        for (xstream, answer) in self.all().iter().zip(asked) {
            all.push((xstream.id(), answer.await.ok()));
        }
        all
    }

    /// Asks every xstream and puts the numbers into the metrics. For an xstream that renders metrics itself: await
    /// this, then call [`engine_telemetry::render`]. A scrape from a control thread does it by itself.
    pub async fn refresh_metrics(&self) {
        for (id, stats) in self.stats().await {
            if let (Some(xstream), Some(stats)) = (self.get(id), stats) {
                publish(xstream, &stats);
            }
        }
    }
}

/// Exports the numbers until the collector drops.
pub(crate) fn export(xstreams: Xstreams, reactors: Vec<ReactorHandle>) -> Collector {
    describe();
    engine_telemetry::register_collector(move || {
        reactors.iter().for_each(publish_reactor);
        // Waiting here on an xstream could mean waiting for oneself: it has refreshed the numbers before.
        if current().is_some() {
            return;
        }
        let until = Instant::now() + SAMPLE_WAIT;
        let asked: Vec<(&XstreamRef, Receiver<XstreamStats>)> = xstreams
            .all()
            .iter()
            .filter_map(|xs| Some((xs, xs.call_later(Xstream::stats).ok()?)))
            .collect();
        for (xstream, answer) in asked {
            if let Ok(stats) = answer.recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                publish(xstream, &stats);
            }
        }
    })
}

const TURNS: &str = "keel_xstream_turns_total";
const MESSAGES: &str = "keel_xstream_messages_total";
const POLLERS: &str = "keel_xstream_busy_pollers_total";
const ULT_POLLS: &str = "keel_xstream_ult_polls_total";
const ULTS_STARTED: &str = "keel_xstream_ults_started_total";
const ULTS: &str = "keel_xstream_ults";
const PANICS: &str = "keel_xstream_panics_total";

const STACKS_IN_USE: &str = "keel_ult_stacks_in_use";
const STACKS_KEPT: &str = "keel_ult_stacks_kept";
const STACKS_KEPT_BYTES: &str = "keel_ult_stacks_kept_bytes";
const STACKS_REFUSED: &str = "keel_ult_stacks_refused_total";
const CHORES: &str = "keel_xstream_chores";
const CHORES_DONE: &str = "keel_xstream_chores_done_total";
const CHORE_STEPS: &str = "keel_xstream_chore_steps_total";
const CHORE_CREDITS: &str = "keel_xstream_chore_credits";

const REACTOR_TURNS: &str = "keel_reactor_turns_total";
const REACTOR_BUSY: &str = "keel_reactor_busy_nanoseconds_total";
const REACTOR_REST: &str = "keel_reactor_rest_nanoseconds_total";
const REACTOR_RESTS: &str = "keel_reactor_rests_total";
const REACTOR_DOORBELLS: &str = "keel_reactor_doorbells_total";
const REACTOR_FD_EVENTS: &str = "keel_reactor_fd_events_total";
const REACTOR_HOLDS: &str = "keel_reactor_holds_total";

fn describe() {
    sched::describe();
    describe_stacks();
    engine_telemetry::describe(Kind::Counter, REACTOR_TURNS, "Turns of the core's loop");
    engine_telemetry::describe(
        Kind::Counter,
        REACTOR_BUSY,
        "Time in turns that did something",
    );
    engine_telemetry::describe(
        Kind::Counter,
        REACTOR_REST,
        "Time without work, by depth: poll, pause, nap (a sleep cut short by the latency goal), sleep",
    );
    engine_telemetry::describe(Kind::Counter, REACTOR_RESTS, "Rests, by depth");
    engine_telemetry::describe(
        Kind::Counter,
        REACTOR_DOORBELLS,
        "Sleeps that a message or another core's wake-up ended",
    );
    engine_telemetry::describe(
        Kind::Counter,
        REACTOR_FD_EVENTS,
        "Events of watched descriptors",
    );
    engine_telemetry::describe(
        Kind::Counter,
        REACTOR_HOLDS,
        "Times that sleeping was given up for a while, because wake-ups missed the latency goal",
    );
    engine_telemetry::describe(Kind::Counter, TURNS, "Turns of the xstream's thread");
    engine_telemetry::describe(Kind::Counter, MESSAGES, "Messages run on the xstream");
    engine_telemetry::describe(Kind::Counter, POLLERS, "Calls of pollers that found work");
    engine_telemetry::describe(
        Kind::Counter,
        ULT_POLLS,
        "Times that a ULT was run until it waited or ended",
    );
    engine_telemetry::describe(Kind::Counter, ULTS_STARTED, "ULTs started on the xstream");
    engine_telemetry::describe(Kind::Gauge, ULTS, "ULTs that exist on the xstream");
    let chores = [
        (Kind::Gauge, CHORES, "Chores that are not done, on a helper"),
        (Kind::Counter, CHORES_DONE, "Chores that have ended"),
        (Kind::Counter, CHORE_STEPS, "Steps of chores"),
        (
            Kind::Gauge,
            CHORE_CREDITS,
            "Credits left for chores; below 0 when chores with priority overdrew",
        ),
    ];
    for (kind, name, help) in chores {
        engine_telemetry::describe(kind, name, help);
    }
    engine_telemetry::describe(
        Kind::Counter,
        PANICS,
        "Panics caught in messages, pollers, ULTs and channels",
    );
}

fn describe_stacks() {
    let all = [
        (Kind::Gauge, STACKS_IN_USE, "Stacks that ULTs run on"),
        (Kind::Gauge, STACKS_KEPT, "Stacks kept for the next ULTs"),
        (
            Kind::Gauge,
            STACKS_KEPT_BYTES,
            "Bytes of the stacks that are kept, guards included",
        ),
        (
            Kind::Counter,
            STACKS_REFUSED,
            "ULTs that did not begin for want of a stack",
        ),
    ];
    for (kind, name, help) in all {
        engine_telemetry::describe(kind, name, help);
    }
}

/// An OS thread's, so several xstreams of a core say the same.
fn publish_stacks(xstream: &XstreamRef, stacks: &StackStats) {
    let cpu = xstream.cpu().to_string();
    let labels = [("cpu", cpu.as_str())];
    engine_telemetry::gauge(STACKS_IN_USE, &labels).set(stacks.in_use as f64);
    engine_telemetry::gauge(STACKS_KEPT, &labels).set(stacks.kept as f64);
    engine_telemetry::gauge(STACKS_KEPT_BYTES, &labels).set(stacks.kept_bytes as f64);
    engine_telemetry::counter(STACKS_REFUSED, &labels).absolute(stacks.refused);
}

fn publish(xstream: &XstreamRef, stats: &XstreamStats) {
    let labels = [("xstream", xstream.name())];
    let thread = &stats.thread;
    let counters = [
        (TURNS, thread.turns),
        (MESSAGES, thread.messages),
        (POLLERS, thread.pollers_busy),
        (ULT_POLLS, thread.task_polls),
        (ULTS_STARTED, thread.spawned),
        (PANICS, thread.panics),
    ];
    for (name, value) in counters {
        engine_telemetry::counter(name, &labels).absolute(value);
    }
    engine_telemetry::gauge(ULTS, &labels).set(stats.ults as f64);
    publish_stacks(xstream, &stats.stacks);
    if let Some(chores) = &stats.chores {
        engine_telemetry::gauge(CHORES, &labels).set(chores.queued as f64);
        engine_telemetry::counter(CHORES_DONE, &labels).absolute(chores.done);
        engine_telemetry::counter(CHORE_STEPS, &labels).absolute(chores.steps);
        engine_telemetry::gauge(CHORE_CREDITS, &labels).set(chores.credits as f64);
    }
    let (cycles, sleeping) = (&stats.cycles, stats.sleeping);
    sched::publish(xstream, cycles, sleeping, stats.sched.as_ref());
}

/// Time is the core's: one clock reading a turn for all xstreams on it. A core with one xstream tells that xstream's.
fn publish_reactor(reactor: &ReactorHandle) {
    let stats = reactor.stats();
    let cpu = reactor
        .cpu()
        .map_or_else(|| "none".to_owned(), |cpu| cpu.to_string());
    let counters = [
        (REACTOR_TURNS, stats.turns),
        (REACTOR_BUSY, stats.busy_ns),
        (REACTOR_DOORBELLS, stats.doorbells),
        (REACTOR_FD_EVENTS, stats.fd_events),
        (REACTOR_HOLDS, stats.holds),
    ];
    for (name, value) in counters {
        engine_telemetry::counter(name, &[("cpu", cpu.as_str())]).absolute(value);
    }
    for depth in Depth::ALL {
        let labels = [("cpu", cpu.as_str()), ("depth", depth.as_str())];
        let rest = stats.at(depth);
        engine_telemetry::counter(REACTOR_REST, &labels).absolute(rest.ns);
        engine_telemetry::counter(REACTOR_RESTS, &labels).absolute(rest.count);
    }
}
