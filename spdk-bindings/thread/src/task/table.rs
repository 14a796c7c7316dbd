//! The executor: beginning, running and ending the tasks in their slots; one turn's share of the ready ones.

use super::body::{Body, BodyPools, body};
use super::cycle::Cycle;
use super::join::{JoinError, JoinHandle};
use super::slot::{ABORTED, DETACHED, JOINED, NONE, Queue, Slot, Slots, Stack};
use super::waker::TaskWaker;
use crate::Thread;
use crate::panics;
use spdk_ring::{PackedStr, UnitKind, UnitName};
use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
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
    /// Which request it works for ([`crate::traced`]); 0: none.
    pub trace: u64,
}

/// The task that is being polled.
struct Running {
    index: Cell<u32>,
    /// NULL: none is.
    waker: Cell<*const ()>,
    waits_for: Cell<PackedStr>,
    /// It was woken, or gave way, while it ran.
    notified: Cell<bool>,
}

pub(crate) struct TaskTable {
    pub(crate) cycle: Cycle,
    ready: Queue,
    running: Running,
    slots: Slots,
    /// Free slots without a body.
    empty: Stack,
    pools: BodyPools,
    live: Cell<u32>,
    limit: u32,
    spawned: Cell<u64>,
    /// Of code that is no task: messages, pollers.
    trace_outside: Cell<u64>,
}

impl TaskTable {
    pub(crate) fn new(limit: u32, batch: usize, pool_bytes: usize) -> TaskTable {
        let limit = limit.min(NONE - 1);
        TaskTable {
            cycle: Cycle::new(batch),
            ready: Queue::new(),
            running: Running {
                index: Cell::new(NONE),
                waker: Cell::new(std::ptr::null()),
                waits_for: Cell::new(PackedStr::new("")),
                notified: Cell::new(false),
            },
            slots: Slots::new(limit),
            empty: Stack::new(),
            pools: BodyPools::new(pool_bytes),
            live: Cell::new(0),
            limit,
            spawned: Cell::new(0),
            trace_outside: Cell::new(0),
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
        let Some((index, slot)) = self.place(future) else {
            return Err(SpawnError::TooMany(self.limit));
        };
        slot.state.set(Some(TaskState::Ready));
        slot.unit.set(UnitName::new(UnitKind::Task, name));
        slot.cold.name.set(PackedStr::new(name));
        slot.cold.spawned_at.set(thread.now());
        slot.cold.spawned_by.set(Location::caller());
        slot.cold.trace.set(self.trace().get());
        self.ready.push(index, &self.slots);
        self.live.set(self.live.get() + 1);
        self.spawned.set(self.spawned.get() + 1);
        Ok(JoinHandle::new(
            thread.clone(),
            index,
            slot.generation.get(),
        ))
    }

    /// Puts a future into a free slot: best one that has the memory for it.
    #[inline]
    fn place<F: Future + 'static>(&self, future: F) -> Option<(u32, &Slot)> {
        if self.live.get() >= self.limit {
            return None;
        }
        let pool = self.pools.of::<F>();
        if let Some(free) = self.pools.free(pool)
            && let Some((index, slot)) = free.pop(&self.slots)
        {
            self.pools.took(pool);
            if let Some(body) = &mut *slot.body.borrow_mut() {
                body.as_mut().refill(&mut Some(future));
            }
            return Some((index, slot));
        }
        self.place_new(pool, body(future))
    }

    #[cold]
    fn place_new(&self, pool: u16, body: Pin<Box<dyn Body>>) -> Option<(u32, &Slot)> {
        let index = match self.empty.pop(&self.slots) {
            Some((index, _)) => index,
            None => self.slots.make().or_else(|| self.take_another())?,
        };
        let slot = self.slots.get(index)?;
        slot.pool.set(pool);
        // What was in it is empty: no code of a user's runs here.
        slot.body.replace(Some(body));
        Some((index, slot))
    }

    /// A free slot that keeps the memory of another type of tasks.
    #[cold]
    fn take_another(&self) -> Option<u32> {
        self.pools.numbers().find_map(|pool| {
            let (index, _) = self.pools.free(pool)?.pop(&self.slots)?;
            self.pools.took(pool);
            Some(index)
        })
    }

    /// Frees a slot whose body is empty.
    #[inline]
    fn free(&self, index: u32, slot: &Slot) {
        slot.generation.set(slot.generation.get().wrapping_add(1));
        slot.state.set(None);
        slot.flags.set(0);
        slot.polls.set(0);
        self.live.set(self.live.get() - 1);
        match self.pools.keep(slot.pool.get()) {
            Some(free) => free.push(index, slot),
            None => {
                slot.body.replace(None);
                self.empty.push(index, slot);
            }
        }
    }

