//! A value that comes later (Argobots: `ABT_eventual`).

use super::waiters::{Ticket, Waiters, locked};
use daos_errno::Der;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
pub(crate) struct Eventual(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    value: Option<i64>,
    closed: bool,
    waiting: Waiters,
}

impl Eventual {
    /// Sets it and wakes all who wait.
    ///
    /// # Errors
    /// `DER_ALREADY` when it is set.
    pub(crate) fn set(&self, value: i64) -> Result<(), Der> {
        let wakers = {
            let mut state = locked(&self.0);
            if state.value.is_some() {
                return Err(Der::ALREADY);
            }
            state.value = Some(value);
            state.waiting.all()
        };
        wakers.into_iter().for_each(Waker::wake);
        Ok(())
    }

    pub(crate) fn value(&self) -> Option<i64> {
        locked(&self.0).value
    }

    pub(crate) fn reset(&self) {
        locked(&self.0).value = None;
    }

    /// Its handle is gone: who waits for a value that did not come is sent away.
    pub(crate) fn close(&self) {
        let wakers = {
            let mut state = locked(&self.0);
            state.closed = true;
            state.waiting.all()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Its value; `DER_CANCELED` when the eventual is freed before.
    pub(crate) fn wait<'a>(&'a self, site: &'static str) -> Wait<'a> {
        Wait {
            eventual: self,
            ticket: None,
            site,
        }
    }
}

pub(crate) struct Wait<'a> {
    eventual: &'a Eventual,
    ticket: Option<Ticket>,
    site: &'static str,
}

impl Future for Wait<'_> {
    type Output = Result<i64, Der>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (eventual, site) = (self.eventual, self.site);
        let mut state = locked(&eventual.0);
        match (state.value, state.closed) {
            (Some(value), _) => Poll::Ready(Ok(value)),
            (None, true) => Poll::Ready(Err(Der::CANCELED)),
            (None, false) => {
                state.waiting.wait(&mut self.ticket, (), cx, site);
                Poll::Pending
            }
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            locked(&self.eventual.0).waiting.leave(ticket);
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
    fn a_value_comes_once_stays_and_can_be_taken_back() {
        let eventual = Eventual::default();
        let mut early = pin!(eventual.wait("test"));
        assert!(poll(early.as_mut()).is_pending());
        assert_eq!(eventual.set(-7), Ok(()));
        assert_eq!(eventual.set(8), Err(Der::ALREADY));
        assert_eq!(poll(early.as_mut()), Poll::Ready(Ok(-7)));
        assert_eq!(poll(pin!(eventual.wait("test"))), Poll::Ready(Ok(-7)));
        eventual.reset();
        assert_eq!(eventual.value(), None);
        let mut again = pin!(eventual.wait("test"));
        assert!(poll(again.as_mut()).is_pending());
        eventual.close();
        assert_eq!(poll(again.as_mut()), Poll::Ready(Err(Der::CANCELED)));
    }

    #[test]
    fn who_gives_up_leaves_nothing_behind() {
        let eventual = Eventual::default();
        {
            let mut waits = pin!(eventual.wait("test"));
            assert!(poll(waits.as_mut()).is_pending());
            assert!(poll(waits.as_mut()).is_pending());
        }
        assert!(locked(&eventual.0).waiting.is_empty());
    }
}
