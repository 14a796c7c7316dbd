//! Pollers: functions that a thread calls every turn, or every so many nanoseconds.

use crate::Thread;
use crate::carrier::CarriedPoller;
use crate::deadline_heap::DeadlineHeap;
use crate::mailbox::Mailbox;
use crate::panics;
use slab::Slab;
use spdk_ring::{UnitKind, UnitName};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

/// How often a poller is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// In every turn of its thread.
    EveryTurn,
    /// This many nanoseconds apart; a poller that comes late is not called twice. 0 is every turn.
    Nanos(u64),
}

/// What a poller found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollResult {
    /// It did something: the reactor does not rest (SPDK: `SPDK_POLLER_BUSY`).
    Busy,
    /// There was nothing to do (SPDK: `SPDK_POLLER_IDLE`).
    Idle,
}

/// A poller as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollerInfo {
    /// Its name.
    pub name: &'static str,
    /// How often it is called.
    pub period: Period,
    /// Whether it is paused.
    pub paused: bool,
    /// How often it was called.
    pub calls: u64,
    /// How often it reported [`PollResult::Busy`].
    pub busy: u64,
}

type Function = Box<dyn FnMut(u64) -> PollResult>;

struct Entry {
    name: &'static str,
    unit: UnitName,
    /// Its number in the table, and in the heap while it is timed.
    key: u32,
    period: Cell<Period>,
    paused: Cell<bool>,
    /// A wake source covers it, so that it does not keep the reactor from sleeping.
    covered: Cell<bool>,
    unregistered: Cell<bool>,
    /// Borrowed while it runs; absent once it is unregistered.
    function: RefCell<Option<Function>>,
    /// What calls it, on a carried thread.
    carried: RefCell<Option<Box<dyn CarriedPoller>>>,
    calls: Cell<u64>,
    busy: Cell<u64>,
}

impl Entry {
    fn is_timed(&self) -> bool {
        matches!(self.period.get(), Period::Nanos(1..))
    }

    fn is_active(&self) -> bool {
        !self.paused.get() && !self.unregistered.get()
    }

    /// Calls it if it is active; whether it was busy.
    #[inline]
    fn call(&self, now: u64) -> bool {
        if !self.is_active() {
            return false;
        }
        let busy = {
            let mut function = self.function.borrow_mut();
            let Some(function) = function.as_mut() else {
                return false;
            };
            function(now) == PollResult::Busy
        };
        self.calls.set(self.calls.get() + 1);
        self.busy.set(self.busy.get() + u64::from(busy));
        if self.unregistered.get() {
            self.drop_function();
        }
        busy
    }

    /// Drops what the user gave: it may use the table, and it may panic.
    #[cold]
    fn drop_function(&self) {
        // While it runs, whoever calls it drops it afterwards.
        let function = self
            .function
            .try_borrow_mut()
            .ok()
            .and_then(|mut function| function.take());
        if let Err(text) = panics::contain(|| drop(function)) {
            tracing::error!(
                poller = self.name,
                panic = text,
                "a poller panicked while it was dropped"
            );
        }
    }
}

#[derive(Default)]
pub(crate) struct PollerTable {
    /// By key.
    entries: RefCell<Slab<Rc<Entry>>>,
    /// In the order of registration, timed ones included.
    registered: RefCell<Vec<Rc<Entry>>>,
    /// The every-turn ones of these, paused ones included: what a turn walks through, whatever the pollers change meanwhile.
    every_turn: RefCell<Rc<[Rc<Entry>]>>,
    every_turn_is_old: Cell<bool>,
    timed: RefCell<DeadlineHeap>,
    busy_last_turn: Cell<bool>,
    /// Active every-turn pollers that no wake source covers.
    uncovered: Cell<u32>,
    /// The thread's carrier calls them; then the tables of this one only say which there are.
    is_carried: bool,
    /// Calls by the carrier that were busy, in this turn.
    carried_busy: Cell<u32>,
}

impl PollerTable {
    pub(crate) fn new(is_carried: bool) -> PollerTable {
        PollerTable {
            is_carried,
            ..PollerTable::default()
        }
    }

    /// Whether the thread's carrier calls them.
    pub(crate) fn are_carried(&self) -> bool {
        self.is_carried
    }

    /// Busy calls by the carrier since the last time.
    pub(crate) fn take_carried_busy(&self) -> u32 {
        let busy = self.carried_busy.take();
        self.busy_last_turn.set(busy > 0);
        busy
    }

    /// The carrier calls it.
    fn call_carried(&self, entry: &Rc<Entry>, thread: &Thread) -> bool {
        let mut busy = false;
        thread.mark(entry.unit, entry.key as usize + 1);
        if let Err(text) = panics::contain(|| busy = entry.call(thread.now())) {
            self.after_panic(entry, thread, &text);
        }
        self.carried_busy
            .set(self.carried_busy.get() + u32::from(busy));
        busy
    }

