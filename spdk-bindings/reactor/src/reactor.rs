//! The loop: commands, descriptors, threads, rest.

use crate::epoll::{Epoll, Woken};
use crate::governor::Governor;
use crate::handle::{Command, ReactorHandle, Shared};
use crate::idle::{IdleGoal, Rest, Situation};
use crate::stats::{Counters, Depth, add};
use spdk_env::{Clock, CpuPause};
use spdk_ring::mpsc;
use spdk_thread::{Thread, ThreadOptions, Turn};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A busy reactor looks at its descriptors, and publishes its statistics, this often.
const HOUSEKEEPING_NS: u64 = 20_000;

/// An idle reactor whose last look at its descriptors found nothing lets so many times the look's own length pass before the next one,
/// and at most [`HOUSEKEEPING_NS`]: the look is a system call, and what is polled without one, an SSD, shall not wait for it.
const LOOK_PAUSE: u64 = 4;

/// The longest single pause where the processor can sleep lightly meanwhile: short beside any goal.
const PAUSE_NS: u64 = 2_000;

/// One core's loop: polls the threads that it hosts, one turn each, round and round (SPDK: `struct spdk_reactor`).
/// Belongs to the OS thread that made it.
pub struct Reactor {
    shared: Arc<Shared>,
    commands: RefCell<mpsc::Receiver<Command>>,
    threads: RefCell<Vec<Hosted>>,
    next_key: Cell<u32>,
    epoll: RefCell<Epoll>,
    clock: Clock,
    governor: RefCell<Governor>,
    /// The goal is 0: no rest at all.
    always_polls: bool,
    cpu_pause: CpuPause,
    /// Ticks of one pause.
    pause_ticks: u64,
    counters: Counters,
    last_housekeeping: Cell<u64>,
    /// The last look at the descriptors.
    last_look: Cell<u64>,
    /// How long an idle reactor waits after it.
    look_pause: Cell<u64>,
    /// Urgent threads that have been hosted.
    urgent: Cell<u32>,
    last_turn_busy: Cell<bool>,
    exiting: Cell<bool>,
    stopped: Cell<bool>,
}

#[derive(Clone)]
struct Hosted {
    key: u32,
    thread: Thread,
}

impl Reactor {
    /// A reactor on the calling OS thread, for tests and for programs that bring their own thread. Its time is [`Clock::tsc`].
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub fn new(name: &str, goal: IdleGoal) -> std::io::Result<Reactor> {
        let (handle, commands) = ReactorHandle::new(name.to_owned(), None, goal)?;
        Self::with(handle, commands, goal)
    }

    pub(crate) fn with(
        handle: ReactorHandle,
        commands: mpsc::Receiver<Command>,
        goal: IdleGoal,
    ) -> std::io::Result<Reactor> {
        let epoll = Epoll::new(&handle.shared.doorbell)?;
        handle.shared.os_thread.store(
            rustix::thread::gettid().as_raw_nonzero().get(),
            Ordering::Relaxed,
        );
        let clock = Clock::tsc();
        Ok(Reactor {
            shared: handle.shared,
            commands: RefCell::new(commands),
            threads: RefCell::new(Vec::new()),
            next_key: Cell::new(0),
            epoll: RefCell::new(epoll),
            clock,
            governor: RefCell::new(Governor::new(goal)),
            always_polls: goal.ns() == 0,
            cpu_pause: CpuPause::detect(),
            pause_ticks: clock.ns_to_ticks(PAUSE_NS.min(goal.ns() / 8)),
            counters: Counters::default(),
            last_housekeeping: Cell::new(0),
            last_look: Cell::new(0),
            look_pause: Cell::new(0),
            urgent: Cell::new(0),
            last_turn_busy: Cell::new(false),
            exiting: Cell::new(false),
            stopped: Cell::new(false),
        })
    }

    /// The reactor's address.
    #[must_use]
    pub fn handle(&self) -> ReactorHandle {
        ReactorHandle {
            shared: self.shared.clone(),
        }
    }

