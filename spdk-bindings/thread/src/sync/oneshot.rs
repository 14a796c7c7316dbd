//! One value, once, between tasks of one thread.

use crate::task::TaskWaker;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

pub use spdk_ring::oneshot::Closed;

struct Inner<T> {
    value: Option<T>,
    waker: Option<TaskWaker>,
    sender_gone: bool,
    receiver_gone: bool,
}

/// Completes the pair; dropping it unsent completes the receiver with [`Closed`]. Own thread only.
pub struct Sender<T>(Rc<RefCell<Inner<T>>>);

/// Waits for the value; a future. Own thread only.
pub struct Receiver<T>(Rc<RefCell<Inner<T>>>);

/// A pair for one value.
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let inner = Inner {
        value: None,
        waker: None,
        sender_gone: false,
        receiver_gone: false,
    };
    let inner = Rc::new(RefCell::new(inner));
    (Sender(inner.clone()), Receiver(inner))
}

impl<T> Sender<T> {
    /// Completes the receiver.
    ///
    /// # Errors
    /// The value comes back if the receiver is gone.
    pub fn send(self, value: T) -> Result<(), T> {
        let mut inner = self.0.borrow_mut();
        if inner.receiver_gone {
            return Err(value);
        }
        inner.value = Some(value);
        Ok(())
        // The drop of the sender wakes the receiver.
    }

    /// Whether the receiver is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.borrow().receiver_gone
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut inner = self.0.borrow_mut();
            inner.sender_gone = true;
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = TaskWaker::from_cx(cx, "an answer");
        let mut inner = self.0.borrow_mut();
        if let Some(value) = inner.value.take() {
            return Poll::Ready(Ok(value));
        }
        if inner.sender_gone {
            return Poll::Ready(Err(Closed));
        }
        let before = inner.waker.replace(waker);
        drop(inner);
        drop(before);
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let unseen = {
            let mut inner = self.0.borrow_mut();
            inner.receiver_gone = true;
            (inner.value.take(), inner.waker.take())
        };
        drop(unseen);
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("oneshot::Sender")
    }
}

impl<T> std::fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("oneshot::Receiver")
    }
}