    fn register(
        &self,
        name: &'static str,
        period: Period,
        now: u64,
        function: Function,
    ) -> Rc<Entry> {
        let mut entries = self.entries.borrow_mut();
        let place = entries.vacant_entry();
        let entry = Rc::new(Entry {
            name,
            unit: UnitName::new(UnitKind::Poller, name),
            key: u32::try_from(place.key()).unwrap_or(u32::MAX),
            period: Cell::new(period),
            paused: Cell::new(true),
            covered: Cell::new(false),
            unregistered: Cell::new(false),
            function: RefCell::new(Some(function)),
            carried: RefCell::new(None),
            calls: Cell::new(0),
            busy: Cell::new(0),
        });
        place.insert(entry.clone());
        drop(entries);
        self.registered.borrow_mut().push(entry.clone());
        self.every_turn_is_old.set(true);
        self.activate(&entry, now);
        entry
    }

    fn activate(&self, entry: &Entry, now: u64) {
        if !entry.paused.replace(false) {
            return;
        }
        if self.is_carried {
            if let Some(poller) = &*entry.carried.borrow() {
                poller.resume();
            }
            return;
        }
        match entry.period.get() {
            Period::Nanos(period @ 1..) => self
                .timed
                .borrow_mut()
                .arm(entry.key, now.saturating_add(period)),
            _ => self
                .uncovered
                .set(self.uncovered.get() + u32::from(!entry.covered.get())),
        }
    }

    fn deactivate(&self, entry: &Entry) {
        if entry.paused.replace(true) {
            return;
        }
        if self.is_carried {
            if let Some(poller) = &*entry.carried.borrow() {
                poller.pause();
            }
            return;
        }
        if entry.is_timed() {
            self.timed.borrow_mut().disarm(entry.key);
        } else {
            self.uncovered
                .set(self.uncovered.get() - u32::from(!entry.covered.get()));
        }
    }

    fn unregister(&self, entry: &Rc<Entry>) {
        if entry.unregistered.replace(true) {
            return;
        }
        let carried = entry.carried.borrow_mut().take();
        drop(carried);
        self.deactivate(entry);
        self.entries.borrow_mut().remove(entry.key as usize);
        self.registered
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, entry));
        self.every_turn_is_old.set(true);
        entry.drop_function();
    }

    fn set_period(&self, entry: &Entry, period: Period, now: u64) {
        let paused = entry.paused.get();
        self.deactivate(entry);
        entry.period.set(period);
        self.every_turn_is_old.set(true);
        if !paused {
            self.activate(entry, now);
        }
    }

    fn set_covered(&self, entry: &Entry, covered: bool) {
        if entry.covered.replace(covered) != covered
            && !self.is_carried
            && entry.is_active()
            && !entry.is_timed()
        {
            let count = self.uncovered.get();
            self.uncovered
                .set(if covered { count - 1 } else { count + 1 });
        }
    }

    /// The every-turn pollers in the order of registration, then the due timed ones by deadline. Returns how many were
    /// busy.
    #[inline]
    pub(crate) fn run(&self, thread: &Thread, now: u64) -> u32 {
        if self.every_turn_is_old.get() {
            self.renew();
        }
        let mut busy = 0;
        let list = self.every_turn.borrow().clone();
        if !list.is_empty() {
            busy = self.run_list(&list, thread, now);
        }
        self.busy_last_turn.set(busy > 0);
        if self
            .timed
            .borrow()
            .earliest()
            .is_some_and(|deadline| deadline <= now)
        {
            busy += self.run_timed(thread, now);
        }
        busy
    }

    #[inline]
    fn run_list(&self, list: &[Rc<Entry>], thread: &Thread, now: u64) -> u32 {
        let mut busy = 0;
        let mut next = 0;
        while next < list.len() {
            // One landing pad for the list: a poller that does not panic does not pay for those that do.
            let caught = panics::contain(|| {
                while let Some(entry) = list.get(next) {
                    next += 1;
                    thread.mark(entry.unit, next);
                    // It may have become a timed one since the turn began.
                    busy += u32::from(!entry.is_timed() && entry.call(now));
                }
            });
            if let Err(text) = caught {
                self.after_panic(&list[next - 1], thread, &text);
            }
        }
        busy
    }

    fn run_timed(&self, thread: &Thread, now: u64) -> u32 {
        let mut busy = 0;
        loop {
            let due = self.timed.borrow_mut().pop_due(now);
            let Some((key, deadline)) = due else {
                return busy;
            };
            let entry = self.entries.borrow().get(key as usize).cloned();
            let Some(entry) = entry else { continue };
            thread.mark(entry.unit, key as usize);
            if let Err(text) = panics::contain(|| busy += u32::from(entry.call(now))) {
                self.after_panic(&entry, thread, &text);
            }
            if let Period::Nanos(period @ 1..) = entry.period.get()
                && entry.is_active()
            {
                let mut timed = self.timed.borrow_mut();
                // It may have been paused and resumed, or given another period, meanwhile.
                if !timed.is_armed(key) {
                    let next = deadline.saturating_add(period);
                    timed.arm(
                        key,
                        if next > now {
                            next
                        } else {
                            now.saturating_add(period)
                        },
                    );
                }
            }
        }
    }

    /// Names and unregisters the poller that panicked.
    #[cold]
    fn after_panic(&self, entry: &Rc<Entry>, thread: &Thread, text: &str) {
        thread.report_panic("poller", entry.name, text);
        self.unregister(entry);
        entry.drop_function();
    }

    #[cold]
    fn renew(&self) {
        self.every_turn_is_old.set(false);
        let list = self
            .registered
            .borrow()
            .iter()
            .filter(|entry| !entry.is_timed())
            .cloned()
            .collect();
        let before = self.every_turn.replace(list);
        drop(before);
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.timed.borrow().earliest()
    }

    pub(crate) fn shift(&self, ns: u64) {
        self.timed.borrow_mut().shift(ns);
    }

    /// Whether an every-turn poller was busy in the last turn.
    pub(crate) fn was_busy(&self) -> bool {
        self.busy_last_turn.get()
    }

    /// Whether an active every-turn poller has no wake source.
    pub(crate) fn needs_polling(&self) -> bool {
        self.uncovered.get() > 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.registered.borrow().is_empty()
    }

    pub(crate) fn list(&self) -> Vec<PollerInfo> {
        let info = |entry: &Rc<Entry>| PollerInfo {
            name: entry.name,
            period: entry.period.get(),
            paused: entry.paused.get(),
            calls: entry.calls.get(),
            busy: entry.busy.get(),
        };
        self.registered.borrow().iter().map(info).collect()
    }
}