    /// Makes a thread here and now; from other OS threads it is [`ReactorHandle::spawn_thread`].
    ///
    /// # Panics
    /// As [`Thread::new`].
    pub fn spawn_thread(&self, name: &str, mut options: ThreadOptions) -> Thread {
        options.wake = Some(self.shared.clone());
        self.host(Thread::new(name, options))
    }

    fn host(&self, thread: Thread) -> Thread {
        let key = self.next_key.get();
        self.next_key.set(key.wrapping_add(1));
        self.urgent
            .set(self.urgent.get() + u32::from(thread.is_urgent()));
        self.threads.borrow_mut().push(Hosted {
            key,
            thread: thread.clone(),
        });
        thread
    }

    /// One turn: commands, then one look at the descriptors if it is time, then one turn of each thread in the order in
    /// which they came; [urgent](ThreadOptions::urgent) ones that have something to do come round after each of the
    /// others. `now` in nanoseconds.
    pub fn poll_once(&self, now: u64) -> Turn {
        let mut sum = Turn {
            messages: self.run_commands(now),
            ..Turn::default()
        };
        let due = now.saturating_sub(self.last_housekeeping.get()) >= HOUSEKEEPING_NS;
        let since_look = now.saturating_sub(self.last_look.get());
        if due || !self.last_turn_busy.get() && since_look >= self.look_pause.get() {
            self.housekeep(now, due);
        }
        let count = self.threads.borrow().len();
        let mut exited = false;
        for place in 0..count {
            let Some(hosted) = self.threads.borrow().get(place).cloned() else {
                break;
            };
            self.turn_of(&hosted, now, &mut sum);
            exited |= hosted.thread.is_exited();
            if self.urgent.get() > 0 && place + 1 < count && !hosted.thread.is_urgent() {
                self.turn_of_urgent(now, &mut sum);
            }
        }
        if exited {
            self.threads
                .borrow_mut()
                .retain(|hosted| !hosted.thread.is_exited());
        }
        add(&self.counters.turns, 1);
        self.last_turn_busy.set(sum.is_busy());
        sum
    }

    #[inline]
    fn turn_of(&self, hosted: &Hosted, now: u64, sum: &mut Turn) {
        let turn = hosted.thread.poll(now);
        sum.messages += turn.messages;
        sum.pollers_busy += turn.pollers_busy;
        sum.tasks += turn.tasks;
        sum.quiet_tasks += turn.quiet_tasks;
        if hosted.thread.has_fd_changes() {
            self.apply_fd_changes(hosted);
        }
    }

    /// Between the turns of the others: descriptors, if the last look is long ago by the real clock (`now` stands still
    /// in a turn), then the urgent threads that have something to do.
    fn turn_of_urgent(&self, now: u64, sum: &mut Turn) {
        let real = self.clock.now();
        if real.saturating_sub(self.last_look.get()) >= HOUSEKEEPING_NS {
            self.last_look.set(real);
            if self.epoll.borrow().has_watches() {
                self.wait(Some(0));
            }
        }
        let count = self.threads.borrow().len();
        for place in 0..count {
            let hosted = self.threads.borrow().get(place).cloned();
            if let Some(hosted) = hosted.filter(|hosted| hosted.thread.is_urgent())
                && hosted.thread.has_ready_work()
            {
                self.turn_of(&hosted, now, sum);
            }
        }
    }

    /// Runs until told to exit and all threads have exited.
    pub fn run(&self) {
        let mut last = self.clock.now();
        let mut last_busy = last;
        let mut depth = Depth::Poll;
        loop {
            let now = self.clock.now();
            let turn = self.poll_once(now);
            if self.is_done() {
                break;
            }
            let passed = now.saturating_sub(last);
            last = now;
            if turn.is_busy() {
                add(&self.counters.busy_ns, passed);
                if depth == Depth::Pause {
                    self.governor.borrow_mut().was_on_time();
                    depth = Depth::Poll;
                }
                last_busy = now;
                continue;
            }
            self.account(depth, passed);
            depth = self.rest(now, last_busy);
            if matches!(depth, Depth::Nap | Depth::Sleep) {
                last = self.clock.now();
            }
        }
        self.shared.stats.store(&self.counters.get());
    }

