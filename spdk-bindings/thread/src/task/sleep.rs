//! Sleeping tasks, in the time of their thread.

use super::TaskWaker;
use crate::Thread;
use crate::current::current;
use crate::deadline_heap::DeadlineHeap;
use slab::Slab;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// Sleepers by deadline.
#[derive(Default)]
pub(crate) struct SleepTable(RefCell<Sleepers>);

#[derive(Default)]
struct Sleepers {
    heap: DeadlineHeap,
    slots: Slab<Option<TaskWaker>>,
}

impl SleepTable {
    fn insert(&self, deadline: u64, waker: TaskWaker) -> u32 {
        let mut sleepers = self.0.borrow_mut();
        let key = u32::try_from(sleepers.slots.insert(Some(waker))).unwrap_or(u32::MAX);
        sleepers.heap.arm(key, deadline);
        key
    }

    fn replace(&self, key: u32, waker: TaskWaker) {
        let mut sleepers = self.0.borrow_mut();
        let before = sleepers
            .slots
            .get_mut(key as usize)
            .and_then(|slot| slot.replace(waker));
        drop(sleepers);
        drop(before);
    }

    fn remove(&self, key: u32) {
        let mut sleepers = self.0.borrow_mut();
        sleepers.heap.disarm(key);
        let waker = sleepers.slots.try_remove(key as usize);
        drop(sleepers);
        drop(waker);
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.0.borrow().heap.earliest()
    }

    pub(crate) fn shift(&self, ns: u64) {
        self.0.borrow_mut().heap.shift(ns);
    }

    /// Wakes the sleepers that are due, earliest deadline first.
    #[inline]
    pub(crate) fn wake_due(&self, now: u64) {
        if self.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.wake_all_due(now);
        }
    }

    fn wake_all_due(&self, now: u64) {
        loop {
            let waker = {
                let mut sleepers = self.0.borrow_mut();
                let Some((key, _)) = sleepers.heap.pop_due(now) else {
                    return;
                };
                sleepers.slots.get_mut(key as usize).and_then(Option::take)
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Sleeps for `ns` nanoseconds of the current thread's time, from the first poll on. Turns decide: it wakes in the
/// first turn whose `now` has reached the deadline.
///
/// # Panics
/// When polled outside a thread's turn.
pub fn sleep(ns: u64) -> Sleep {
    Sleep {
        until: Until::After(ns),
        armed: None,
    }
}

/// Sleeps until the current thread's `now` has reached `deadline`.
///
/// # Panics
/// When polled outside a thread's turn.
pub fn sleep_until(deadline: u64) -> Sleep {
    Sleep {
        until: Until::At(deadline),
        armed: None,
    }
}

#[derive(Debug, Clone, Copy)]
enum Until {
    After(u64),
    At(u64),
}

/// The future of [`sleep`] and [`sleep_until`]. Dropping it withdraws the timer.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Sleep {
    until: Until,
    armed: Option<Armed>,
}

struct Armed {
    thread: Thread,
    deadline: u64,
    key: u32,
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.thread.inner().sleeps.remove(self.key);
    }
}

impl Future for Sleep {
    type Output = ();

    #[expect(
        clippy::expect_used,
        reason = "a sleep without a thread has no clock; the panic is contained like any other"
    )]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(armed) = &self.armed {
            if armed.thread.now() >= armed.deadline {
                self.armed = None;
                return Poll::Ready(());
            }
            armed
                .thread
                .inner()
                .sleeps
                .replace(armed.key, TaskWaker::from_cx(cx, "sleep"));
            return Poll::Pending;
        }
        let thread = current().expect("sleep() outside a thread's turn");
        let deadline = match self.until {
            Until::After(ns) => thread.now().saturating_add(ns),
            Until::At(deadline) => deadline,
        };
        if thread.now() >= deadline {
            return Poll::Ready(());
        }
        let key = thread
            .inner()
            .sleeps
            .insert(deadline, TaskWaker::from_cx(cx, "sleep"));
        self.armed = Some(Armed {
            thread,
            deadline,
            key,
        });
        Poll::Pending
    }
}

impl std::fmt::Debug for Sleep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sleep")
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}

/// The time was up before the future was done; the future has been dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not done within {ns} ns")]
pub struct Elapsed {
    /// The time that it had, in nanoseconds.
    pub ns: u64,
}

/// Gives `future` at most `ns` nanoseconds of the current thread's time.
///
/// # Errors
/// [`Elapsed`] if it took longer; the future is dropped then.
pub async fn timeout<F: Future>(ns: u64, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = pin!(sleep(ns));
    poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        sleep.as_mut().poll(cx).map(|()| Err(Elapsed { ns }))
    })
    .await
}