/// A registered poller; own thread only. Dropping it unregisters. All of its methods, and its drop, are legal from
/// inside the poller itself (SPDK: `struct spdk_poller`).
#[must_use = "dropping a Poller unregisters it"]
pub struct Poller {
    thread: Thread,
    entry: Rc<Entry>,
}

impl Poller {
    pub(crate) fn register(
        thread: &Thread,
        name: &'static str,
        period: Period,
        function: Function,
    ) -> Poller {
        let entry = thread
            .inner()
            .pollers
            .register(name, period, thread.now(), function);
        carry(thread, &entry);
        Poller {
            thread: thread.clone(),
            entry,
        }
    }

    fn table(&self) -> &PollerTable {
        &self.thread.inner().pollers
    }

    /// Stops calling it until [`resume`](Self::resume) (SPDK: `spdk_poller_pause`). A second pause does nothing.
    pub fn pause(&self) {
        self.table().deactivate(&self.entry);
    }

    /// Calls it again: an every-turn poller at its old place in the order, a timed one a period from now (SPDK: `spdk_poller_resume`).
    pub fn resume(&self) {
        if self.is_registered() {
            self.table().activate(&self.entry, self.thread.now());
        }
    }

    /// Changes how often it is called, from now on; a paused poller stays paused.
    pub fn set_period(&self, period: Period) {
        if self.is_registered() {
            self.table()
                .set_period(&self.entry, period, self.thread.now());
            // A carrier's poller keeps its period: another one takes its place.
            carry(&self.thread, &self.entry);
        }
    }

    /// Tells whether a wake source (a watched descriptor, messages) announces this poller's work. If so, the reactor
    /// may sleep without a bound and calls the poller when it is awake; if not (the default), an active every-turn
    /// poller is called at least once per idle latency goal (SPDK: interrupt mode, `spdk_poller_register_interrupt`).
    pub fn set_interrupt_mode(&self, covered: bool) {
        self.table().set_covered(&self.entry, covered);
    }

    /// Whether it is still registered: false after it has panicked.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        !self.entry.unregistered.get()
    }
}

/// Gives the poller to the thread's carrier, if it has one, in place of what was there.
fn carry(thread: &Thread, entry: &Rc<Entry>) {
    let Mailbox::Carried(carrier) = &thread.inner().mailbox else {
        return;
    };
    if !thread.inner().pollers.is_carried {
        return;
    }
    let period = match entry.period.get() {
        Period::EveryTurn => 0,
        Period::Nanos(ns) => ns,
    };
    let own: Weak<Entry> = Rc::downgrade(entry);
    let call = move || {
        let Some(entry) = own.upgrade() else {
            return false;
        };
        crate::current().is_some_and(|thread| thread.inner().pollers.call_carried(&entry, &thread))
    };
    let poller = carrier.register(entry.name, period, Box::new(call));
    if entry.paused.get() {
        poller.pause();
    }
    let before = entry.carried.replace(Some(poller));
    drop(before);
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.table().unregister(&self.entry);
    }
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Poller({:?} of {:?})",
            self.entry.name,
            self.thread.name()
        )
    }
}