    /// The time since the last look goes to the rest that was taken before this one. Sleeps account for themselves.
    fn account(&self, depth: Depth, ns: u64) {
        if depth == Depth::Pause {
            self.governor.borrow_mut().paused(ns);
        }
        let depth = match depth {
            Depth::Pause => Depth::Pause,
            Depth::Poll | Depth::Nap | Depth::Sleep => Depth::Poll,
        };
        self.counters.rested_for(depth, ns);
    }

    /// Rests as deep as the goal allows, and says how.
    fn rest(&self, now: u64, last_busy: u64) -> Depth {
        if self.always_polls {
            // Who wants that has no time for a look around.
            self.counters.rested(Depth::Poll);
            return Depth::Poll;
        }
        let situation = self.situation(now, last_busy);
        let rest = self.governor.borrow_mut().decide(now, situation);
        let depth = match rest {
            // There is work.
            Rest::Poll => Depth::Poll,
            Rest::Pause => {
                self.cpu_pause.pause(self.pause_ticks);
                Depth::Pause
            }
            Rest::Sleep(bound) => {
                // Without a sleep there was work, and a look at it is what happens next.
                let depth = match (bound, situation.needs_polling) {
                    (Some(_), true) => Depth::Nap,
                    _ => Depth::Sleep,
                };
                return if self.sleep(now, bound, depth) {
                    depth
                } else {
                    Depth::Poll
                };
            }
        };
        self.counters.rested(depth);
        depth
    }

    fn situation(&self, now: u64, last_busy: u64) -> Situation {
        let threads = self.threads.borrow();
        let deadline = threads
            .iter()
            .filter_map(|hosted| hosted.thread.next_deadline())
            .min();
        Situation {
            busy: threads.iter().any(|hosted| hosted.thread.has_ready_work()),
            quiet_ns: now.saturating_sub(last_busy),
            deadline_in: deadline.map(|deadline| deadline.saturating_sub(now)),
            needs_polling: threads.iter().any(|hosted| hosted.thread.needs_polling()),
        }
    }

    /// Sleeps until something is to be done. The order is the point, and [`spdk_ring::Doorbell::rest`] holds it: first the flag is
    /// set, then everybody is asked once more, so that work that comes in between is either seen here or rings.
    fn sleep(&self, now: u64, bound: Option<u64>, depth: Depth) -> bool {
        let doorbell = &self.shared.doorbell;
        self.shared.stats.store(&self.counters.get());
        let is_quiet = || {
            self.commands.borrow().settle()
                && self
                    .threads
                    .borrow()
                    .iter()
                    .all(|hosted| hosted.thread.settle())
        };
        let Some(woken) = doorbell.rest(is_quiet, || self.wait(bound)) else {
            return false;
        };
        let awake = self.clock.now();
        let late = match (woken, bound) {
            (Woken::Timeout, Some(bound)) => {
                let late = awake.saturating_sub(now.saturating_add(bound));
                self.governor.borrow_mut().overslept(late);
                Some(late)
            }
            // A ring for an earlier rest may have come late: it says nothing about this one.
            (Woken::Doorbell, _) if doorbell.rang_at() >= now => {
                let late = awake.saturating_sub(doorbell.rang_at());
                self.governor.borrow_mut().rang(awake, late);
                Some(late)
            }
            _ => None,
        };
        if let Some(late) = late {
            self.shared.wake_latency.record(late as f64 / 1e9);
        }
        let counters = &self.counters;
        counters.rested(depth);
        counters.rested_for(depth, awake.saturating_sub(now));
        add(&counters.doorbells, u64::from(woken == Woken::Doorbell));
        counters.holds.set(self.governor.borrow().holds());
        true
    }

