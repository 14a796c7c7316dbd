//! Start-up: system, mains, offload; one at a time, in named phases, and a barrier that all pass together.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use daos_errno::Der;
use engine_telemetry::Collector;
use engine_tls::{KeyRegistry, Slots, TlsError};
use spdk_reactor::ReactorSet;
use spdk_thread::{Provider, Thread, ThreadOptions};

use crate::shutdown::{self, Held};
use crate::xstream::XstreamScope;
use crate::{
    CHORE_CREDITS, Layout, Role, Xstream, XstreamId, XstreamRef, XstreamSpec, Xstreams, stats,
};

/// Bounds of the start and of each xstream.
#[derive(Clone)]
pub struct StartOptions {
    /// Who carries the messages of the xstreams' threads; `None`: `spdk_thread` itself.
    pub provider: Option<Arc<dyn Provider>>,
    /// Messages that may wait at one xstream.
    pub mailbox: usize,
    /// ULTs that may exist on one xstream.
    pub max_ults: u32,
    /// Credits of each helper for chores; fewer than [`crate::CHORE_CREDITS_MIN`] mean [`CHORE_CREDITS`].
    pub chore_credits: u32,
    /// How long one phase of one xstream may take.
    pub phase_deadline: Duration,
}

impl Default for StartOptions {
    fn default() -> StartOptions {
        let thread = ThreadOptions::default();
        StartOptions {
            provider: None,
            mailbox: thread.mailbox,
            max_ults: thread.max_tasks,
            chore_credits: CHORE_CREDITS,
            phase_deadline: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for StartOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartOptions")
            .field("carried", &self.provider.is_some())
            .field("mailbox", &self.mailbox)
            .field("max_ults", &self.max_ults)
            .field("chore_credits", &self.chore_credits)
            .field("phase_deadline", &self.phase_deadline)
            .finish()
    }
}

/// A step of an xstream's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its thread is made on its reactor.
    Thread,
    /// Its per-xstream storage is made, key by key.
    Tls,
    /// It hears of the others and may be used.
    Barrier,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Thread => "thread",
            Phase::Tls => "tls",
            Phase::Barrier => "barrier",
        })
    }
}

/// What went wrong in a phase.
#[derive(Debug, thiserror::Error)]
pub enum StartCause {
    /// A value of the storage could not be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The reactor did not take the thread.
    #[error("{0}")]
    Reactor(String),
    /// It did not say anything.
    #[error("no answer within {0:?}: its core is stuck or taken by something else")]
    NoAnswer(Duration),
    /// It ended instead of answering.
    #[error("it ended while starting; the log says why")]
    Ended,
}

/// The start failed. What had been started is stopped again, in reverse order; `left` says what would not stop.
#[derive(Debug, thiserror::Error)]
#[error("xstream {name} did not start, in phase {phase}: {cause}{}", left_text(.left))]
pub struct StartError {
    /// Which.
    pub xstream: XstreamId,
    /// Its name.
    pub name: String,
    /// In which step.
    pub phase: Phase,
    /// Why.
    pub cause: StartCause,
    /// What could not be undone; normally nothing.
    pub left: Vec<String>,
}

impl StartError {
    /// The number that tools see.
    pub fn der(&self) -> Der {
        match &self.cause {
            StartCause::Tls(error) => error.der(),
            StartCause::Reactor(_) => Der::INVAL,
            StartCause::NoAnswer(_) => Der::TIMEDOUT,
            StartCause::Ended => Der::MISC,
        }
    }
}

fn left_text(left: &[String]) -> String {
    if left.is_empty() {
        String::new()
    } else {
        format!(" (undoing it, these would not stop: {})", left.join(", "))
    }
}

/// The running xstreams and their reactors: the owner's side. Everybody else has [`Xstreams`], which this leads to. End it
/// with [`XstreamSet::shutdown`]: dropping it stops the cores as they are, and no storage is ended.
pub struct XstreamSet {
    xstreams: Xstreams,
    reactors: ReactorSet,
    metrics: Collector,
}

