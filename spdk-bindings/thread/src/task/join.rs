//! Waiting for a task's end, or ending it.

use crate::Thread;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Why a task has no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The task panicked with this text.
    #[error("the task panicked: {0}")]
    Panicked(String),
    /// The task was aborted before it was done.
    #[error("the task was aborted")]
    Aborted,
}

/// A task's end: a future of its output; own thread only. Dropping it detaches: the task runs on, its output is dropped.
#[must_use = "dropping a JoinHandle detaches the task; say so with detach()"]
pub struct JoinHandle<T> {
    /// None once the output is taken. Taken out to be dropped, so that a handle on its way to where it is kept travels in
    /// registers: a copy in two halves that is read as a whole would have to wait for all stores before it.
    thread: Option<Thread>,
    index: u32,
    generation: u32,
    output: PhantomData<fn() -> T>,
}

impl<T: 'static> JoinHandle<T> {
    #[inline]
    pub(super) fn new(thread: Thread, index: u32, generation: u32) -> Self {
        JoinHandle {
            thread: Some(thread),
            index,
            generation,
            output: PhantomData,
        }
    }

    /// Ends the task: its future is dropped in the next turn, without being polled again, and joining gives
    /// [`JoinError::Aborted`]. A task that is done, or finishes in the poll that is under way, keeps its output. The
    /// drop is the task's clean-up: what it owns must not be in use by a device (buffers are owned by their operation).
    pub fn abort(&self) {
        if let Some(thread) = &self.thread {
            thread.inner().tasks.abort(self.index, self.generation);
        }
    }

    /// Lets the task run on by itself.
    #[inline]
    pub fn detach(self) {}

    /// Whether the task has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread
            .as_ref()
            .is_none_or(|thread| thread.inner().tasks.is_done(self.index, self.generation))
    }
}

impl<T: 'static> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// If polled again after it was ready.
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(thread) = &self.thread else {
            panic!("a JoinHandle was polled after it was ready");
        };
        let mut output: Option<Result<T, JoinError>> = None;
        let tasks = &thread.inner().tasks;
        if !tasks.join(self.index, self.generation, &mut output, cx) {
            return Poll::Pending;
        }
        self.thread = None;
        Poll::Ready(output.unwrap_or(Err(JoinError::Aborted)))
    }
}

impl<T> Drop for JoinHandle<T> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            detach(thread, self.index, self.generation);
        }
    }
}

#[inline(never)]
fn detach(thread: Thread, index: u32, generation: u32) {
    thread.inner().tasks.detach(index, generation);
}

impl<T> std::fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let thread = self.thread.as_ref().map(Thread::name);
        write!(f, "JoinHandle(task {} of {thread:?})", self.index)
    }
}
