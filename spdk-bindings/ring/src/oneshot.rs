//! One value, once, from any OS thread to a future: the reply to a message.
//!
//! The receiver is a [`Future`]; the sender completes it from anywhere without a lock. One allocation per pair.

#![allow(
    unsafe_code,
    reason = "value and waker are handed over by the bits of one atomic word"
)]

// Invariants (cited by the SAFETY comments below). `state` is a set of bits, each set at most once except WAKER.
// I1. The value cell belongs to the sender until it sets VALUE; from then to the receiver, unless the sender found
//     GONE set in the same step: then it stays the sender's.
// I2. The receiver sets GONE once, when dropped; if it found VALUE set in the same step and has not taken the value,
//     the value is its own to drop.
// I3. The waker cell belongs to the receiver while WAKER is clear. While WAKER is set nobody writes it, and the sender
//     may read it if it found WAKER set in the step that set VALUE or CLOSED (it does so once: those bits are final).
// I4. The shared part is dropped when both sides are gone; then nobody else looks at the cells.

use crate::primitive::{Arc, AtomicUsize, Ordering, UnsafeCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// The value has been written.
const VALUE: usize = 1;
/// The sender is gone without a value.
const CLOSED: usize = 2;
/// The receiver is gone.
const GONE: usize = 4;
/// The waker cell holds the waker of the task that waits.
const WAKER: usize = 8;

struct Shared<T> {
    state: AtomicUsize,
    value: UnsafeCell<Option<T>>,
    waker: UnsafeCell<Option<Waker>>,
}

// SAFETY: I1 to I3 give each cell to one side at a time, with acquire-release steps on `state` at each hand-over.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Completes the pair; dropping it unsent completes the receiver with [`Closed`]. May be used from any OS thread.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    sent: bool,
}

/// Waits for the value; a future. May move between OS threads.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    taken: bool,
}

/// The sender was dropped without sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the other side was dropped without an answer")
    }
}

impl std::error::Error for Closed {}

/// A pair for one value.
pub fn channel<T: Send>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: AtomicUsize::new(0),
        value: UnsafeCell::new(None),
        waker: UnsafeCell::new(None),
    });
    (
        Sender {
            shared: shared.clone(),
            sent: false,
        },
        Receiver {
            shared,
            taken: false,
        },
    )
}

impl<T> Shared<T> {
    /// Sets `bit`, wakes the waiting task, and says whether the receiver was still there.
    fn finish(&self, bit: usize) -> bool {
        let before = self.state.fetch_or(bit, Ordering::AcqRel);
        if before & GONE != 0 {
            return false;
        }
        if before & WAKER != 0 {
            self.waker.with(|cell| {
                // SAFETY: I3: WAKER was set in the step that set the final bit, so the receiver leaves the cell alone.
                if let Some(waker) = unsafe { &*cell } {
                    waker.wake_by_ref();
                }
            });
        }
        true
    }

    fn take(&self) -> Option<T> {
        // SAFETY: the callers hold the value cell by I1 or I2.
        self.value.with_mut(|cell| unsafe { (*cell).take() })
    }
}

impl<T: Send> Sender<T> {
    /// Completes the receiver with `value`.
    ///
    /// # Errors
    /// The value comes back if the receiver is gone.
    pub fn send(mut self, value: T) -> Result<(), T> {
        // SAFETY: I1: VALUE is not set yet, so the cell is the sender's.
        self.shared
            .value
            .with_mut(|cell| unsafe { *cell = Some(value) });
        self.sent = true;
        if self.shared.finish(VALUE) {
            return Ok(());
        }
        // I1: the receiver had gone, so the value stayed here.
        match self.shared.take() {
            Some(value) => Err(value),
            None => Ok(()),
        }
    }

    /// Whether the receiver is gone, so that the work for the answer can be spared.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.state.load(Ordering::Acquire) & GONE != 0
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if !self.sent {
            self.shared.finish(CLOSED);
        }
    }
}

impl<T: Send> Receiver<T> {
    /// The value if it is there; for pollers and for threads without tasks.
    ///
    /// # Errors
    /// [`Closed`] if the sender is gone without a value, or the value was taken before.
    pub fn try_recv(&mut self) -> Result<Option<T>, Closed> {
        match self.finished(self.shared.state.load(Ordering::Acquire)) {
            Some(result) => result.map(Some),
            None => Ok(None),
        }
    }

    fn finished(&mut self, state: usize) -> Option<Result<T, Closed>> {
        if self.taken {
            return Some(Err(Closed));
        }
        if state & VALUE != 0 {
            self.taken = true;
            // I1: VALUE is set and this side is not gone.
            return Some(self.shared.take().ok_or(Closed));
        }
        (state & CLOSED != 0).then_some(Err(Closed))
    }
}

impl<T: Send> Future for Receiver<T> {
    type Output = Result<T, Closed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut state = this.shared.state.load(Ordering::Acquire);
        if let Some(result) = this.finished(state) {
            return Poll::Ready(result);
        }
        if state & WAKER != 0 {
            let same = this.shared.waker.with(|cell| {
                // SAFETY: I3: WAKER is set and only this side clears it, so the cell is not written meanwhile.
                let waker = unsafe { &*cell };
                waker
                    .as_ref()
                    .is_some_and(|waker| waker.will_wake(cx.waker()))
            });
            if same {
                return Poll::Pending;
            }
            state = this.shared.state.fetch_and(!WAKER, Ordering::AcqRel);
            if let Some(result) = this.finished(state) {
                // The sender may be reading the cell now: leave it.
                return Poll::Ready(result);
            }
        }
        // SAFETY: I3: WAKER is clear and the sender had not finished when it was, so the cell is the receiver's.
        this.shared
            .waker
            .with_mut(|cell| unsafe { *cell = Some(cx.waker().clone()) });
        state = this.shared.state.fetch_or(WAKER, Ordering::AcqRel);
        match this.finished(state) {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let before = self.shared.state.fetch_or(GONE, Ordering::AcqRel);
        if before & VALUE != 0 && !self.taken {
            // I2: the value had been sent, so it is this side's to drop.
            drop(self.shared.take());
        }
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
