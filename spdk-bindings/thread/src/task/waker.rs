//! How a task is woken: by its slot's number from its own thread, by the slot's bit from anywhere else.

use crate::Thread;
use crate::current::with_current;
use crate::handle::Shared;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

/// The standard waker of a task slot. It is made once per slot and serves all tasks that come to live there; a wake
/// that comes late therefore wakes the slot's next task, which takes it for a spurious one.
pub(super) struct SlotWaker {
    shared: Arc<Shared>,
    index: u32,
}

impl SlotWaker {
    pub(super) fn waker(shared: Arc<Shared>, index: u32) -> Waker {
        Waker::from(Arc::new(SlotWaker { shared, index }))
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.shared.wakes.set(self.index);
        self.shared.notify();
    }
}

/// A waker for primitives whose two sides live on one OS thread; own thread only. Where the standard [`Waker`] costs two
/// atomic operations and a bit set, this is an index. It is right in any future: inside a combinator that brings its own
/// waker, it keeps that one.
pub struct TaskWaker(Kind);

enum Kind {
    Slot {
        thread: Thread,
        index: u32,
        generation: u32,
    },
    Other(Waker),
}

impl TaskWaker {
    /// The waker of the task that is being polled with `cx`. `waits_for` is what operators see in the task list.
    #[must_use]
    pub fn from_cx(cx: &Context<'_>, waits_for: &'static str) -> TaskWaker {
        with_current(|thread| {
            if let Some(thread) = thread
                && let Some((index, generation)) =
                    thread.inner().tasks.running_with(cx.waker(), waits_for)
            {
                return TaskWaker(Kind::Slot {
                    thread: thread.clone(),
                    index,
                    generation,
                });
            }
            TaskWaker(Kind::Other(cx.waker().clone()))
        })
    }

    /// Makes the task ready.
    pub fn wake(self) {
        match self.0 {
            Kind::Slot {
                thread,
                index,
                generation,
            } => thread.inner().tasks.wake(index, generation),
            Kind::Other(waker) => waker.wake(),
        }
    }
}

impl std::fmt::Debug for TaskWaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Kind::Slot { thread, index, .. } => {
                write!(f, "TaskWaker(slot {index} of {:?})", thread.name())
            }
            Kind::Other(_) => f.write_str("TaskWaker(other)"),
        }
    }
}
