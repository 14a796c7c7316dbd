//! Wakes the one ULT that looks after a connection; rung as often as anybody likes.

use std::cell::{Cell, RefCell};

use spdk_thread::TaskWaker;

/// Own OS thread only.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Cell<bool>,
    waker: RefCell<Option<TaskWaker>>,
}

impl Bell {
    /// Wakes the ULT, or makes its next [`Bell::park`] return at once.
    pub(crate) fn ring(&self) {
        if !self.rung.replace(true) {
            let waker = self.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Notes who to wake; true if it was rung since the last call.
    pub(crate) fn park(&self, waker: TaskWaker) -> bool {
        *self.waker.borrow_mut() = Some(waker);
        self.rung.replace(false)
    }
}
