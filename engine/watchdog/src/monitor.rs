//! The OS thread `keel_watchdog`.

use crate::feeder::Feeder;
use crate::metrics::{self, XstreamMetrics};
use crate::observer::{Finding, Limits, Observer};
use crate::report::Report;
use crate::site::Sites;
use crate::unwind::backtrace_or_reason;
use engine_xstream::{XstreamRef, Xstreams};
use spdk_env::{Clock, OsThread};
use spdk_reactor::ReactorHandle;
use spdk_thread::Unit;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it looks when no limit asks for more.
const SLOWEST_LOOK: Duration = Duration::from_millis(250);
const FASTEST_LOOK: Duration = Duration::from_millis(1);
/// While every reactor sleeps it looks this many times more rarely: a unit that starts meanwhile is found so much later.
const WHILE_ASLEEP: u32 = 4;

/// What is watched for.
pub struct Options {
    /// A unit that runs longer is reported; zero: never. DAOS: `DAOS_SCHED_UNIT_RUNTIME_MAX`.
    pub unit_runtime_max: Duration,
    /// An xstream without progress for longer is reported; zero: never. DAOS: `DAOS_SCHED_INACTIVE_MAX`.
    pub stall_max: Duration,
    /// systemd's patience, if it wants to be told that the engine lives.
    pub systemd: Option<Duration>,
    /// Tells systemd so.
    pub feed: Box<dyn FnMut() + Send>,
    /// Hears every report.
    pub on_report: Box<dyn FnMut(&Report) + Send>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("unit_runtime_max", &self.unit_runtime_max)
            .field("stall_max", &self.stall_max)
            .field("systemd", &self.systemd)
            .finish_non_exhaustive()
    }
}

/// What runs on an xstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Name of the xstream.
    pub xstream: String,
    /// What has been seen running at the last looks, and for how many milliseconds.
    pub unit: Option<(Unit, u64)>,
    /// No progress for longer than allowed.
    pub stalled: bool,
    /// The kernel's number of the OS thread below.
    pub os_thread: Option<i32>,
}

#[derive(Default)]
struct State {
    running: Vec<Running>,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the watchdog saw last. Clones show the same; any thread.
#[derive(Clone, Default)]
pub struct View(Arc<Shared>);

impl View {
    /// Every xstream, in the order of their ids; empty before the first look.
    #[must_use]
    pub fn running(&self) -> Vec<Running> {
        self.0.lock().running.clone()
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.running()).finish()
    }
}

/// The running watchdog. Dropping it ends it.
#[derive(Debug)]
pub struct Watchdog {
    view: View,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Watches `xstreams`, which run on `reactors`, from now on.
    ///
    /// # Errors
    /// The OS thread could not be made.
    pub fn start(
        xstreams: &Xstreams,
        reactors: &[ReactorHandle],
        options: Options,
    ) -> std::io::Result<Watchdog> {
        metrics::describe();
        let view = View::default();
        let mut monitor = Monitor::new(xstreams, reactors, options, view.clone());
        let thread = std::thread::Builder::new()
            .name("keel_watchdog".to_owned())
            .spawn(move || monitor.run())?;
        Ok(Watchdog {
            view,
            thread: Some(thread),
        })
    }

    /// What runs where; answers whatever the xstreams do.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.clone()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.view.0.lock().stop = true;
        self.view.0.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed, and nobody depends on it.
            let _ = thread.join();
        }
    }
}

struct Watched {
    xstream: XstreamRef,
    reactor: Option<ReactorHandle>,
    observer: Observer,
    metrics: XstreamMetrics,
}