    /// Waits on epoll and passes its events on.
    fn wait(&self, timeout: Option<u64>) -> Woken {
        let threads = self.threads.borrow();
        let mut events = 0;
        let woken = self.epoll.borrow().wait(timeout, |event| {
            events += 1;
            if let Some(hosted) = threads.iter().find(|hosted| hosted.key == event.thread) {
                hosted.thread.fd_ready(event.watch, event.ready);
            }
        });
        drop(threads);
        if events > 0 {
            add(&self.counters.fd_events, events);
            // A descriptor that was reported in vain is disarmed before the next wait.
            self.apply_all_fd_changes();
        }
        woken
    }

    /// Every so often the statistics; and a look at the descriptors.
    #[inline]
    fn housekeep(&self, now: u64, due: bool) {
        if due {
            self.last_housekeeping.set(now);
            self.shared.stats.store(&self.counters.get());
        }
        if self.epoll.borrow().has_watches() {
            let before = self.clock.now();
            let woken = self.wait(Some(0));
            let took = self.clock.now().saturating_sub(before);
            self.last_look.set(now);
            self.look_pause.set(match woken {
                Woken::Timeout => HOUSEKEEPING_NS.min(took.saturating_mul(LOOK_PAUSE)),
                // Where something came, more comes soon.
                Woken::Doorbell | Woken::Events | Woken::Early => 0,
            });
        }
    }

    fn apply_all_fd_changes(&self) {
        let threads = self.threads.borrow();
        for hosted in threads
            .iter()
            .filter(|hosted| hosted.thread.has_fd_changes())
        {
            self.apply_fd_changes(hosted);
        }
    }

    fn apply_fd_changes(&self, hosted: &Hosted) {
        let mut epoll = self.epoll.borrow_mut();
        hosted
            .thread
            .drain_fd_changes(|change| epoll.apply(hosted.key, &hosted.thread, &change));
    }

    #[inline]
    fn run_commands(&self, now: u64) -> u32 {
        if !self.commands.borrow().has_next() {
            return 0;
        }
        let mut count = 0;
        loop {
            let command = self.commands.borrow_mut().try_recv();
            let Some(command) = command else { return count };
            count += 1;
            self.run_command(command, now);
        }
    }

    fn run_command(&self, command: Command, now: u64) {
        match command {
            Command::Host { seed, init } => {
                let thread = self.host(seed.start());
                if self.exiting.get() {
                    thread.request_exit();
                }
                // In a turn of its own, so that `current()` and the thread's time are right in it; through the front
                // of its mailbox, so that messages that were sent meanwhile come after it.
                thread.poll_with(now, init);
            }
            Command::Exit => {
                self.exiting.set(true);
                self.threads
                    .borrow()
                    .iter()
                    .for_each(|hosted| hosted.thread.request_exit());
            }
            Command::Stop => self.stopped.set(true),
            Command::Holders { reply } => {
                let threads = self.threads.borrow();
                let lines = threads.iter().flat_map(|hosted| {
                    let name = hosted.thread.name().to_owned();
                    hosted
                        .thread
                        .holders()
                        .into_iter()
                        .map(move |holder| format!("thread {name}: {holder}"))
                });
                // Whoever asked may have given up.
                let _ = reply.send(lines.collect());
            }
        }
    }

    fn is_done(&self) -> bool {
        self.stopped.get() || self.exiting.get() && self.threads.borrow().is_empty()
    }

    /// Runs the loop on this OS thread and keeps what a panic of the loop itself said.
    pub(crate) fn run_contained(&self) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.run())) {
            let text = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a panic without a text".to_owned());
            tracing::error!(
                reactor = self.shared.name,
                panic = text,
                "the reactor's loop panicked: its threads are lost"
            );
            *self
                .shared
                .failure
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(text);
        }
    }
}

impl std::fmt::Debug for Reactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor")
            .field("name", &self.shared.name)
            .field("threads", &self.threads.borrow().len())
            .finish_non_exhaustive()
    }
}
