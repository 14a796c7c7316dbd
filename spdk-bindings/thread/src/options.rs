//! What a thread is made with.

use crate::Provider;
use std::sync::Arc;

/// Wakes whatever polls a thread: called after a message was sent or a task was woken from another OS thread. The
/// reactor gives one that writes its eventfd only if it sleeps, so the call is cheap and frequent.
pub trait Wake: Send + Sync {
    /// Makes sure that the thread is polled soon. Any OS thread; must not block and must not panic.
    fn wake(&self);

    /// Whether who polls the thread ever sleeps. If not, devices need not announce what they have done: their interrupts stay off.
    fn sleeps(&self) -> bool {
        true
    }
}

/// Bounds of a thread. The default suits an xstream.
#[derive(Clone)]
pub struct ThreadOptions {
    /// Messages that may wait in the mailbox; more are refused with `SendError::Full`. Rounded up to a power of two;
    /// each takes one cache line.
    pub mailbox: usize,
    /// Messages that one turn runs at most (SPDK: `SPDK_MSG_BATCH_SIZE`, 8); the rest wait for the next turn.
    pub message_batch: usize,
    /// Tasks that one turn polls at most (DAOS: `SCHED_AGE_NET_MAX`, 32); the rest of the cycle waits for the next turn,
    /// so that messages, pollers and the core's other threads never wait for more than this many tasks.
    pub task_batch: usize,
    /// Tasks that may exist at once; `spawn` refuses more with `SpawnError::TooMany`.
    pub max_tasks: u32,
    /// On a core with several threads it comes round between the turns of the others whenever it has something to do, not
    /// once for all of theirs: for control paths, which must answer while the others are saturated.
    pub urgent: bool,
    /// Bytes of finished tasks' memory that are kept for the next task of the same type.
    pub task_pool_bytes: usize,
    /// Wakes the reactor that polls the thread; none where somebody polls it anyway (tests, `testing`).
    pub wake: Option<Arc<dyn Wake>>,
    /// Who carries the thread's messages and calls its pollers; none: this crate itself.
    pub provider: Option<Arc<dyn Provider>>,
}

impl Default for ThreadOptions {
    fn default() -> Self {
        Self {
            mailbox: 4096,
            message_batch: 64,
            task_batch: 32,
            max_tasks: 16_384,
            urgent: false,
            task_pool_bytes: 1 << 20,
            wake: None,
            provider: None,
        }
    }
}

impl std::fmt::Debug for ThreadOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadOptions")
            .field("mailbox", &self.mailbox)
            .field("message_batch", &self.message_batch)
            .field("task_batch", &self.task_batch)
            .field("max_tasks", &self.max_tasks)
            .field("urgent", &self.urgent)
            .field("task_pool_bytes", &self.task_pool_bytes)
            .field("wake", &self.wake.is_some())
            .field("carried", &self.provider.is_some())
            .finish()
    }
}
