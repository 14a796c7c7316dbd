//! Waiting tasks, first come first served; a waiter that gives up leaves the queue.

use crate::task::TaskWaker;
use std::collections::VecDeque;

/// A queue of waiters, each with what it wants.
pub(crate) struct WaitQueue<W> {
    next: u64,
    /// Ascending ids.
    queue: VecDeque<Waiter<W>>,
}

struct Waiter<W> {
    id: u64,
    wants: W,
    /// Absent once it has been granted what it wants and has not noticed yet.
    waker: Option<TaskWaker>,
}

impl<W> WaitQueue<W> {
    pub(crate) const fn new() -> Self {
        Self {
            next: 0,
            queue: VecDeque::new(),
        }
    }

    pub(crate) fn push(&mut self, wants: W, waker: TaskWaker) -> u64 {
        self.next += 1;
        self.queue.push_back(Waiter {
            id: self.next,
            wants,
            waker: Some(waker),
        });
        self.next
    }

    fn place(&self, id: u64) -> Option<usize> {
        self.queue
            .binary_search_by_key(&id, |waiter| waiter.id)
            .ok()
    }

    /// A waiter polls again: true if it has been granted (it then leaves the queue), else it waits with a new waker.
    pub(crate) fn poll(&mut self, id: u64, waker: impl FnOnce() -> TaskWaker) -> bool {
        let Some(place) = self.place(id) else {
            return true;
        };
        if self.queue[place].waker.is_none() {
            self.queue.remove(place);
            return true;
        }
        let waker = waker();
        self.queue[place].waker = Some(waker);
        false
    }

    /// A waiter gives up. What it wanted comes back if it had been granted.
    pub(crate) fn leave(&mut self, id: u64) -> Option<W> {
        let waiter = self.place(id).and_then(|place| self.queue.remove(place))?;
        waiter.waker.is_none().then_some(waiter.wants)
    }

    /// Grants the first waiter that waits if `fits` says so; its waker is for the caller to wake, after its own borrow.
    pub(crate) fn grant(&mut self, fits: impl FnOnce(&W) -> bool) -> Option<TaskWaker> {
        let waiter = self
            .queue
            .iter_mut()
            .find(|waiter| waiter.waker.is_some())?;
        if fits(&waiter.wants) {
            waiter.waker.take()
        } else {
            None
        }
    }

    /// Whether somebody waits who has not been granted.
    pub(crate) fn has_waiting(&self) -> bool {
        self.queue.iter().any(|waiter| waiter.waker.is_some())
    }
}