impl XstreamSet {
    /// Starts all xstreams of `layout` on `reactors`, which must have one on each of [`Layout::cpus`]: system, mains,
    /// offload, one at a time, each with its storage made on it; then all pass the barrier and may be used. Control
    /// thread only: it waits.
    ///
    /// # Errors
    /// [`StartError`] names the xstream and the phase; what had been started is stopped again.
    pub fn start(
        layout: Layout,
        reactors: ReactorSet,
        registry: &KeyRegistry,
        options: &StartOptions,
    ) -> Result<XstreamSet, StartError> {
        layout
            .notes()
            .iter()
            .for_each(|note| tracing::warn!("{note}"));
        let mut started = Vec::new();
        let up = bring_all_up(&layout, &reactors, registry, options, &mut started);
        match up {
            Ok(xstreams) => {
                let metrics = stats::export(xstreams.clone(), reactors.reactors().to_vec());
                tracing::info!(
                    xstreams = xstreams.all().len(),
                    targets = xstreams.targets(),
                    "xstreams are up"
                );
                Ok(XstreamSet {
                    xstreams,
                    reactors,
                    metrics,
                })
            }
            Err(mut error) => {
                let until = Instant::now() + options.phase_deadline;
                if let Err(held) = shutdown::stop(&started, until, &mut |_| ()) {
                    error.left = held.holders;
                }
                if let Err(held) = shutdown::stop_reactors(reactors, until) {
                    error.left.extend(held.holders);
                }
                Err(error)
            }
        }
    }

    /// The table for everybody else.
    pub fn xstreams(&self) -> &Xstreams {
        &self.xstreams
    }

    /// The reactors below.
    pub fn reactors(&self) -> &ReactorSet {
        &self.reactors
    }

    /// Tells every xstream that the engine shuts down and waits until each knows: afterwards
    /// [`Xstream::is_shutting_down`] is true everywhere. First step of the shutdown, before modules clean up. ULTs can
    /// still be created. Control thread only.
    ///
    /// # Errors
    /// Which xstreams have not answered by `deadline`; the flag is set for them too.
    pub fn begin_shutdown(&self, deadline: Duration) -> Result<(), Held> {
        shutdown::announce(&self.xstreams, Instant::now() + deadline)
    }

    /// Stops everything: no more ULTs anywhere, those that exist come to their end, then each xstream in reverse
    /// order of the start ends its storage and exits, then the reactors. At least once a second `on_tick` hears what still
    /// holds it, one line each. Control thread only.
    ///
    /// # Errors
    /// [`Held`] at the deadline, with the same lines. What is held then runs on until the process ends.
    pub fn shutdown(
        self,
        deadline: Duration,
        mut on_tick: impl FnMut(&[String]),
    ) -> Result<(), Held> {
        let until = Instant::now() + deadline;
        let XstreamSet {
            xstreams,
            reactors,
            metrics,
        } = self;
        drop(metrics);
        shutdown::mark(&xstreams);
        let order = xstreams.layout().start_order();
        let started: Vec<XstreamRef> = order
            .iter()
            .filter_map(|id| xstreams.get(*id).cloned())
            .collect();
        shutdown::stop(&started, until, &mut on_tick)?;
        shutdown::stop_reactors(reactors, until)?;
        tracing::info!("xstreams are down");
        Ok(())
    }
}

impl Deref for XstreamSet {
    type Target = Xstreams;

    fn deref(&self) -> &Xstreams {
        &self.xstreams
    }
}

impl fmt::Debug for XstreamSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XstreamSet")
            .field("xstreams", &self.xstreams)
            .finish_non_exhaustive()
    }
}

