//! The lightweight thread: one turn, and its end.

use crate::channel::{ChannelError, ChannelTable, IoChannel, IoDevice};
use crate::current::Entered;
use crate::fd_watch::{FdChange, FdTable, FdWatch, Interest};
use crate::handle::{CarryError, Shared, ThreadHandle};
use crate::mailbox::{Inbox, Mailbox};
use crate::options::ThreadOptions;
use crate::panics;
use crate::poller::{Period, PollResult, Poller, PollerInfo, PollerTable};
use crate::scope::ScopeSlot;
use crate::task::{CycleStats, JoinHandle, SleepTable, SpawnError, TaskInfo, TaskTable};
use spdk_ring::{UnitKind, UnitName};
use std::cell::Cell;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

/// What one turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Turn {
    /// Messages run.
    pub messages: u32,
    /// Pollers that were busy.
    pub pollers_busy: u32,
    /// Tasks polled, without the quiet ones.
    pub tasks: u32,
    /// Tasks polled that do not count as work ([`crate::quiet`]).
    pub quiet_tasks: u32,
}

impl Turn {
    /// Whether anything was done that counts as work.
    #[must_use]
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.messages | self.pollers_busy | self.tasks != 0
    }
}

/// A thread's totals since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThreadStats {
    /// Turns.
    pub turns: u64,
    /// Messages run.
    pub messages: u64,
    /// Calls of pollers that were busy.
    pub pollers_busy: u64,
    /// Polls of tasks.
    pub task_polls: u64,
    /// Tasks started.
    pub spawned: u64,
    /// Panics caught in messages, pollers, tasks and channels.
    pub panics: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Exiting,
    Exited,
}

pub(crate) struct Inner {
    shared: Arc<Shared>,
    pub(crate) mailbox: Mailbox,
    message_batch: usize,
    urgent: bool,
    now: Cell<u64>,
    state: Cell<State>,
    polling: Cell<bool>,
    stats: Cell<ThreadStats>,
    pub(crate) pollers: PollerTable,
    pub(crate) tasks: TaskTable,
    /// Polls of quiet tasks in this turn.
    pub(crate) quiet_polls: Cell<u32>,
    pub(crate) sleeps: SleepTable,
    pub(crate) channels: ChannelTable,
    pub(crate) fds: FdTable,
    pub(crate) scope: ScopeSlot,
}

impl Inner {
    #[inline]
    fn count(&self, turn: Turn) {
        let mut stats = self.stats.get();
        stats.messages += u64::from(turn.messages);
        stats.pollers_busy += u64::from(turn.pollers_busy);
        stats.task_polls += u64::from(turn.tasks + turn.quiet_tasks);
        self.stats.set(stats);
    }
}

/// SPDK's lightweight thread: a mailbox, pollers, I/O channels and tasks that run in turns on one OS thread
/// (`struct spdk_thread`). A counted reference; own thread only: it stays on the OS thread that made it. Others talk to it through [`ThreadHandle`].
#[derive(Clone)]
pub struct Thread(Rc<Inner>);

/// A thread that has an address but does not live yet: made anywhere, [started](Self::start) where it shall live.
pub struct ThreadSeed {
    shared: Arc<Shared>,
    mailbox: Inbox,
    options: ThreadOptions,
}

impl ThreadSeed {
    /// The address and the seed of a new thread. Messages can be sent at once; they run after the start. Dropping the
    /// seed exits the thread.
    ///
    /// # Errors
    /// [`CarryError`] if [`ThreadOptions::provider`] has no room for it; never without one.
    pub fn new(
        name: &str,
        options: ThreadOptions,
    ) -> Result<(ThreadHandle, ThreadSeed), CarryError> {
        let (shared, mailbox) = Shared::new(name, &options)?;
        let handle = ThreadHandle {
            shared: shared.clone(),
        };
        let seed = ThreadSeed {
            shared,
            mailbox,
            options,
        };
        Ok((handle, seed))
    }

