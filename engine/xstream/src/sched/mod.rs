//! The request scheduler of a main xstream, driven by its cycle.
//!
//! [`RequestSched`] owns an [`engine_sched::Scheduler`]. Who has requests is a [`RequestSource`]: it submits keys and is kicked
//! with them when their time has come, at the beginning of a cycle, so that the ULTs which it makes run in that cycle.
//! [`SchedReq`] is the same for a ULT that works in slices: it waits for its turn between them. [`ServiceTicket`] follows
//! a kicked request until its answer.
//!
//! Own thread only, but for tickets. The poller that kicks is paused while nothing is queued.

mod metrics;
mod service;
mod slice;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use engine_sched::Scheduler;
use spdk_thread::{Period, PollResult, Poller, Thread};

pub use engine_sched::{
    Admission, Attr, Class, ClassStats, Flags, Kick, Medium, Options, PoolId, Rejected, SchedStats,
    Ticket,
};
pub(crate) use metrics::{describe, publish};
pub use service::ServiceTicket;
pub use slice::SchedReq;

use metrics::Histograms;
use service::InService;
use slice::Slices;

/// Who has requests.
pub trait RequestSource {
    /// The time of request `key` has come. In a poller: it must not block; what waits becomes a ULT.
    fn kick(&self, key: u32, kick: &Kick);
}

/// Names a [`RequestSource`] of one scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceId(u32);

const SLICES: SourceId = SourceId(0);

/// The scheduler of the main xstream that it belongs to.
pub struct RequestSched {
    core: RefCell<Scheduler>,
    sources: RefCell<Vec<Rc<dyn RequestSource>>>,
    slices: Rc<Slices>,
    thread: Thread,
    poller: RefCell<Option<Poller>>,
    service: Arc<InService>,
    waits: Histograms,
    stopped: Cell<bool>,
}

impl RequestSched {
    pub(crate) fn new(thread: &Thread, xstream: &str, options: Options) -> Rc<RequestSched> {
        let slices = Rc::new(Slices::default());
        let first: Rc<dyn RequestSource> = slices.clone();
        Rc::new(RequestSched {
            core: RefCell::new(Scheduler::new(options)),
            sources: RefCell::new(vec![first]),
            slices,
            thread: thread.clone(),
            poller: RefCell::default(),
            service: Arc::new(InService::new(xstream)),
            waits: Histograms::new("keel_sched_wait_seconds", xstream),
            stopped: Cell::new(false),
        })
    }

    /// A new source of requests, for as long as the xstream lives.
    pub fn add_source(&self, source: Rc<dyn RequestSource>) -> SourceId {
        let mut sources = self.sources.borrow_mut();
        sources.push(source);
        SourceId(sources.len() as u32 - 1)
    }

    /// Takes in a request of a source; it is kicked with `key` in a cycle to come, unless the answer says otherwise.
    pub fn submit(self: &Rc<Self>, source: SourceId, key: u32, attr: &Attr) -> Admission {
        if self.stopped.get() {
            return Admission::RunNow;
        }
        let token = u64::from(source.0) << 32 | u64::from(key);
        let now = self.thread.now();
        let admission = self.core.borrow_mut().enqueue(now, attr, token);
        if matches!(admission, Admission::Queued(_)) {
            self.resume();
        }
        admission
    }

    /// Takes a queued request out; `None` when it has been kicked.
    pub fn cancel(&self, ticket: Ticket) -> Option<u32> {
        self.core
            .borrow_mut()
            .cancel(ticket)
            .map(|token| token as u32)
    }

    /// Follows a request from its kick to its answer, which is the ticket's end.
    pub fn serve(&self, class: Class) -> ServiceTicket {
        ServiceTicket::new(&self.service, class, self.thread.now())
    }

    /// What a pool has on this target, see [`Scheduler::report_space`].
    pub fn report_space(&self, pool: PoolId, media: &[Medium], gc_gap_ms: u64) {
        self.core.borrow_mut().report_space(pool, media, gc_gap_ms);
    }

    /// A pool's pressure level, 0 to 5 (DAOS: `sched_req_space_check`).
    pub fn space_pressure(&self, pool: PoolId) -> u8 {
        let now = self.thread.now();
        self.core.borrow_mut().space_pressure(now, pool)
    }

    /// A pool does not exist any more.
    pub fn pool_gone(&self, pool: PoolId) {
        self.core.borrow_mut().pool_gone(pool);
    }

    /// Totals and the present state.
    pub fn stats(&self) -> SchedStats {
        self.settle_finished();
        self.core.borrow().stats()
    }

    /// The xstream stops: what comes now is run at once, what is queued in the next cycles. How much still is.
    pub(crate) fn stop(&self) -> u32 {
        if !self.stopped.replace(true) {
            self.core.borrow_mut().stop();
        }
        self.core.borrow().stats().queued()
    }

    fn resume(self: &Rc<Self>) {
        let mut poller = self.poller.borrow_mut();
        match &*poller {
            Some(poller) => poller.resume(),
            None => {
                let weak = Rc::downgrade(self);
                let kick = move |now| match weak.upgrade() {
                    Some(sched) => sched.cycle(now),
                    None => PollResult::Idle,
                };
                *poller = Some(
                    self.thread
                        .register_poller("sched", Period::EveryTurn, kick),
                );
            }
        }
    }

    /// At the beginning of a cycle: kicks what its limits allow.
    fn cycle(&self, now: u64) -> PollResult {
        if !self.thread.is_between_cycles() {
            // There is something to do, next time.
            return PollResult::Busy;
        }
        self.settle_finished();
        self.core.borrow_mut().begin_cycle(now);
        let mut busy = PollResult::Idle;
        loop {
            let next = self.core.borrow_mut().next();
            let Some(kick) = next else { break };
            busy = PollResult::Busy;
            self.waits.record(kick.class, kick.waited_ns);
            let source = self.sources.borrow()[(kick.token >> 32) as usize].clone();
            source.kick(kick.token as u32, &kick);
        }
        if self.core.borrow().is_empty()
            && let Some(poller) = &*self.poller.borrow()
        {
            poller.pause();
        }
        busy
    }

    /// What has been answered since the last look, here or on other threads.
    fn settle_finished(&self) {
        let mut core = self.core.borrow_mut();
        self.service.take(|class| core.finished(class));
    }
}

impl fmt::Debug for RequestSched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestSched")
            .field("stats", &self.stats())
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}
