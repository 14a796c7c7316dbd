//! Pollers: functions that a thread calls every turn, or every so many nanoseconds.

use crate::Thread;
use crate::deadline_heap::DeadlineHeap;
use crate::panics;
use slab::Slab;
use std::cell::{Cell, RefCell};

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

struct Slot {
    name: &'static str,
    generation: u64,
    period: Period,
    paused: bool,
    /// A wake source covers it, so that it does not keep the reactor from sleeping.
    covered: bool,
    /// Absent while it runs.
    function: Option<Function>,
    calls: u64,
    busy: u64,
}

impl Slot {
    fn is_timed(&self) -> bool {
        matches!(self.period, Period::Nanos(1..))
    }
}

/// A poller's place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    key: u32,
    generation: u64,
}

#[derive(Default)]
pub(crate) struct PollerTable {
    slots: RefCell<Slab<Slot>>,
    /// In the order of registration, paused ones included; unregistered ones are swept after the phase.
    every_turn: RefCell<Vec<Id>>,
    swept: Cell<bool>,
    timed: RefCell<DeadlineHeap>,
    /// The function that is being called, and whose it is: outside the slots, so that it may change the table.
    running: RefCell<Option<Function>>,
    running_id: Cell<Option<Id>>,
    generation: Cell<u64>,
    busy_last_turn: Cell<bool>,
    /// Active every-turn pollers that no wake source covers.
    uncovered: Cell<u32>,
}

impl PollerTable {
    fn register(&self, name: &'static str, period: Period, now: u64, function: Function) -> Id {
        let generation = self.generation.get() + 1;
        self.generation.set(generation);
        let slot = Slot {
            name,
            generation,
            period,
            paused: true,
            covered: false,
            function: Some(function),
            calls: 0,
            busy: 0,
        };
        let key = u32::try_from(self.slots.borrow_mut().insert(slot)).unwrap_or(u32::MAX);
        let id = Id { key, generation };
        self.activate(id, now);
        id
    }

    fn with<R>(&self, id: Id, f: impl FnOnce(&mut Slot) -> R) -> Option<R> {
        let mut slots = self.slots.borrow_mut();
        slots
            .get_mut(id.key as usize)
            .filter(|slot| slot.generation == id.generation)
            .map(f)
    }

    /// Puts a paused poller where it is called from.
    fn activate(&self, id: Id, now: u64) {
        let Some((period, covered)) = self.with(id, |slot| {
            slot.paused = false;
            (slot.period, slot.covered)
        }) else {
            return;
        };
        match period {
            Period::EveryTurn | Period::Nanos(0) => {
                let mut list = self.every_turn.borrow_mut();
                // A paused poller has kept its place.
                if !list.contains(&id) {
                    list.push(id);
                }
                self.uncovered
                    .set(self.uncovered.get() + u32::from(!covered));
            }
            Period::Nanos(period) => self
                .timed
                .borrow_mut()
                .arm(id.key, now.saturating_add(period)),
        }
    }

    /// Takes a poller from where it is called.
    fn deactivate(&self, id: Id) {
        let Some((was_active, period, covered)) = self.with(id, |slot| {
            let was_active = !slot.paused;
            slot.paused = true;
            (was_active, slot.period, slot.covered)
        }) else {
            return;
        };
        if !was_active {
            return;
        }
        match period {
            Period::EveryTurn | Period::Nanos(0) => {
                self.swept.set(false);
                self.uncovered
                    .set(self.uncovered.get() - u32::from(!covered));
            }
            Period::Nanos(_) => self.timed.borrow_mut().disarm(id.key),
        }
    }

    fn unregister(&self, id: Id) {
        self.deactivate(id);
        let known = self.with(id, |_| ()).is_some();
        let removed = known.then(|| self.slots.borrow_mut().remove(id.key as usize));
        // The function is the user's: what it owns may use this table while it is dropped.
        if let Some(slot) = removed
            && let Err(text) = panics::contain(|| drop(slot.function))
        {
            tracing::error!(
                poller = slot.name,
                panic = text,
                "a poller panicked while it was dropped"
            );
        }
    }

    fn set_covered(&self, id: Id, covered: bool) {
        let change = self.with(id, |slot| {
            let changed = slot.covered != covered;
            slot.covered = covered;
            changed && !slot.paused && !slot.is_timed()
        });
        if change == Some(true) {
            let count = self.uncovered.get();
            self.uncovered
                .set(if covered { count - 1 } else { count + 1 });
        }
    }

