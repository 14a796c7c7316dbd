//! A signal between tasks.

use super::wait_queue::WaitQueue;
use crate::task::TaskWaker;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Wakes tasks of its own thread. A [`notify_one`](Self::notify_one) that finds nobody waiting is kept, once, for the next who waits. Own thread only.
pub struct Notify {
    waiting: RefCell<WaitQueue<()>>,
    kept: Cell<bool>,
}

impl Default for Notify {
    fn default() -> Self {
        Self::new()
    }
}

impl Notify {
    /// Nobody waits, nothing is kept.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            waiting: RefCell::new(WaitQueue::new()),
            kept: Cell::new(false),
        }
    }

    /// Wakes the task that has waited longest, or keeps the signal for the next one. Signals that nobody took do not add up.
    pub fn notify_one(&self) {
        let waker = self.waiting.borrow_mut().grant(|()| true);
        match waker {
            Some(waker) => waker.wake(),
            None => self.kept.set(true),
        }
    }

    /// Wakes all tasks that wait now; keeps nothing.
    pub fn notify_all(&self) {
        loop {
            let waker = self.waiting.borrow_mut().grant(|()| true);
            match waker {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }

    /// Waits for a signal. The wait begins with the first poll.
    pub fn notified(&self) -> Notified<'_> {
        Notified {
            notify: self,
            id: None,
        }
    }
}

impl std::fmt::Debug for Notify {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notify")
            .field("kept", &self.kept.get())
            .finish_non_exhaustive()
    }
}

/// The future of [`Notify::notified`]. If it is dropped with a signal that it has not seen, the signal goes on to the
/// next.
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Notified<'a> {
    notify: &'a Notify,
    id: Option<u64>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let waker = || TaskWaker::from_cx(cx, "a signal");
        match self.id {
            None if self.notify.kept.take() => Poll::Ready(()),
            None => {
                let id = self.notify.waiting.borrow_mut().push((), waker());
                self.id = Some(id);
                Poll::Pending
            }
            Some(id) => {
                if !self.notify.waiting.borrow_mut().poll(id, waker) {
                    return Poll::Pending;
                }
                self.id = None;
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id
            && self.notify.waiting.borrow_mut().leave(id).is_some()
        {
            self.notify.notify_one();
        }
    }
}
