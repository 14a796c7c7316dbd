//! Tasks that do not count as work.

use crate::current::with_current;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Makes a future whose polls do not make its thread busy: for periodic housekeeping, which shall not keep a core from
/// resting (DAOS: `DSS_ULT_FL_PERIODIC`). The outermost future of a task, or all of what it awaits at that time.
pub fn quiet<F: Future>(future: F) -> Quiet<F> {
    Quiet { future }
}

pin_project_lite::pin_project! {
    /// The future of [`quiet`].
    #[derive(Debug)]
    #[must_use = "a future does nothing unless it is awaited"]
    pub struct Quiet<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Quiet<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        with_current(|thread| {
            if let Some(thread) = thread {
                thread
                    .inner()
                    .quiet_polls
                    .set(thread.inner().quiet_polls.get() + 1);
            }
        });
        self.project().future.poll(cx)
    }
}
