//! A lock that is held over waits, handed on in order of arrival (Argobots: `ABT_mutex`).

use super::waiters::{Ticket, Waiters, locked};
use daos_errno::Der;
use std::future::Future;
use std::pin::Pin;
use std::sync;
use std::task::{Context, Poll};

/// Who holds a lock: a number that no other ULT of the process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UltKey(pub(crate) u64);

#[derive(Debug, Default)]
pub(crate) struct Mutex(sync::Mutex<State>);

#[derive(Debug, Default)]
struct State {
    owner: Option<UltKey>,
    waiting: Waiters<UltKey>,
}

impl Mutex {
    /// Waits for the lock; `DER_BUSY` when `me` holds it already.
    pub(crate) fn lock(&self, me: UltKey) -> Lock<'_> {
        Lock {
            mutex: self,
            me,
            ticket: None,
        }
    }

    /// Hands it on.
    ///
    /// # Errors
    /// `DER_NO_PERM` when `me` does not hold it.
    pub(crate) fn unlock(&self, me: UltKey) -> Result<(), Der> {
        let next = {
            let mut state = locked(&self.0);
            if state.owner != Some(me) {
                return Err(Der::NO_PERM);
            }
            let next = state.waiting.first();
            state.owner = next.as_ref().map(|(owner, _)| *owner);
            next
        };
        if let Some((_, waker)) = next {
            waker.wake();
        }
        Ok(())
    }

    pub(crate) fn is_held(&self) -> bool {
        locked(&self.0).owner.is_some()
    }

    pub(crate) fn holds(&self, me: UltKey) -> bool {
        locked(&self.0).owner == Some(me)
    }
}

pub(crate) struct Lock<'a> {
    mutex: &'a Mutex,
    me: UltKey,
    /// While it waits, and after it was handed the lock without having seen it.
    ticket: Option<Ticket>,
}

impl Future for Lock<'_> {
    type Output = Result<(), Der>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (mutex, me) = (self.mutex, self.me);
        let mut state = locked(&mutex.0);
        match (state.owner, self.ticket) {
            (None, _) => state.owner = Some(me),
            (Some(owner), None) if owner == me => return Poll::Ready(Err(Der::BUSY)),
            (Some(owner), Some(ticket)) if owner == me && !state.waiting.waits(ticket) => {}
            _ => {
                state.waiting.wait(&mut self.ticket, me, cx, "mutex");
                return Poll::Pending;
            }
        }
        self.ticket = None;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let left = locked(&self.mutex.0).waiting.leave(ticket);
        if !left {
            // Handed over and not seen: it goes on.
            let _ = self.mutex.unlock(self.me);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::Waker;

    const A: UltKey = UltKey(1);
    const B: UltKey = UltKey(2);
    const C: UltKey = UltKey(3);

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn it_is_handed_on_in_order_and_only_by_its_holder() {
        let mutex = Mutex::default();
        assert_eq!(poll(pin!(mutex.lock(A))), Poll::Ready(Ok(())));
        assert_eq!(poll(pin!(mutex.lock(A))), Poll::Ready(Err(Der::BUSY)));
        let (mut b, mut c) = (pin!(mutex.lock(B)), pin!(mutex.lock(C)));
        assert!(poll(b.as_mut()).is_pending() && poll(c.as_mut()).is_pending());
        assert_eq!(mutex.unlock(B), Err(Der::NO_PERM));
        assert_eq!(mutex.unlock(A), Ok(()));
        assert!(mutex.holds(B) && poll(c.as_mut()).is_pending());
        assert_eq!(poll(b.as_mut()), Poll::Ready(Ok(())));
        assert_eq!(mutex.unlock(B), Ok(()));
        assert_eq!(poll(c.as_mut()), Poll::Ready(Ok(())));
        assert_eq!(mutex.unlock(C), Ok(()));
        assert!(!mutex.is_held());
    }

    #[test]
    fn who_gives_up_passes_on_what_it_was_handed() {
        let mutex = Mutex::default();
        assert!(poll(pin!(mutex.lock(A))).is_ready());
        let mut c = pin!(mutex.lock(C));
        {
            let mut b = Box::pin(mutex.lock(B));
            assert!(poll(b.as_mut()).is_pending() && poll(c.as_mut()).is_pending());
            assert_eq!(mutex.unlock(A), Ok(()));
        }
        assert_eq!(poll(c.as_mut()), Poll::Ready(Ok(())), "B had it and went");
        assert_eq!(mutex.unlock(C), Ok(()));
    }
}
