//! Who waits, in order of arrival.

use daos_errno::Der;
use module_abi::DSS_FOREVER;
use spdk_thread::TaskWaker;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

#[derive(Debug)]
pub(super) struct Waiters<T = ()> {
    next: u64,
    queue: VecDeque<(Ticket, T, Waker)>,
}

impl<T> Default for Waiters<T> {
    fn default() -> Waiters<T> {
        Waiters {
            next: 0,
            queue: VecDeque::new(),
        }
    }
}

impl<T> Waiters<T> {
    /// Waits with the waker of `cx`, at the place of `ticket` if it still has one, else at the end. `site`: for the task list.
    pub(super) fn wait(
        &mut self,
        ticket: &mut Option<Ticket>,
        who: T,
        cx: &Context<'_>,
        site: &'static str,
    ) {
        drop(TaskWaker::from_cx(cx, site)); // names the wait; the wake-up may come from another xstream
        let place = ticket.and_then(|ticket| self.place(ticket));
        if let Some(place) = place {
            self.queue[place].2.clone_from(cx.waker());
            return;
        }
        self.next += 1;
        *ticket = Some(Ticket(self.next));
        self.queue
            .push_back((Ticket(self.next), who, cx.waker().clone()));
    }

    fn place(&self, ticket: Ticket) -> Option<usize> {
        self.queue.binary_search_by_key(&ticket.0, |at| at.0.0).ok()
    }

    /// Whether the ticket still waits.
    pub(super) fn waits(&self, ticket: Ticket) -> bool {
        self.place(ticket).is_some()
    }

    /// Gives a place up; false if it had none any more.
    pub(super) fn leave(&mut self, ticket: Ticket) -> bool {
        let place = self.place(ticket);
        place.and_then(|place| self.queue.remove(place)).is_some()
    }

    /// Takes the first out. Its waker is to be woken after the lock is gone.
    pub(super) fn first(&mut self) -> Option<(T, Waker)> {
        self.queue.pop_front().map(|(_, who, waker)| (who, waker))
    }

    /// Takes all out.
    pub(super) fn all(&mut self) -> Vec<Waker> {
        self.queue.drain(..).map(|(_, _, waker)| waker).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Nothing that can panic runs under these locks.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for so many milliseconds at most. The future is polled at least once. `site`: as in [`Waiters::wait`].
pub(crate) async fn within<T>(
    timeout_ms: u64,
    site: &'static str,
    wait: impl Future<Output = Result<T, Der>>,
) -> Result<T, Der> {
    if timeout_ms == DSS_FOREVER {
        return wait.await;
    }
    let ns = timeout_ms.saturating_mul(1_000_000);
    let mut timed = pin!(spdk_thread::timeout(ns, wait));
    let timed = poll_fn(|cx| {
        let polled = timed.as_mut().poll(cx);
        if polled.is_pending() {
            drop(TaskWaker::from_cx(cx, site)); // the clock has named itself
        }
        polled
    });
    timed.await.unwrap_or(Err(Der::TIMEDOUT))
}
