//! The executor: task slots, the ready queue, and one turn's share of tasks.

use super::body::{BodyPools, Boxed};
use super::cycle::Cycle;
use super::join::{JoinError, JoinHandle};
use super::waker::{SlotWaker, TaskWaker};
use crate::Thread;
use crate::panics;
use spdk_ring::{UnitKind, UnitName};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::Location;
use std::task::{Context, Poll, Waker};

/// Why a task was not started; its future has been dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// The thread is exiting and takes no new tasks.
    #[error("the thread is exiting and takes no new tasks")]
    Exiting,
    /// The thread is at its bound of tasks.
    #[error(
        "the thread has {0} tasks, its limit: it is overloaded, or tasks wait for something that does not come"
    )]
    TooMany(u32),
}

/// What a task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// Runs in this turn or the next.
    Ready,
    /// Is being polled.
    Running,
    /// Waits to be woken.
    Waiting,
    /// Has ended; its output waits for the join.
    Done,
}

/// A task as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInfo {
    /// The name that it was started with.
    pub name: &'static str,
    /// Its number on its thread; reused after its end.
    pub id: u32,
    /// Nanoseconds since it was started.
    pub age_ns: u64,
    /// What it is doing.
    pub state: TaskState,
    /// What it waits for, if it waits: "sleep", "join", "semaphore" and so on.
    pub waits_for: &'static str,
    /// How often it has been polled.
    pub polls: u32,
    /// Where it was started.
    pub spawned_by: &'static Location<'static>,
}

const WAITS_ELSEWHERE: &str = "a wake-up";

const _: () = assert!(size_of::<Slot>() == 64);

/// What every poll touches: one cache line.
#[repr(align(64))]
struct Slot {
    /// Absent while the task runs.
    boxed: Option<Boxed>,
    /// Made at the slot's first use. Absent while the task runs.
    waker: Option<Waker>,
    unit: UnitName,
    generation: u32,
    polls: u32,
    /// `None`: the slot is free.
    state: Option<TaskState>,
    aborted: bool,
    detached: bool,
    has_joiner: bool,
}

/// What only the beginning, the end and the operators touch.
struct Rest {
    joiner: Option<TaskWaker>,
    name: &'static str,
    waits_for: &'static str,
    spawned_at: u64,
    spawned_by: &'static Location<'static>,
}

struct Slots {
    all: Vec<Slot>,
    /// By the same index.
    rest: Vec<Rest>,
    free: Vec<u32>,
    ready: VecDeque<u32>,
    live: u32,
}

pub(crate) struct TaskTable {
    pub(crate) cycle: Cycle,
    slots: RefCell<Slots>,
    pools: RefCell<BodyPools>,
    /// The task whose poll panicked, until the panic has been dealt with.
    panicked: RefCell<Option<Boxed>>,
    running_index: Cell<u32>,
    running_generation: Cell<u32>,
    running_waker: Cell<*const ()>,
    running_waits_for: Cell<&'static str>,
    /// The task was woken, or gave way, while it ran.
    running_notified: Cell<bool>,
    limit: u32,
    spawned: Cell<u64>,
}

const NONE: u32 = u32::MAX;

impl TaskTable {
    pub(crate) fn new(limit: u32, batch: usize, pool_bytes: usize) -> TaskTable {
        let slots = Slots {
            all: Vec::new(),
            rest: Vec::new(),
            free: Vec::new(),
            ready: VecDeque::new(),
            live: 0,
        };
        TaskTable {
            cycle: Cycle::new(batch),
            slots: RefCell::new(slots),
            pools: RefCell::new(BodyPools::new(pool_bytes)),
            panicked: RefCell::new(None),
            running_index: Cell::new(NONE),
            running_generation: Cell::new(0),
            running_waker: Cell::new(std::ptr::null()),
            running_waits_for: Cell::new(""),
            running_notified: Cell::new(false),
            limit: limit.min(NONE - 1),
            spawned: Cell::new(0),
        }
    }