    /// Brings the thread to life on the calling OS thread.
    #[must_use]
    pub fn start(self) -> Thread {
        let ThreadSeed {
            shared,
            mailbox,
            options,
        } = self;
        let fds = FdTable::default();
        let mailbox = mailbox.start();
        let wake_fd = mailbox.wake_fd();
        let carrier_calls = matches!(mailbox, Mailbox::Carried(_)) && wake_fd.is_none();
        if let Some(fd) = wake_fd {
            fds.watch_carrier(fd);
        }
        Thread(Rc::new(Inner {
            tasks: TaskTable::new(
                options.max_tasks,
                options.task_batch,
                options.task_pool_bytes,
            ),
            shared,
            pollers: PollerTable::new(carrier_calls),
            mailbox,
            message_batch: options.message_batch.max(1),
            urgent: options.urgent,
            now: Cell::new(0),
            state: Cell::new(State::Running),
            polling: Cell::new(false),
            stats: Cell::new(ThreadStats::default()),
            quiet_polls: Cell::new(0),
            sleeps: SleepTable::default(),
            channels: ChannelTable::default(),
            fds,
            scope: ScopeSlot::default(),
        }))
    }
}

impl std::fmt::Debug for ThreadSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ThreadSeed({:?})", self.shared.name)
    }
}

impl Thread {
    /// A thread that lives on the calling OS thread. Somebody has to [`poll`](Self::poll) it: a reactor, or a test.
    ///
    /// # Panics
    /// If the options name a provider and it has no room: [`ThreadSeed::new`] returns that.
    #[must_use]
    pub fn new(name: &str, options: ThreadOptions) -> Thread {
        match ThreadSeed::new(name, options) {
            Ok((_, seed)) => seed.start(),
            Err(error) => panic!("{error}"),
        }
    }

    /// One turn at time `now` (nanoseconds; it never goes back: an earlier time counts as the last one): at most a batch
    /// of messages, the every-turn pollers in the order of registration, the due timed pollers by deadline, the due
    /// sleepers, then a batch of the cycle's tasks: those that were ready when it began (SPDK: `spdk_thread_poll`).
    ///
    /// Panics of messages, pollers and tasks are caught here, named in the log and counted.
    ///
    /// # Panics
    /// If called from inside a turn of the same thread.
    #[inline]
    pub fn poll(&self, now: u64) -> Turn {
        let inner = &*self.0;
        if inner.state.get() == State::Exited {
            return Turn::default();
        }
        assert!(
            !inner.polling.replace(true),
            "thread {:?} is polled from inside its own turn",
            self.name()
        );
        let _entered = Entered::new(self);
        self.set_now(now);
        let (messages, pollers_busy) = match &inner.mailbox {
            Mailbox::Own(_) => {
                let messages = self.run_messages();
                (messages, inner.pollers.run(self, inner.now.get()))
            }
            Mailbox::Carried(_) => self.run_carried(),
        };
        let now = inner.now.get();
        inner.sleeps.wake_due(now);
        inner.tasks.take_wakes(self);
        let tasks = inner.tasks.run(self);
        inner.channels.reap(self);
        if inner.state.get() == State::Exiting {
            self.try_exit();
        }
        inner.mailbox.set_current(false);
        inner.polling.set(false);
        let quiet_tasks = inner.quiet_polls.take().min(tasks);
        let turn = Turn {
            messages,
            pollers_busy,
            tasks: tasks - quiet_tasks,
            quiet_tasks,
        };
        inner.shared.pulse.end_turn();
        if turn.is_busy() || quiet_tasks != 0 {
            inner.count(turn);
        }
        turn
    }

    /// For reactors: runs `init` as the thread's first function, with the thread as the current one and `now` as its
    /// time. A panic in it is reported like that of a message, and asks the thread to exit.
    ///
    /// # Panics
    /// If called from inside a turn of the same thread.
    pub fn poll_with(&self, now: u64, init: impl FnOnce(&Thread)) {
        assert!(
            !self.0.polling.replace(true),
            "thread {:?} is polled from inside its own turn",
            self.name()
        );
        let entered = Entered::new(self);
        self.set_now(now);
        self.0.mailbox.set_current(true);
        if let Err(text) = panics::contain(|| init(self)) {
            self.report_panic("first function", self.name(), &text);
            self.request_exit();
        }
        self.0.mailbox.set_current(false);
        drop(entered);
        self.0.polling.set(false);
    }

