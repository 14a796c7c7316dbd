//! Flushes shared by everyone who needs one.

use std::cell::{Cell, RefCell};

use crate::device::{BlockDev, Media};
use crate::error::StoreError;
use crate::sync::Event;

/// Combines flushes: all who ask while one runs share the next.
#[derive(Default)]
pub(crate) struct Flusher {
    running: Cell<bool>,
    started: Cell<u64>,
    done: Cell<u64>,
    failed: RefCell<Option<StoreError>>,
    changed: Event,
}

struct Running<'a>(&'a Flusher);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(false);
        self.0.changed.notify();
    }
}

impl Flusher {
    /// Flushes run so far.
    pub(crate) fn count(&self) -> u64 {
        self.started.get()
    }

    /// Returns when a flush that started after this call is done. After one failed flush every later one fails: the
    /// kernel may have dropped what it could not write, and the next flush would not say so.
    pub(crate) async fn flush<D: BlockDev>(&self, media: &Media<D>) -> Result<(), StoreError> {
        let mine = self.started.get() + 1;
        loop {
            if let Some(error) = &*self.failed.borrow() {
                return Err(error.clone());
            }
            if self.done.get() >= mine {
                return Ok(());
            }
            if self.running.replace(true) {
                self.changed
                    .wait(|| (!self.running.get()).then_some(()))
                    .await;
                continue;
            }
            let _running = Running(self);
            let number = self.started.get() + 1;
            self.started.set(number);
            match media.flush().await {
                Ok(()) => self.done.set(number),
                Err(error) => *self.failed.borrow_mut() = Some(error),
            }
        }
    }
}
