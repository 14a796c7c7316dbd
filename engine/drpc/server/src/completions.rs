//! Replies on their way from whoever answered back to the server's thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use drpc_wire::Chunker;

/// An encoded reply and what its call had been charged with.
#[derive(Debug)]
pub(crate) struct Completion {
    /// Whose call it was; that session may be gone.
    pub(crate) session: u64,
    /// What to send.
    pub(crate) message: Chunker,
    /// Bytes of the call's body, free now.
    pub(crate) call_bytes: usize,
}

/// Makes the server's thread look. Called at most once until it has looked.
pub(crate) type Wake = Box<dyn Fn() + Send + Sync>;

/// The queue. Bounded by the number of calls in flight: each puts exactly one completion in.
#[derive(Default)]
pub(crate) struct Completions {
    queue: Mutex<Vec<Completion>>,
    waiting: AtomicUsize,
    wake: OnceLock<Wake>,
}

impl Completions {
    pub(crate) fn new() -> Arc<Completions> {
        Arc::new(Completions::default())
    }

    /// Sets what wakes the server; the first one stays.
    pub(crate) fn wake_with(&self, wake: Wake) {
        let _ = self.wake.set(wake);
    }

    pub(crate) fn push(&self, completion: Completion) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push(completion);
        let first = self.waiting.fetch_add(1, Ordering::Release) == 0;
        drop(queue);
        if first && let Some(wake) = self.wake.get() {
            wake();
        }
    }

    /// Whether there is anything: one load.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    /// Moves all into `into`, which must be empty; its memory goes round.
    pub(crate) fn take(&self, into: &mut Vec<Completion>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: the next push starts from zero and wakes again.
        self.waiting.store(0, Ordering::Release);
        std::mem::swap(&mut *queue, into);
    }
}