    #[inline]
    fn set_now(&self, now: u64) {
        let inner = &*self.0;
        if inner.shared.pulse.turns() == 0 && inner.now.get() == 0 {
            // What was armed before the first turn counts from it.
            inner.pollers.shift(now);
            inner.sleeps.shift(now);
        }
        inner.now.set(now.max(inner.now.get()));
    }

    #[inline]
    fn run_messages(&self) -> u32 {
        if !self.0.mailbox.has_next() {
            return 0;
        }
        self.drain(self.0.message_batch)
    }

    /// A turn of the carrier: its messages, ours among them, then its pollers, ours among them or after them. Busy pollers: ours, or one for
    /// all of the carrier's.
    fn run_carried(&self) -> (u32, u32) {
        let inner = &*self.0;
        let Mailbox::Carried(carrier) = &inner.mailbox else {
            return (0, 0);
        };
        carrier.set_current(true);
        let calls_own = inner.fds.take_carrier();
        let unit = UnitName::new(UnitKind::Message, "message");
        let mut count = 0;
        let turned = carrier.turn(&mut |message| {
            count += 1;
            self.mark(unit, count);
            if let Err(text) = panics::contain(|| message.call(self)) {
                self.report_panic("message", "(unnamed)", &text);
            }
        });
        let busy = match calls_own {
            true => inner.pollers.run(self, inner.now.get()),
            false => inner.pollers.take_carried_busy(),
        };
        let others = turned.busy && busy == 0 && turned.messages == 0;
        (turned.messages, busy + u32::from(others))
    }

    fn drain(&self, batch: usize) -> u32 {
        let Mailbox::Own(mailbox) = &self.0.mailbox else {
            return 0;
        };
        let mut mailbox = mailbox.borrow_mut();
        let mut count = 0;
        let unit = UnitName::new(UnitKind::Message, "message");
        loop {
            let left = batch - count;
            let caught = panics::contain(|| {
                mailbox.drain(left, |message| {
                    count += 1;
                    self.mark(unit, count);
                    message.call(self);
                })
            });
            match caught {
                Ok(_) => return u32::try_from(count).unwrap_or(u32::MAX),
                Err(text) => self.report_panic("message", "(unnamed)", &text),
            }
        }
    }

    /// The `now` of the current turn, or of the last one: nanoseconds.
    #[must_use]
    #[inline]
    pub fn now(&self) -> u64 {
        self.0.now.get()
    }

    /// The request that the code works for that runs on this thread now, as [`trace`](crate::trace) gives it inside; 0: none.
    #[must_use]
    #[inline]
    pub fn trace(&self) -> u64 {
        self.0.tasks.trace().get()
    }

