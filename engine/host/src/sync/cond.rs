//! A condition variable (Argobots: `ABT_cond`).

use super::waiters::{Ticket, Waiters, locked};
use daos_errno::Der;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
pub(crate) struct Cond(Mutex<Waiters>);

impl Cond {
    /// A place in the queue, taken with the first poll, before the caller unlocks its mutex.
    pub(crate) fn signalled(&self) -> Signalled<'_> {
        Signalled {
            cond: self,
            ticket: None,
        }
    }

    /// Wakes the one that has waited longest.
    pub(crate) fn signal(&self) {
        let first = locked(&self.0).first();
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }

    pub(crate) fn broadcast(&self) {
        let all = locked(&self.0).all();
        all.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        !locked(&self.0).is_empty()
    }
}

pub(crate) struct Signalled<'a> {
    cond: &'a Cond,
    ticket: Option<Ticket>,
}

impl Future for Signalled<'_> {
    type Output = Result<(), Der>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let cond = self.cond;
        let mut waiting = locked(&cond.0);
        if self.ticket.is_some_and(|ticket| !waiting.waits(ticket)) {
            self.ticket = None;
            return Poll::Ready(Ok(()));
        }
        waiting.wait(&mut self.ticket, (), cx, "condition");
        Poll::Pending
    }
}

impl Drop for Signalled<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let left = locked(&self.cond.0).leave(ticket);
        if !left {
            self.cond.signal(); // a signal that it has not seen goes on to the next
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn signals_go_in_order_and_are_not_kept() {
        let cond = Cond::default();
        cond.signal();
        let (mut a, mut b) = (pin!(cond.signalled()), pin!(cond.signalled()));
        assert!(poll(a.as_mut()).is_pending() && poll(b.as_mut()).is_pending());
        cond.signal();
        assert!(poll(b.as_mut()).is_pending());
        assert!(poll(a.as_mut()).is_ready() && cond.is_waited_for());
        cond.broadcast();
        assert!(poll(b.as_mut()).is_ready() && !cond.is_waited_for());
    }

    #[test]
    fn a_signal_for_one_who_gives_up_goes_to_the_next() {
        let cond = Cond::default();
        let mut b = pin!(cond.signalled());
        {
            let mut a = Box::pin(cond.signalled());
            assert!(poll(a.as_mut()).is_pending() && poll(b.as_mut()).is_pending());
            cond.signal();
        }
        assert!(poll(b.as_mut()).is_ready());
    }
}