    /// The every-turn pollers in the order of registration, then the due timed ones by deadline. Returns how many were
    /// busy.
    #[inline]
    pub(crate) fn run(&self, thread: &Thread, now: u64) -> u32 {
        let mut busy = 0;
        let frozen = self.every_turn.borrow().len();
        let cursor = Cell::new(0);
        while cursor.get() < frozen {
            let caught = panics::contain(|| {
                while cursor.get() < frozen {
                    let id = self.every_turn.borrow()[cursor.get()];
                    cursor.set(cursor.get() + 1);
                    busy += u32::from(self.call(id, now, false));
                }
            });
            self.after_panic(caught, thread);
        }
        self.busy_last_turn.set(busy > 0);
        if !self.swept.replace(true) {
            self.sweep();
        }
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

    fn run_timed(&self, thread: &Thread, now: u64) -> u32 {
        let mut busy = 0;
        loop {
            let due = self.timed.borrow_mut().pop_due(now);
            let Some((key, deadline)) = due else {
                return busy;
            };
            let Some(id) = self.id_of(key) else { continue };
            let caught = panics::contain(|| busy += u32::from(self.call(id, now, true)));
            self.after_panic(caught, thread);
            let period = self
                .with(
                    id,
                    |slot| if slot.paused { None } else { Some(slot.period) },
                )
                .flatten();
            if let Some(Period::Nanos(period @ 1..)) = period {
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

    fn id_of(&self, key: u32) -> Option<Id> {
        self.slots.borrow().get(key as usize).map(|slot| Id {
            key,
            generation: slot.generation,
        })
    }

    /// Calls one poller unless it is paused, gone, or of the other kind by now; whether it was busy.
    #[inline]
    fn call(&self, id: Id, now: u64, timed: bool) -> bool {
        let function = {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(id.key as usize) else {
                return false;
            };
            if slot.generation != id.generation || slot.paused || slot.is_timed() != timed {
                return false;
            }
            slot.function.take()
        };
        if function.is_none() {
            return false;
        }
        self.running_id.set(Some(id));
        *self.running.borrow_mut() = function;
        let result = self
            .running
            .borrow_mut()
            .as_mut()
            .map(|function| function(now));
        self.running_id.set(None);
        let function = self.running.borrow_mut().take();
        let busy = result == Some(PollResult::Busy);
        let mut slots = self.slots.borrow_mut();
        match slots
            .get_mut(id.key as usize)
            .filter(|slot| slot.generation == id.generation)
        {
            Some(slot) => {
                slot.function = function;
                slot.calls += 1;
                slot.busy += u64::from(busy);
            }
            None => {
                // It unregistered itself.
                drop(slots);
                drop(function);
            }
        }
        busy
    }

    /// Unregisters and names the poller that panicked.
    fn after_panic(&self, caught: Result<(), String>, thread: &Thread) {
        let Err(text) = caught else { return };
        let function = self.running.borrow_mut().take();
        let id = self.running_id.take();
        let name = id
            .and_then(|id| self.with(id, |slot| slot.name))
            .unwrap_or("(unregistered)");
        thread.report_panic("poller", name, &text);
        if let Some(id) = id {
            self.unregister(id);
        }
        if let Err(text) = panics::contain(|| drop(function)) {
            thread.report_panic("poller", name, &text);
        }
    }

    /// Removes unregistered pollers, and those that have become timed, from the every-turn list.
    fn sweep(&self) {
        let slots = self.slots.borrow();
        self.every_turn.borrow_mut().retain(|id| {
            slots
                .get(id.key as usize)
                .is_some_and(|slot| slot.generation == id.generation && !slot.is_timed())
        });
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
        self.slots.borrow().is_empty()
    }

    pub(crate) fn list(&self) -> Vec<PollerInfo> {
        let slots = self.slots.borrow();
        let mut all: Vec<&Slot> = slots.iter().map(|(_, slot)| slot).collect();
        all.sort_by_key(|slot| slot.generation);
        all.into_iter()
            .map(|slot| PollerInfo {
                name: slot.name,
                period: slot.period,
                paused: slot.paused,
                calls: slot.calls,
                busy: slot.busy,
            })
            .collect()
    }
}

/// A registered poller; own thread only. Dropping it unregisters. All of its methods, and its drop, are legal from
/// inside the poller itself (SPDK: `struct spdk_poller`).
#[must_use = "dropping a Poller unregisters it"]
pub struct Poller {
    thread: Thread,
    id: Id,
}

impl Poller {
    pub(crate) fn register(
        thread: &Thread,
        name: &'static str,
        period: Period,
        function: Function,
    ) -> Poller {
        let id = thread
            .inner()
            .pollers
            .register(name, period, thread.now(), function);
        Poller {
            thread: thread.clone(),
            id,
        }
    }

    fn table(&self) -> &PollerTable {
        &self.thread.inner().pollers
    }

    /// Stops calling it until [`resume`](Self::resume) (SPDK: `spdk_poller_pause`). A second pause does nothing.
    pub fn pause(&self) {
        self.table().deactivate(self.id);
    }

    /// Calls it again: an every-turn poller at its old place in the order, a timed one a period from now (SPDK: `spdk_poller_resume`).
    pub fn resume(&self) {
        if self.table().with(self.id, |slot| slot.paused) == Some(true) {
            self.table().activate(self.id, self.thread.now());
        }
    }

    /// Changes how often it is called, from now on; a paused poller stays paused.
    pub fn set_period(&self, period: Period) {
        let table = self.table();
        let paused = table.with(self.id, |slot| slot.paused);
        table.deactivate(self.id);
        table.with(self.id, |slot| slot.period = period);
        if paused == Some(false) {
            table.activate(self.id, self.thread.now());
        }
    }

    /// Tells whether a wake source (a watched descriptor, messages) announces this poller's work. If so, the reactor
    /// may sleep without a bound and calls the poller when it is awake; if not (the default), an active every-turn
    /// poller is called at least once per idle latency goal (SPDK: interrupt mode, `spdk_poller_register_interrupt`).
    pub fn set_interrupt_mode(&self, covered: bool) {
        self.table().set_covered(self.id, covered);
    }

    /// Whether it is still registered: false after it has panicked.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.table().with(self.id, |_| ()).is_some()
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.table().unregister(self.id);
    }
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.table().with(self.id, |slot| slot.name);
        write!(
            f,
            "Poller({:?} of {:?})",
            name.unwrap_or("(unregistered)"),
            self.thread.name()
        )
    }
}
