//! Letting the other tasks run.

use crate::current::with_current;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Gives way: the task goes to the end of the ready queue and runs again in the next turn, after messages and pollers
/// (Argobots: `ABT_thread_yield`).
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// The future of [`yield_now`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        let own = with_current(|thread| {
            thread.is_some_and(|thread| thread.inner().tasks.yield_running(cx.waker()))
        });
        if !own {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