    /// Starts a task; it first runs in the task phase that comes next.
    #[inline]
    #[track_caller]
    pub(crate) fn spawn<T: 'static>(
        &self,
        thread: &Thread,
        name: &'static str,
        future: impl Future<Output = T> + 'static,
    ) -> Result<JoinHandle<T>, SpawnError> {
        if self.slots.borrow().live >= self.limit {
            return Err(SpawnError::TooMany(self.limit));
        }
        let boxed = self.pools.borrow_mut().take(future);
        let mut slots = self.slots.borrow_mut();
        let slots = &mut *slots;
        let index = match slots.free.pop() {
            Some(index) => index,
            None => slots.grow(thread),
        };
        let slot = &mut slots.all[index as usize];
        slot.boxed = Some(boxed);
        slot.state = Some(TaskState::Ready);
        slot.unit = UnitName::new(UnitKind::Task, name);
        let generation = slot.generation;
        let rest = &mut slots.rest[index as usize];
        rest.name = name;
        rest.spawned_at = thread.now();
        rest.spawned_by = Location::caller();
        slots.ready.push_back(index);
        slots.live += 1;
        self.spawned.set(self.spawned.get() + 1);
        Ok(JoinHandle::new(thread.clone(), index, generation))
    }

    /// Polls tasks of the cycle: those that were ready when it began, at most a batch of them. Returns how many.
    #[inline]
    pub(crate) fn run(&self, thread: &Thread) -> u32 {
        let frozen = self
            .cycle
            .take(thread.now(), || self.slots.borrow().ready.len());
        if frozen == 0 {
            return 0;
        }
        let left = Cell::new(frozen);
        while left.get() > 0 {
            // One landing pad for the batch: a poll that does not panic does not pay for those that do.
            if let Err(text) = panics::contain(|| self.run_batch(thread, &left)) {
                self.after_panic(thread, &text);
            }
        }
        u32::try_from(frozen).unwrap_or(u32::MAX)
    }

    fn run_batch(&self, thread: &Thread, left: &Cell<usize>) {
        while left.get() > 0 {
            left.set(left.get() - 1);
            let Some((index, boxed, waker, aborted)) = self.start_next(thread) else {
                continue;
            };
            let mut running = Running {
                table: self,
                boxed: Some(boxed),
            };
            let Some(boxed) = &mut running.boxed else {
                continue;
            };
            let poll = if aborted {
                boxed.body.as_mut().fail(JoinError::Aborted);
                Poll::Ready(())
            } else {
                boxed.body.as_mut().poll(&mut Context::from_waker(&waker))
            };
            let boxed = running.boxed.take();
            self.stop(index, boxed, waker, poll);
        }
    }

    /// Takes the first ready task out of its slot.
    #[inline]
    fn start_next(&self, thread: &Thread) -> Option<(u32, Boxed, Waker, bool)> {
        let mut slots = self.slots.borrow_mut();
        let slots = &mut *slots;
        let index = slots.ready.pop_front()?;
        let slot = &mut slots.all[index as usize];
        slot.state = Some(TaskState::Running);
        // A turn polls a task once, so the index tells its units apart.
        thread.mark(slot.unit, index as usize);
        slot.polls = slot.polls.saturating_add(1);
        let boxed = slot.boxed.take()?;
        let waker = slot
            .waker
            .take()
            .unwrap_or_else(|| SlotWaker::waker(thread.shared().clone(), index));
        self.running_index.set(index);
        self.running_generation.set(slot.generation);
        self.running_waker.set(waker.data());
        self.running_waits_for.set(WAITS_ELSEWHERE);
        self.running_notified.set(false);
        Some((index, boxed, waker, slot.aborted))
    }

    /// Puts the task back, ready, waiting or done.
    #[inline]
    fn stop(&self, index: u32, boxed: Option<Boxed>, waker: Waker, poll: Poll<()>) {
        self.running_index.set(NONE);
        self.running_waker.set(std::ptr::null());
        let mut slots = self.slots.borrow_mut();
        let slots_mut = &mut *slots;
        let slot = &mut slots_mut.all[index as usize];
        slot.waker = Some(waker);
        slot.boxed = boxed;
        if poll.is_pending() {
            if self.running_notified.get() || slot.aborted {
                slot.state = Some(TaskState::Ready);
                slots_mut.ready.push_back(index);
            } else {
                slot.state = Some(TaskState::Waiting);
                slots_mut.rest[index as usize].waits_for = self.running_waits_for.get();
            }
            return;
        }
        slot.state = Some(TaskState::Done);
        if slot.detached || slot.has_joiner {
            drop(slots);
            self.finish(index);
        }
    }

    /// The task in this slot has ended: its joiner is woken, or, if nobody will join, the slot is freed.
    #[inline]
    fn finish(&self, index: u32) {
        let (joiner, freed) = {
            let mut slots = self.slots.borrow_mut();
            slots.all[index as usize].state = Some(TaskState::Done);
            let joiner = slots.take_joiner(index);
            let detached = slots.all[index as usize].detached;
            let freed = if detached { slots.release(index) } else { None };
            (joiner, freed)
        };
        if let Some(joiner) = joiner {
            joiner.wake();
        }
        if let Some(mut boxed) = freed {
            boxed.body.as_mut().clear();
            self.recycle(boxed);
        }
    }

    fn recycle(&self, boxed: Boxed) {
        let left_over = self.pools.borrow_mut().give(boxed);
        drop(left_over);
    }

    /// Names the task that panicked and ends it; its joiner gets the text.
    #[cold]
    fn after_panic(&self, thread: &Thread, text: &str) {
        let index = self.running_index.replace(NONE);
        self.running_waker.set(std::ptr::null());
        let boxed = self.panicked.borrow_mut().take();
        let (Some(mut boxed), true) = (boxed, index != NONE) else {
            // Not in a task's poll but in what its end set off: a joiner's waker, or the drop of its output.
            thread.report_panic("task", "(end of a task)", text);
            return;
        };
        let name = self.slots.borrow().rest[index as usize].name;
        thread.report_panic("task", name, text);
        if let Err(again) = panics::contain(|| {
            boxed
                .body
                .as_mut()
                .fail(JoinError::Panicked(text.to_owned()))
        }) {
            thread.report_panic("task (while it was dropped)", name, &again);
        }
        self.slots.borrow_mut().all[index as usize].boxed = Some(boxed);
        if let Err(again) = panics::contain(|| self.finish(index)) {
            thread.report_panic("task (end)", name, &again);
        }
    }

    /// Makes a waiting task ready.
    #[inline]
    pub(crate) fn wake(&self, index: u32, generation: u32) {
        if self.running_index.get() == index {
            // Of its generation or not: at worst it is polled once too often.
            self.running_notified.set(true);
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let slots = &mut *slots;
        let Some(slot) = slots.all.get_mut(index as usize) else {
            return;
        };
        if slot.state == Some(TaskState::Waiting) && slot.generation == generation {
            slot.state = Some(TaskState::Ready);
            slots.ready.push_back(index);
        }
    }

    /// Makes the tasks ready that other OS threads, or standard wakers, have woken.
    #[inline]
    pub(crate) fn take_wakes(&self, thread: &Thread) {
        let wakes = &thread.shared().wakes;
        if !wakes.any() {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let slots = &mut *slots;
        wakes.take(|index| {
            if let Some(slot) = slots.all.get_mut(index as usize)
                && slot.state == Some(TaskState::Waiting)
            {
                slot.state = Some(TaskState::Ready);
                slots.ready.push_back(index);
            }
        });
    }

    /// Slot and generation of the running task if `waker` is its own and not a combinator's.
    #[inline]
    pub(crate) fn running_with(
        &self,
        waker: &Waker,
        waits_for: &'static str,
    ) -> Option<(u32, u32)> {
        if self.running_index.get() == NONE {
            return None;
        }
        self.running_waits_for.set(waits_for);
        (self.running_waker.get() == waker.data())
            .then(|| (self.running_index.get(), self.running_generation.get()))
    }

    /// The number of the task that is being polled.
    #[inline]
    pub(crate) fn running(&self) -> Option<u32> {
        Some(self.running_index.get()).filter(|index| *index != NONE)
    }

    /// Makes the running task ready again if `waker` is its own.
    #[inline]
    pub(crate) fn yield_running(&self, waker: &Waker) -> bool {
        let own = self.running_index.get() != NONE && self.running_waker.get() == waker.data();
        if own {
            self.running_notified.set(true);
        }
        own
    }

    /// Moves the output out if the task has ended and frees the slot; otherwise the task of `cx` will be woken.
    #[inline]
    pub(super) fn join(
        &self,
        index: u32,
        generation: u32,
        output: &mut dyn Any,
        cx: &mut Context<'_>,
    ) -> bool {
        let mut slots = self.slots.borrow_mut();
        let slot = &slots.all[index as usize];
        if slot.generation != generation {
            return true;
        }
        if slot.state == Some(TaskState::Done) {
            let boxed = slots.release(index);
            drop(slots);
            if let Some(mut boxed) = boxed {
                boxed.body.as_mut().take_output(output);
                self.recycle(boxed);
            }
            return true;
        }
        drop(slots);
        let joiner = TaskWaker::from_cx(cx, "join");
        let mut slots = self.slots.borrow_mut();
        slots.all[index as usize].has_joiner = true;
        let before = slots.rest[index as usize].joiner.replace(joiner);
        drop(slots);
        drop(before);
        false
    }

    pub(super) fn detach(&self, index: u32, generation: u32) {
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots.all[index as usize];
        if slot.generation != generation {
            return;
        }
        slot.detached = true;
        let done = slot.state == Some(TaskState::Done);
        let joiner = slots.take_joiner(index);
        let freed = if done { slots.release(index) } else { None };
        drop(slots);
        drop(joiner);
        if let Some(mut boxed) = freed {
            // The output is the user's: what its drop does must not take the dropper of the handle down.
            match panics::contain(|| boxed.body.as_mut().clear()) {
                Ok(()) => self.recycle(boxed),
                Err(text) => tracing::error!(
                    panic = text,
                    "the output of a detached task panicked while it was dropped"
                ),
            }
        }
    }

    pub(super) fn abort(&self, index: u32, generation: u32) {
        let mut slots = self.slots.borrow_mut();
        let slots = &mut *slots;
        let slot = &mut slots.all[index as usize];
        if slot.generation != generation || slot.state == Some(TaskState::Done) {
            return;
        }
        slot.aborted = true;
        if slot.state == Some(TaskState::Waiting) {
            slot.state = Some(TaskState::Ready);
            slots.ready.push_back(index);
        }
    }

    pub(super) fn is_done(&self, index: u32, generation: u32) -> bool {
        let slots = self.slots.borrow();
        let slot = &slots.all[index as usize];
        slot.generation != generation || slot.state == Some(TaskState::Done)
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.slots.borrow().ready.is_empty()
    }

    /// Tasks that have not ended. Ended ones whose output nobody has taken yet hold nothing.
    pub(crate) fn unfinished(&self) -> usize {
        let slots = self.slots.borrow();
        slots
            .all
            .iter()
            .filter(|slot| slot.state.is_some_and(|state| state != TaskState::Done))
            .count()
    }

    /// Tasks started so far.
    pub(crate) fn spawned(&self) -> u64 {
        self.spawned.get()
    }

    pub(crate) fn list(&self, now: u64) -> Vec<TaskInfo> {
        let slots = self.slots.borrow();
        let info = |(index, slot): (usize, &Slot)| {
            let state = slot.state?;
            let rest = &slots.rest[index];
            Some(TaskInfo {
                name: rest.name,
                id: index as u32,
                age_ns: now.saturating_sub(rest.spawned_at),
                state,
                waits_for: if state == TaskState::Waiting {
                    rest.waits_for
                } else {
                    ""
                },
                polls: slot.polls,
                spawned_by: rest.spawned_by,
            })
        };
        slots.all.iter().enumerate().filter_map(info).collect()
    }
}

/// The task that is being polled: outside the slots, so that it may use the table. If its poll panics, it is kept for
/// `after_panic` instead of being dropped in the middle of the unwinding.
struct Running<'a> {
    table: &'a TaskTable,
    boxed: Option<Boxed>,
}