    /// Polls tasks of the cycle: those that were ready when it began, at most a batch of them. Returns how many.
    #[inline]
    pub(crate) fn run(&self, thread: &Thread) -> u32 {
        let frozen = self.cycle.take(thread.now(), || self.ready.len());
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
        while let Some(others) = left.get().checked_sub(1) {
            left.set(others);
            let Some((index, slot)) = self.ready.pop(&self.slots) else {
                continue;
            };
            let waker = self.start(thread, index, slot);
            let poll = match &mut *slot.body.borrow_mut() {
                Some(body) if !slot.has(ABORTED) => {
                    body.as_mut().poll(&mut Context::from_waker(waker))
                }
                Some(body) => {
                    body.as_mut().fail(JoinError::Aborted);
                    Poll::Ready(())
                }
                None => Poll::Ready(()),
            };
            self.stop(index, slot, poll);
        }
    }

    #[inline]
    fn start<'a>(&self, thread: &Thread, index: u32, slot: &'a Slot) -> &'a Waker {
        slot.state.set(Some(TaskState::Running));
        // A turn polls a task once, so the index tells its units apart.
        thread.mark(slot.unit.get(), index as usize);
        slot.polls.set(slot.polls.get().saturating_add(1));
        let waker = slot.waker(thread.shared(), index);
        let running = &self.running;
        running.index.set(index);
        running.waker.set(waker.data());
        running.waits_for.set(PackedStr::new("a wake-up"));
        running.notified.set(false);
        waker
    }

    /// The task that was polled is ready again, waits, or is done.
    #[inline]
    fn stop(&self, index: u32, slot: &Slot, poll: Poll<()>) {
        self.running.index.set(NONE);
        self.running.waker.set(std::ptr::null());
        if poll.is_ready() {
            slot.state.set(Some(TaskState::Done));
            if slot.has(DETACHED | JOINED) {
                self.finish(index, slot);
            }
        } else if self.running.notified.get() || slot.has(ABORTED) {
            self.make_ready(index, slot);
        } else {
            slot.state.set(Some(TaskState::Waiting));
            slot.cold.waits_for.set(self.running.waits_for.get());
        }
    }

    #[inline]
    fn make_ready(&self, index: u32, slot: &Slot) {
        slot.state.set(Some(TaskState::Ready));
        self.ready.push(index, &self.slots);
    }

    /// The task in this slot has ended: its joiner is woken, or, if nobody will join, the slot is freed.
    fn finish(&self, index: u32, slot: &Slot) {
        if let Some(joiner) = slot.take_joiner() {
            joiner.wake();
        }
        if slot.has(DETACHED) {
            self.clear(index, slot);
        }
    }

    /// Drops the output of a task that has ended and frees its slot, also if the drop panics.
    fn clear(&self, index: u32, slot: &Slot) {
        struct Free<'a>(&'a TaskTable, u32, &'a Slot);
        impl Drop for Free<'_> {
            fn drop(&mut self) {
                self.0.free(self.1, self.2);
            }
        }
        let _free = Free(self, index, slot);
        if let Some(body) = &mut *slot.body.borrow_mut() {
            body.as_mut().clear();
        }
    }

    /// Names the task that panicked and ends it; its joiner gets the text.
    #[cold]
    fn after_panic(&self, thread: &Thread, text: &str) {
        let index = self.running.index.replace(NONE);
        self.running.waker.set(std::ptr::null());
        let Some(slot) = self.slots.get(index) else {
            // Not in a task's poll but in what its end set off: a joiner's waker, or the drop of its output.
            thread.report_panic("task", "(end of a task)", text);
            return;
        };
        let name = slot.cold.name.get().get();
        thread.report_panic("task", name, text);
        let fail = || {
            if let Some(body) = &mut *slot.body.borrow_mut() {
                body.as_mut().fail(JoinError::Panicked(text.to_owned()));
            }
        };
        if let Err(again) = panics::contain(fail) {
            thread.report_panic("task (while it was dropped)", name, &again);
        }
        slot.state.set(Some(TaskState::Done));
        if let Err(again) = panics::contain(|| self.finish(index, slot)) {
            thread.report_panic("task (end)", name, &again);
        }
    }

    /// Makes a waiting task ready.
    #[inline]
    pub(crate) fn wake(&self, index: u32, generation: u32) {
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        match slot.state.get() {
            Some(TaskState::Waiting) if slot.generation.get() == generation => {
                self.make_ready(index, slot);
            }
            // Of its generation or not: at worst it is polled once too often.
            Some(TaskState::Running) => self.running.notified.set(true),
            _ => {}
        }
    }

    /// Makes the tasks ready that other OS threads, or standard wakers, have woken.
    #[inline]
    pub(crate) fn take_wakes(&self, thread: &Thread) {
        let wakes = &thread.shared().wakes;
        if !wakes.any() {
            return;
        }
        wakes.take(|index| {
            if let Some(slot) = self.slots.get(index)
                && slot.is(TaskState::Waiting)
            {
                self.make_ready(index, slot);
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
        let running = &self.running;
        running.waits_for.set(PackedStr::new(waits_for));
        if running.waker.get() != waker.data() {
            return None;
        }
        let index = running.index.get();
        let slot = self.slots.get(index)?;
        Some((index, slot.generation.get()))
    }

    /// The number of the task that is being polled.
    #[inline]
    pub(crate) fn running(&self) -> Option<u32> {
        Some(self.running.index.get()).filter(|index| *index != NONE)
    }

    /// Makes the running task ready again if `waker` is its own.
    #[inline]
    pub(crate) fn yield_running(&self, waker: &Waker) -> bool {
        let own = self.running.waker.get() == waker.data();
        if own {
            self.running.notified.set(true);
        }
        own
    }

    /// The slot of a task, unless the task is gone.
    #[inline]
    fn of(&self, index: u32, generation: u32) -> Option<&Slot> {
        let slot = self.slots.get(index)?;
        (slot.generation.get() == generation).then_some(slot)
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
        let Some(slot) = self.of(index, generation) else {
            return true;
        };
        if slot.is(TaskState::Done) {
            if let Some(body) = &mut *slot.body.borrow_mut() {
                body.as_mut().take_output(output);
            }
            self.free(index, slot);
            return true;
        }
        let joiner = TaskWaker::from_cx(cx, "join");
        slot.flag(JOINED);
        drop(slot.cold.joiner.replace(Some(joiner)));
        false
    }

    pub(super) fn detach(&self, index: u32, generation: u32) {
        let Some(slot) = self.of(index, generation) else {
            return;
        };
        slot.flag(DETACHED);
        let joiner = slot.take_joiner();
        if slot.is(TaskState::Done) {
            // The output is the user's: what its drop does must not take the dropper of the handle down.
            if let Err(text) = panics::contain(|| self.clear(index, slot)) {
                tracing::error!(
                    panic = text,
                    "the output of a detached task panicked while it was dropped"
                );
            }
        }
        drop(joiner);
    }

    pub(super) fn abort(&self, index: u32, generation: u32) {
        let Some(slot) = self.of(index, generation) else {
            return;
        };
        if slot.is(TaskState::Done) {
            return;
        }
        slot.flag(ABORTED);
        if slot.is(TaskState::Waiting) {
            self.make_ready(index, slot);
        }
    }

    pub(super) fn is_done(&self, index: u32, generation: u32) -> bool {
        self.of(index, generation)
            .is_none_or(|slot| slot.is(TaskState::Done))
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.ready.len() > 0
    }

    /// Tasks that have not ended. Ended ones whose output nobody has taken yet hold nothing.
    pub(crate) fn unfinished(&self) -> usize {
        let unfinished = |slot: &Slot| {
            slot.state
                .get()
                .is_some_and(|state| state != TaskState::Done)
        };
        self.slots
            .iter()
            .filter(|(_, slot)| unfinished(slot))
            .count()
    }

    /// Which request the running code works for.
    #[inline]
    pub(crate) fn trace(&self) -> &Cell<u64> {
        match self.slots.get(self.running.index.get()) {
            Some(slot) => &slot.cold.trace,
            None => &self.trace_outside,
        }
    }

    /// Tasks started so far.
    pub(crate) fn spawned(&self) -> u64 {
        self.spawned.get()
    }

    pub(crate) fn list(&self, now: u64) -> Vec<TaskInfo> {
        let info = |(id, slot): (u32, &Slot)| {
            let (state, cold) = (slot.state.get()?, &slot.cold);
            Some(TaskInfo {
                name: cold.name.get().get(),
                id,
                age_ns: now.saturating_sub(cold.spawned_at.get()),
                state,
                waits_for: if state == TaskState::Waiting {
                    cold.waits_for.get().get()
                } else {
                    ""
                },
                polls: slot.polls.get(),
                spawned_by: cold.spawned_by.get(),
                trace: cold.trace.get(),
            })
        };
        self.slots.iter().filter_map(info).collect()
    }
}
