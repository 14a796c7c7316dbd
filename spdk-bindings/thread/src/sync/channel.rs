//! A bounded queue between tasks of one thread.

use super::wait_queue::WaitQueue;
use crate::task::TaskWaker;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

struct Inner<T> {
    queue: VecDeque<T>,
    capacity: usize,
    senders: usize,
    receiver_gone: bool,
    /// Tasks that wait for room. A grant is a hint: whoever wakes tries again.
    blocked: WaitQueue<()>,
    waker: Option<TaskWaker>,
}

/// Why a value was not sent; it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// The queue is at its bound.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// The sending side of a local queue; clones count. Own thread only.
pub struct Sender<T>(Rc<RefCell<Inner<T>>>);

/// The receiving side of a local queue. Own thread only.
pub struct Receiver<T>(Rc<RefCell<Inner<T>>>);

/// A queue of at most `capacity` values (at least 1).
#[must_use]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let inner = Inner {
        queue: VecDeque::new(),
        capacity: capacity.max(1),
        senders: 1,
        receiver_gone: false,
        blocked: WaitQueue::new(),
        waker: None,
    };
    let inner = Rc::new(RefCell::new(inner));
    (Sender(inner.clone()), Receiver(inner))
}

impl<T> Sender<T> {
    /// Puts a value at the end if there is room.
    ///
    /// # Errors
    /// [`TrySendError`] gives the value back.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let waker = {
            let mut inner = self.0.borrow_mut();
            if inner.receiver_gone {
                return Err(TrySendError::Closed(value));
            }
            if inner.queue.len() >= inner.capacity {
                return Err(TrySendError::Full(value));
            }
            inner.queue.push_back(value);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Puts a value at the end, waiting for room. Among waiting senders, first come first served.
    ///
    /// # Errors
    /// The value comes back if the receiver is gone.
    pub async fn send(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        let mut waiting = Blocked {
            inner: &self.0,
            id: None,
        };
        poll_fn(|cx| {
            let Some(to_send) = value.take() else {
                return Poll::Ready(Ok(()));
            };
            match self.try_send(to_send) {
                Ok(()) => Poll::Ready(Ok(())),
                Err(TrySendError::Closed(back)) => Poll::Ready(Err(back)),
                Err(TrySendError::Full(back)) => {
                    value = Some(back);
                    waiting.wait(cx);
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// A sender's place among those who wait for room.
struct Blocked<'a, T> {
    inner: &'a RefCell<Inner<T>>,
    id: Option<u64>,
}

impl<T> Blocked<'_, T> {
    fn wait(&mut self, cx: &Context<'_>) {
        let waker = || TaskWaker::from_cx(cx, "room in a queue");
        let mut inner = self.inner.borrow_mut();
        let granted = self.id.is_none_or(|id| inner.blocked.poll(id, waker));
        if granted {
            self.id = Some(inner.blocked.push((), waker()));
        }
    }
}

impl<T> Drop for Blocked<'_, T> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let waker = {
            let mut inner = self.inner.borrow_mut();
            let granted = inner.blocked.leave(id).is_some();
            // Room that this one was told of and did not use is the next one's.
            if granted && inner.queue.len() < inner.capacity {
                inner.blocked.grant(|()| true)
            } else {
                None
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.borrow_mut().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut inner = self.0.borrow_mut();
            inner.senders -= 1;
            if inner.senders == 0 {
                inner.waker.take()
            } else {
                None
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The oldest value if there is one.
    pub fn try_recv(&mut self) -> Option<T> {
        let (value, waker) = {
            let mut inner = self.0.borrow_mut();
            let value = inner.queue.pop_front()?;
            (value, inner.blocked.grant(|()| true))
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Some(value)
    }

    /// Waits for the oldest value; `None` once all senders are gone and the queue is empty.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| {
            if let Some(value) = self.try_recv() {
                return Poll::Ready(Some(value));
            }
            let waker = TaskWaker::from_cx(cx, "a value in a queue");
            let mut inner = self.0.borrow_mut();
            if inner.senders == 0 {
                return Poll::Ready(None);
            }
            let before = inner.waker.replace(waker);
            drop(inner);
            drop(before);
            Poll::Pending
        })
        .await
    }

    /// Values that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.borrow().queue.len()
    }

    /// Whether no value waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let values = {
            let mut inner = self.0.borrow_mut();
            inner.receiver_gone = true;
            std::mem::take(&mut inner.queue)
        };
        drop(values);
        loop {
            let waker = self.0.borrow_mut().blocked.grant(|()| true);
            match waker {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("channel::Sender")
    }
}

impl<T> std::fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("channel::Receiver")
    }
}