/// `started` grows as xstreams come up, so that a failure knows what to undo.
fn bring_all_up(
    layout: &Layout,
    reactors: &ReactorSet,
    registry: &KeyRegistry,
    options: &StartOptions,
    started: &mut Vec<XstreamRef>,
) -> Result<Xstreams, StartError> {
    for id in layout.start_order() {
        let spec = &layout.xstreams()[id.0 as usize];
        started.push(
            start_one(spec, reactors, registry, options)
                .map_err(|(phase, cause)| error(spec, phase, cause))?,
        );
    }
    let mut by_id = started.clone();
    by_id.sort_by_key(XstreamRef::id);
    let xstreams = Xstreams::new(layout.clone(), by_id);
    for xstream in started {
        pass_barrier(xstream, &xstreams, options.phase_deadline)
            .map_err(|cause| error(xstream.spec(), Phase::Barrier, cause))?;
    }
    Ok(xstreams)
}

fn error(spec: &XstreamSpec, phase: Phase, cause: StartCause) -> StartError {
    StartError {
        xstream: spec.id,
        name: spec.name(),
        phase,
        cause,
        left: Vec::new(),
    }
}

fn start_one(
    spec: &XstreamSpec,
    reactors: &ReactorSet,
    registry: &KeyRegistry,
    options: &StartOptions,
) -> Result<XstreamRef, (Phase, StartCause)> {
    let reactor = reactors
        .reactors()
        .iter()
        .find(|reactor| reactor.cpu() == Some(spec.cpu))
        .ok_or_else(|| {
            (
                Phase::Thread,
                StartCause::Reactor(format!("no reactor runs on CPU {}", spec.cpu)),
            )
        })?;
    let thread = ThreadOptions {
        provider: options.provider.clone(),
        mailbox: options.mailbox,
        max_tasks: options.max_ults,
        urgent: spec.role == Role::System,
        ..ThreadOptions::default()
    };
    let (sender, receiver) = mpsc::sync_channel(1);
    let (keys, row, credits) = (registry.clone(), spec.clone(), options.chore_credits);
    let made = reactor.spawn_thread(&spec.name(), thread, move |thread| {
        let up = bring_up(thread, row, &keys, credits);
        if up.is_err() {
            thread.request_exit();
        }
        // Nobody listens any more when the deadline has passed: the failed start undoes what it can reach.
        let _ = sender.send(up);
    });
    made.map_err(|error| (Phase::Thread, StartCause::Reactor(error.to_string())))?;
    match receiver.recv_timeout(options.phase_deadline) {
        Ok(up) => up.map_err(|error| (Phase::Tls, error.into())),
        Err(RecvTimeoutError::Timeout) => {
            Err((Phase::Tls, StartCause::NoAnswer(options.phase_deadline)))
        }
        Err(RecvTimeoutError::Disconnected) => Err((Phase::Tls, StartCause::Ended)),
    }
}

/// Makes `thread` an xstream; on the thread. Its storage is whole before anything else can run there.
pub(crate) fn bring_up(
    thread: &Thread,
    spec: XstreamSpec,
    registry: &KeyRegistry,
    chore_credits: u32,
) -> Result<XstreamRef, TlsError> {
    let slots = Slots::build(registry, spec.info())?;
    let address = XstreamRef::new(spec, thread, chore_credits);
    let xstream = Xstream::new(thread, address.clone(), slots);
    thread.set_scope(Some(std::rc::Rc::new(XstreamScope::new(xstream))));
    Ok(address)
}

fn pass_barrier(
    xstream: &XstreamRef,
    all: &Xstreams,
    deadline: Duration,
) -> Result<(), StartCause> {
    let all = all.clone();
    match xstream.call_blocking("barrier", deadline, move |xstream| xstream.install_set(all)) {
        Ok(()) => Ok(()),
        Err(crate::ExecError::TimedOut { .. }) => Err(StartCause::NoAnswer(deadline)),
        Err(_) => Err(StartCause::Ended),
    }
}