    /// When the earliest timed poller or sleeper is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let pollers = match &self.0.mailbox {
            Mailbox::Carried(carrier) if self.0.pollers.are_carried() => carrier
                .next_deadline_in()
                .map(|ns| self.now().saturating_add(ns)),
            _ => self.0.pollers.next_deadline(),
        };
        let sleeps = self.0.sleeps.next_deadline();
        pollers.into_iter().chain(sleeps).min()
    }

    /// Whether another turn would find something to do now: messages, ready or woken tasks, channels to destroy, an
    /// every-turn poller that was busy in the last turn. Deadlines do not count.
    #[must_use]
    pub fn has_ready_work(&self) -> bool {
        let inner = &*self.0;
        inner.pollers.was_busy()
            || inner.tasks.has_ready()
            || inner.shared.wakes.any()
            || inner.channels.has_unreferenced()
            || inner.state.get() == State::Exiting && self.is_unheld()
            || inner.mailbox.has_next()
    }

    /// The reactor's last look before it sleeps, after it has set its flag: as [`has_ready_work`](Self::has_ready_work)
    /// negated, ordered against senders and wakers on other cores (see `spdk_ring::mpsc::Receiver::settle`).
    #[must_use]
    pub fn settle(&self) -> bool {
        let inner = &*self.0;
        let quiet = inner.shared.wakes.settle() && inner.mailbox.settle();
        quiet && !self.has_ready_work()
    }

    /// Whether an active every-turn poller has no wake source, so that the reactor may not sleep longer than its
    /// latency goal (see [`Poller::set_interrupt_mode`]).
    #[must_use]
    pub fn needs_polling(&self) -> bool {
        // What SPDK sends itself rings no doorbell; unless it has one of its own.
        self.0.pollers.are_carried() || self.0.pollers.needs_polling()
    }

    /// The thread's address for other OS threads.
    #[must_use]
    pub fn handle(&self) -> ThreadHandle {
        ThreadHandle {
            shared: self.0.shared.clone(),
        }
    }

    /// The thread's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.shared.name
    }

    /// Whether its core lets it go before others (see [`ThreadOptions::urgent`]).
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.0.urgent
    }

    /// Whether who polls it ever sleeps (see [`crate::Wake::sleeps`]).
    #[must_use]
    pub fn sleeps(&self) -> bool {
        self.0.shared.sleeps()
    }

    /// The thread's number, unique in the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.shared.id
    }

    /// Registers a poller (SPDK: `spdk_poller_register`). One that is registered during the poller phase is first
    /// called in the next turn. A poller that panics is named in the log and unregistered.
    pub fn register_poller(
        &self,
        name: &'static str,
        period: Period,
        f: impl FnMut(u64) -> PollResult + 'static,
    ) -> Poller {
        Poller::register(self, name, period, Box::new(f))
    }

    /// Starts a task (an async ULT). It first runs in the task phase that comes next, in the order of starting. The
    /// memory of finished tasks is reused by later ones of their type, so starting one allocates only when more of its
    /// type are alive than ever before.
    ///
    /// # Errors
    /// [`SpawnError`] if the thread is exiting or at its bound; the future is dropped then.
    #[inline]
    #[track_caller]
    pub fn spawn<T: 'static>(
        &self,
        name: &'static str,
        f: impl Future<Output = T> + 'static,
    ) -> Result<JoinHandle<T>, SpawnError> {
        if self.0.state.get() != State::Running {
            return Err(SpawnError::Exiting);
        }
        self.0.tasks.spawn(self, name, f)
    }

    /// Watches a descriptor for tasks and pollers of this thread; the reactor's epoll serves it.
    pub fn watch_fd(&self, fd: Rc<OwnedFd>, interest: Interest) -> FdWatch {
        FdWatch::new(self, fd, interest)
    }

    /// The thread's channel on a device: made at the first call, shared afterwards (SPDK: `spdk_get_io_channel`).
    ///
    /// # Errors
    /// [`ChannelError`] if the thread is exiting, the device closed, or its constructor failed.
    pub fn get_io_channel<C: 'static>(
        &self,
        device: &IoDevice<C>,
    ) -> Result<IoChannel<C>, ChannelError> {
        self.0.channels.get(self, device)
    }

    /// The tasks that exist, for operators (`keel tasks`).
    #[must_use]
    pub fn tasks(&self) -> Vec<TaskInfo> {
        self.0.tasks.list(self.now())
    }

    /// The pollers that exist, in the order of registration.
    #[must_use]
    pub fn pollers(&self) -> Vec<PollerInfo> {
        self.0.pollers.list()
    }

    /// The totals so far.
    #[must_use]
    pub fn stats(&self) -> ThreadStats {
        ThreadStats {
            turns: self.0.shared.pulse.turns(),
            spawned: self.0.tasks.spawned(),
            ..self.0.stats.get()
        }
    }

    /// The cycles so far: a cycle is the tasks that were ready when it began (DAOS: `src/engine/sched.c`).
    #[must_use]
    pub fn cycle_stats(&self) -> CycleStats {
        self.0.tasks.cycle.stats()
    }

    /// Whether the next task phase begins a cycle. A scheduler that makes tasks does so now, not in the middle of one.
    #[must_use]
    #[inline]
    pub fn is_between_cycles(&self) -> bool {
        self.0.tasks.cycle.is_over()
    }

    /// Asks the thread to end (SPDK: `spdk_thread_exit`): no new tasks or channels from now on. It has exited when its
    /// pollers, tasks, channels and watched descriptors are gone and its mailbox is empty; until then it keeps turning,
    /// and [`holders`](Self::holders) says what it waits for.
    pub fn request_exit(&self) {
        if self.0.state.get() == State::Running {
            self.0.state.set(State::Exiting);
        }
    }

    /// Whether the thread has exited: its mailbox is closed and turns do nothing.
    #[must_use]
    pub fn is_exited(&self) -> bool {
        self.0.state.get() == State::Exited
    }

    /// Whether nobody has asked the thread to end.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.state.get() == State::Running
    }

    /// What keeps the thread from exiting, one line each.
    #[must_use]
    pub fn holders(&self) -> Vec<String> {
        let inner = &*self.0;
        if inner.state.get() == State::Exited {
            return Vec::new();
        }
        let mut holders: Vec<String> = inner
            .pollers
            .list()
            .into_iter()
            .map(|poller| format!("poller {}", poller.name))
            .collect();
        for task in inner.tasks.list(self.now()) {
            if task.state == crate::TaskState::Done {
                continue;
            }
            let age = task.age_ns / 1_000_000;
            let what = if task.waits_for.is_empty() {
                format!("{:?}", task.state).to_lowercase()
            } else {
                format!("waits for {}", task.waits_for)
            };
            holders.push(format!("task {} (age {age} ms, {what})", task.name));
        }
        holders.extend(inner.channels.holders());
        holders.extend(inner.fds.holders());
        match inner.mailbox.len() {
            0 => {}
            1 => holders.push("1 message in the mailbox".to_owned()),
            n => holders.push(format!("{n} messages in the mailbox")),
        }
        holders
    }

    fn is_unheld(&self) -> bool {
        let inner = &*self.0;
        inner.pollers.is_empty()
            && inner.channels.is_empty()
            && inner.fds.open() == 0
            && inner.tasks.unfinished() == 0
    }

    /// Exits if nothing holds the thread. The mailbox is closed first, so that a sender is either refused or its
    /// message runs in this last batch; what such a message registers holds the thread again.
    fn try_exit(&self) {
        if !self.is_unheld() {
            return;
        }
        let mailbox = &self.0.mailbox;
        if mailbox.len() > 0 {
            return;
        }
        mailbox.close();
        // A carrier hands over the rest in its next turns.
        self.drain(usize::MAX);
        if mailbox.len() == 0 && self.is_unheld() {
            self.0.state.set(State::Exited);
            self.0.fds.close_carrier();
            tracing::debug!(thread = self.name(), "thread exited");
        }
    }

    /// For reactors: gives each pending change of the watched descriptors to `apply`, to be done to epoll before the next wait.
    pub fn drain_fd_changes(&self, apply: impl FnMut(FdChange)) {
        self.0.fds.drain_changes(apply);
    }

    /// For reactors: whether [`drain_fd_changes`](Self::drain_fd_changes) has anything to give.
    #[must_use]
    pub fn has_fd_changes(&self) -> bool {
        self.0.fds.has_changes()
    }

    /// For reactors: epoll has reported `ready` on a watch. Errors and hang-ups count as both directions, so that the
    /// user finds them by reading or writing.
    pub fn fd_ready(&self, id: u32, ready: Interest) {
        self.0.fds.ready(id, ready);
    }

    /// Whether one of its turns runs.
    pub(crate) fn is_polling(&self) -> bool {
        self.0.polling.get()
    }

    /// Says what the message that runs now is called, for the watchdog: messages have no names of their own.
    #[inline]
    pub fn name_message(&self, name: &'static str) {
        let unit = UnitName::new(UnitKind::Message, name);
        self.0.shared.pulse.unit.rename(unit);
    }

    /// "This runs now", for the watchdog: one relaxed store.
    #[inline(always)]
    pub(crate) fn mark(&self, unit: UnitName, sequence: usize) {
        self.0.shared.pulse.unit.set(unit, sequence);
    }

    #[inline]
    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// What carries the thread, for devices that live on it; none: this crate.
    #[must_use]
    pub fn carrier(&self) -> Option<&dyn std::any::Any> {
        match &self.0.mailbox {
            Mailbox::Own(_) => None,
            Mailbox::Carried(carrier) => Some(&**carrier as &dyn std::any::Any),
        }
    }

    #[inline]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    #[cold]
    pub(crate) fn report_panic(&self, what: &str, name: &str, text: &str) {
        let mut stats = self.0.stats.get();
        stats.panics += 1;
        self.0.stats.set(stats);
        tracing::error!(
            thread = self.name(),
            what,
            name,
            panic = text,
            "a {what} panicked and was ended: {name}: {text}"
        );
    }
}

impl std::fmt::Debug for Thread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Thread({} {:?}, {:?})",
            self.id(),
            self.name(),
            self.0.state.get()
        )
    }
}