struct Monitor {
    watched: Vec<Watched>,
    reactors: Vec<ReactorHandle>,
    limits: Limits,
    period: Duration,
    feeder: Option<Feeder>,
    feeds: engine_telemetry::Counter,
    sites: Sites,
    options: Options,
    view: View,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Monitor {
    fn new(
        xstreams: &Xstreams,
        reactors: &[ReactorHandle],
        options: Options,
        view: View,
    ) -> Monitor {
        let watch = |xstream: &XstreamRef| Watched {
            reactor: reactors
                .iter()
                .find(|reactor| reactor.cpu() == Some(xstream.cpu()))
                .cloned(),
            observer: Observer::default(),
            metrics: XstreamMetrics::new(xstream.name()),
            xstream: xstream.clone(),
        };
        let watched: Vec<Watched> = xstreams.all().iter().map(watch).collect();
        let feeder = options
            .systemd
            .map(|patience| Feeder::new(nanos(patience), watched.len()));
        let nudges = [
            (!options.stall_max.is_zero()).then(|| nanos(options.stall_max) / 8),
            feeder.as_ref().map(Feeder::nudge),
        ];
        let nudge = nudges.into_iter().flatten().min().unwrap_or(0);
        let period = [
            options.unit_runtime_max / 4,
            Duration::from_nanos(nudge) / 4,
        ]
        .into_iter()
        .filter(|period| !period.is_zero())
        .min()
        .unwrap_or(SLOWEST_LOOK)
        .clamp(FASTEST_LOOK, SLOWEST_LOOK);
        Monitor {
            watched,
            reactors: reactors.to_vec(),
            limits: Limits {
                period: nanos(period),
                unit: nanos(options.unit_runtime_max),
                stall: nanos(options.stall_max),
                nudge,
            },
            period,
            feeder,
            feeds: metrics::feeds(),
            sites: Sites::default(),
            options,
            view,
        }
    }

    fn run(&mut self) {
        let clock = Clock::tsc();
        let mut last = clock.now();
        loop {
            let now = clock.now();
            self.look(now, now.saturating_sub(last));
            last = now;
            let asleep = self.reactors.iter().all(ReactorHandle::is_resting);
            let wait = if asleep {
                (self.period * WHILE_ASLEEP).min(SLOWEST_LOOK)
            } else {
                self.period
            };
            self.limits.period = nanos(wait);
            let state = self.view.0.lock();
            if state.stop {
                return;
            }
            let waited = self.view.0.changed.wait_timeout(state, wait);
            if waited.unwrap_or_else(PoisonError::into_inner).0.stop {
                return;
            }
        }
    }

    fn look(&mut self, now: u64, passed: u64) {
        let mut findings = Vec::new();
        for (place, watched) in self.watched.iter_mut().enumerate() {
            let os_thread = watched.reactor.as_ref().and_then(ReactorHandle::os_thread);
            watched.observer.look(
                self.limits,
                passed,
                watched.xstream.handle().pulse(),
                || os_thread.and_then(|tid| OsThread::new(tid).times()),
                |finding| findings.push((place, finding)),
            );
        }
        self.publish();
        for (place, finding) in findings {
            self.handle(now, place, finding);
        }
        if let Some(feeder) = &mut self.feeder {
            let turns = self.watched.iter().map(|watched| watched.observer.turns());
            if feeder.look(passed, turns) {
                self.feeds.increment(1);
                (self.options.feed)();
            }
        }
    }

    fn publish(&self) {
        let running = |watched: &Watched| Running {
            xstream: watched.xstream.name().to_owned(),
            unit: watched
                .observer
                .running()
                .map(|(unit, ns)| (unit, ns / 1_000_000)),
            stalled: watched.observer.is_stalled(),
            os_thread: watched.reactor.as_ref().and_then(ReactorHandle::os_thread),
        };
        self.view.0.lock().running = self.watched.iter().map(running).collect();
    }

    fn handle(&mut self, now: u64, place: usize, finding: Finding) {
        let watched = &self.watched[place];
        let xstream = watched.xstream.name().to_owned();
        let backtrace =
            || backtrace_or_reason(watched.reactor.as_ref().and_then(ReactorHandle::os_thread));
        let report = match finding {
            Finding::Nudge => {
                // A full mailbox is evidence of its own: it does not turn.
                let _ = watched.xstream.handle().send(|_| ());
                return;
            }
            Finding::LongUnit {
                unit,
                ran_ns,
                first,
            } => {
                if first {
                    watched.metrics.long_units.increment(1);
                }
                if !self.sites.admit(now, unit) {
                    return;
                }
                Report::LongUnit {
                    xstream,
                    unit,
                    ran_ms: ran_ns / 1_000_000,
                    limit_ms: self.limits.unit / 1_000_000,
                    backtrace: backtrace(),
                }
            }
            Finding::Stalled { still_ns } => {
                watched.metrics.stalls.increment(1);
                watched.metrics.stalled.set(1.0);
                let running = watched.observer.running();
                Report::Stalled {
                    xstream,
                    running: running.map(|(unit, ns)| (unit, ns / 1_000_000)),
                    still_s: still_ns / 1_000_000_000,
                    backtrace: backtrace(),
                }
            }
            Finding::Recovered { still_ns } => {
                watched.metrics.stalled.set(0.0);
                Report::Recovered {
                    xstream,
                    still_s: still_ns / 1_000_000_000,
                }
            }
        };
        (self.options.on_report)(&report);
    }
}
