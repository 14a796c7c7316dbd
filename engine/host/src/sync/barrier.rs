//! So many wait for each other (Argobots: `ABT_barrier`).

use super::waiters::{Ticket, Waiters, locked};
use daos_errno::Der;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

#[derive(Debug)]
pub(crate) struct Barrier {
    count: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    round: u64,
    arrived: u32,
    waiting: Waiters,
}

impl Barrier {
    /// For so many, at least one.
    pub(crate) fn new(count: u32) -> Barrier {
        Barrier {
            count,
            state: Mutex::default(),
        }
    }

    /// True for the last to come. Dropped before that one has come, it does not count.
    pub(crate) fn wait(&self) -> Wait<'_> {
        Wait {
            barrier: self,
            round: None,
            ticket: None,
        }
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        locked(&self.state).arrived != 0
    }
}

pub(crate) struct Wait<'a> {
    barrier: &'a Barrier,
    /// In which it came.
    round: Option<u64>,
    ticket: Option<Ticket>,
}

impl Future for Wait<'_> {
    type Output = Result<bool, Der>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let barrier = self.barrier;
        let mut state = locked(&barrier.state);
        match self.round {
            None => {
                self.round = Some(state.round);
                state.arrived += 1;
                if state.arrived >= barrier.count {
                    state.arrived = 0;
                    state.round += 1;
                    let all = state.waiting.all();
                    drop(state);
                    all.into_iter().for_each(Waker::wake);
                    return Poll::Ready(Ok(true));
                }
            }
            Some(round) if round != state.round => return Poll::Ready(Ok(false)),
            Some(_) => {}
        }
        state.waiting.wait(&mut self.ticket, (), cx, "barrier");
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = locked(&self.barrier.state);
        state.waiting.leave(ticket);
        if self.round == Some(state.round) {
            state.arrived -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_last_one_opens_it_again_and_again() {
        let barrier = Barrier::new(3);
        for _ in 0..2 {
            let (mut a, mut b) = (Box::pin(barrier.wait()), Box::pin(barrier.wait()));
            assert!(poll(a.as_mut()).is_pending() && poll(b.as_mut()).is_pending());
            assert!(barrier.is_waited_for());
            assert_eq!(
                poll(Box::pin(barrier.wait()).as_mut()),
                Poll::Ready(Ok(true))
            );
            assert_eq!(poll(a.as_mut()), Poll::Ready(Ok(false)));
            assert_eq!(poll(b.as_mut()), Poll::Ready(Ok(false)));
            assert!(!barrier.is_waited_for());
        }
    }

    #[test]
    fn who_gives_up_before_it_opens_does_not_count() {
        let barrier = Barrier::new(2);
        let mut gives_up = Box::pin(barrier.wait());
        assert!(poll(gives_up.as_mut()).is_pending());
        drop(gives_up);
        assert!(!barrier.is_waited_for());
        let mut waits = Box::pin(barrier.wait());
        assert!(poll(waits.as_mut()).is_pending(), "the other has gone");
        let last = poll(Box::pin(barrier.wait()).as_mut());
        assert_eq!(last, Poll::Ready(Ok(true)));
        drop(waits); // it was let through and did not see it
        assert!(!barrier.is_waited_for());
    }
}