impl Drop for Running<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(boxed) = self.boxed.take() {
            *self.table.panicked.borrow_mut() = Some(boxed);
        }
    }
}

impl Slots {
    #[cold]
    fn grow(&mut self, thread: &Thread) -> u32 {
        let index = self.all.len() as u32;
        self.all.push(Slot {
            boxed: None,
            waker: Some(SlotWaker::waker(thread.shared().clone(), index)),
            unit: UnitName::new(UnitKind::Task, ""),
            generation: 0,
            polls: 0,
            state: None,
            aborted: false,
            detached: false,
            has_joiner: false,
        });
        self.rest.push(Rest {
            joiner: None,
            name: "",
            waits_for: "",
            spawned_at: 0,
            spawned_by: Location::caller(),
        });
        index
    }

    #[inline]
    fn take_joiner(&mut self, index: u32) -> Option<TaskWaker> {
        if !std::mem::take(&mut self.all[index as usize].has_joiner) {
            return None;
        }
        self.rest[index as usize].joiner.take()
    }

    /// Frees a slot; what was in it is the caller's to drop, outside the borrow.
    #[inline]
    fn release(&mut self, index: u32) -> Option<Boxed> {
        let slot = &mut self.all[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.state = None;
        slot.aborted = false;
        slot.detached = false;
        slot.polls = 0;
        self.live -= 1;
        self.free.push(index);
        slot.boxed.take()
    }
}
