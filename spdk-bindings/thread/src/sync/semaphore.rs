//! Permits: a bound on how many tasks do something at once.

use super::wait_queue::WaitQueue;
use crate::task::TaskWaker;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A number of permits, given first come first served: a waiter for many is not overtaken by waiters for few. A counted
/// reference; own thread only.
#[derive(Clone)]
pub struct Semaphore(Rc<Inner>);

struct Inner {
    permits: Cell<usize>,
    closed: Cell<bool>,
    waiting: RefCell<WaitQueue<usize>>,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// None is left now, or others wait already.
    #[error("no permit is free")]
    NoPermits,
    /// The semaphore was closed.
    #[error("the semaphore has been closed")]
    Closed,
}

impl Semaphore {
    /// A semaphore with so many permits.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        let waiting = RefCell::new(WaitQueue::new());
        Self(Rc::new(Inner {
            permits: Cell::new(permits),
            closed: Cell::new(false),
            waiting,
        }))
    }

    /// Waits for one permit.
    pub fn acquire(&self) -> Acquire {
        self.acquire_many(1)
    }

    /// Waits for `count` permits at once.
    pub fn acquire_many(&self, count: usize) -> Acquire {
        Acquire {
            semaphore: self.clone(),
            count,
            id: None,
        }
    }

    /// One permit if it is free now and nobody waits.
    ///
    /// # Errors
    /// [`AcquireError`] says why not.
    pub fn try_acquire(&self) -> Result<Permit, AcquireError> {
        self.take(1)
    }

    fn take(&self, count: usize) -> Result<Permit, AcquireError> {
        if self.0.closed.get() {
            return Err(AcquireError::Closed);
        }
        if self.0.permits.get() < count || self.0.waiting.borrow().has_waiting() {
            return Err(AcquireError::NoPermits);
        }
        self.0.permits.set(self.0.permits.get() - count);
        Ok(Permit {
            semaphore: self.clone(),
            count,
        })
    }

    /// Permits that are free now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.0.permits.get()
    }

    /// Adds permits.
    pub fn add_permits(&self, count: usize) {
        self.0.permits.set(self.0.permits.get() + count);
        self.hand_out();
    }

    /// Refuses all who wait and all who come; permits that are out stay good.
    pub fn close(&self) {
        self.0.closed.set(true);
        loop {
            let waker = self.0.waiting.borrow_mut().grant(|_| true);
            match waker {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }

    /// Gives free permits to those who wait, in their order.
    fn hand_out(&self) {
        loop {
            let waker = self.0.waiting.borrow_mut().grant(|&count| {
                let left = self.0.permits.get().checked_sub(count);
                left.inspect(|&left| self.0.permits.set(left)).is_some()
            });
            match waker {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }
}

impl std::fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Semaphore")
            .field("available", &self.available())
            .field("closed", &self.0.closed.get())
            .finish()
    }
}

/// Permits in use; dropping gives them back.
#[derive(Debug)]
#[must_use = "dropping a Permit gives it back"]
pub struct Permit {
    semaphore: Semaphore,
    count: usize,
}

impl Permit {
    /// Takes the permits out of circulation.
    pub fn forget(mut self) {
        self.count = 0;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.count > 0 {
            self.semaphore.add_permits(self.count);
        }
    }
}

/// The future of [`Semaphore::acquire`]: a [`Permit`], or [`AcquireError::Closed`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Acquire {
    semaphore: Semaphore,
    count: usize,
    id: Option<u64>,
}

impl Future for Acquire {
    type Output = Result<Permit, AcquireError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = || TaskWaker::from_cx(cx, "a semaphore");
        let Some(id) = self.id else {
            match self.semaphore.take(self.count) {
                Err(AcquireError::NoPermits) => {
                    let id = self
                        .semaphore
                        .0
                        .waiting
                        .borrow_mut()
                        .push(self.count, waker());
                    self.id = Some(id);
                    return Poll::Pending;
                }
                other => return Poll::Ready(other),
            }
        };
        if self.semaphore.0.closed.get() {
            // `close` granted without taking permits; a grant from before the close keeps its permits out, as closed.
            self.semaphore.0.waiting.borrow_mut().leave(id);
            self.id = None;
            return Poll::Ready(Err(AcquireError::Closed));
        }
        if !self.semaphore.0.waiting.borrow_mut().poll(id, waker) {
            return Poll::Pending;
        }
        self.id = None;
        Poll::Ready(Ok(Permit {
            semaphore: self.semaphore.clone(),
            count: self.count,
        }))
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let granted = self.semaphore.0.waiting.borrow_mut().leave(id);
        match granted {
            Some(count) if !self.semaphore.0.closed.get() => self.semaphore.add_permits(count),
            // The one who left may have held up those behind it.
            _ => self.semaphore.hand_out(),
        }
    }
}
