//! Small synchronisation for tasks: within one xstream without locks, and one way across.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// One value from one task to another of the same xstream.
pub mod oneshot {
    use super::{Context, Future, Pin, Poll, Rc, RefCell, Slot};

    /// Gives the value.
    #[derive(Debug)]
    pub struct Sender<T>(Rc<RefCell<Slot<T>>>);
    /// Waits for the value: `None` when the sender went away without one.
    #[derive(Debug)]
    pub struct Receiver<T>(Rc<RefCell<Slot<T>>>);

    /// A pair.
    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let slot = Rc::new(RefCell::new(Slot::default()));
        (Sender(Rc::clone(&slot)), Receiver(slot))
    }

    impl<T> Sender<T> {
        /// Gives the value and wakes the receiver.
        pub fn send(self, value: T) {
            self.0.borrow_mut().value = Some(value);
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            let waker = self.0.borrow_mut().close();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Option<T>;
        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
            self.0.borrow_mut().poll(cx)
        }
    }
}

/// One value from one xstream to another.
pub mod remote {
    use super::{Arc, Context, Future, Mutex, Pin, Poll, Slot, lock};

    /// Gives the value; from any thread.
    #[derive(Debug)]
    pub struct Sender<T>(Arc<Mutex<Slot<T>>>);
    /// Waits for the value: `None` when the sender went away without one.
    #[derive(Debug)]
    pub struct Receiver<T>(Arc<Mutex<Slot<T>>>);

    /// A pair. The lock is held for a move of the value, never while anything runs.
    pub fn channel<T: Send>() -> (Sender<T>, Receiver<T>) {
        let slot = Arc::new(Mutex::new(Slot::default()));
        (Sender(Arc::clone(&slot)), Receiver(slot))
    }

    impl<T> Sender<T> {
        /// Gives the value and wakes the receiver.
        pub fn send(self, value: T) {
            lock(&self.0).value = Some(value);
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            let waker = lock(&self.0).close();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Option<T>;
        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
            lock(&self.0).poll(cx)
        }
    }
}

#[derive(Debug)]
struct Slot<T> {
    value: Option<T>,
    closed: bool,
    waker: Option<Waker>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self {
            value: None,
            closed: false,
            waker: None,
        }
    }
}

impl<T> Slot<T> {
    fn close(&mut self) -> Option<Waker> {
        self.closed = true;
        self.waker.take()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if self.closed {
            return Poll::Ready(self.value.take());
        }
        remember(&mut self.waker, cx);
        Poll::Pending
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // nothing that can panic runs under it
}

/// Keeps the waker of the latest poll.
pub(crate) fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

/// Permits shared by tasks of one xstream, granted in order of arrival. With one permit, a lock over awaits.
#[derive(Debug)]
pub struct Semaphore {
    state: RefCell<Permits>,
}

#[derive(Debug)]
struct Permits {
    free: usize,
    next_ticket: u64,
    waiting: VecDeque<(u64, Waker)>,
}

impl Semaphore {
    /// With so many permits.
    pub const fn new(permits: usize) -> Self {
        Self {
            state: RefCell::new(Permits {
                free: permits,
                next_ticket: 0,
                waiting: VecDeque::new(),
            }),
        }
    }

    /// Waits for a permit; dropping the future gives up its place.
    pub fn acquire(&self) -> Acquire<'_> {
        Acquire {
            semaphore: self,
            ticket: None,
        }
    }

    fn wake_first(&self) {
        let first = {
            let state = self.state.borrow();
            if state.free > 0 {
                state.waiting.front().map(|(_, waker)| waker.clone())
            } else {
                None
            }
        };
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

/// A permit; dropping it gives it back.
#[derive(Debug)]
pub struct Permit<'a>(&'a Semaphore);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.state.borrow_mut().free += 1;
        self.0.wake_first();
    }
}

/// Waits for a [`Permit`].
#[derive(Debug)]
pub struct Acquire<'a> {
    semaphore: &'a Semaphore,
    ticket: Option<u64>,
}

impl<'a> Future for Acquire<'a> {
    type Output = Permit<'a>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit<'a>> {
        let semaphore = self.semaphore;
        let mut state = semaphore.state.borrow_mut();
        let first = state
            .waiting
            .front()
            .is_none_or(|(ticket, _)| Some(*ticket) == self.ticket);
        if state.free > 0 && first {
            if self.ticket.take().is_some() {
                state.waiting.pop_front();
            }
            state.free -= 1;
            drop(state);
            semaphore.wake_first();
            return Poll::Ready(Permit(semaphore));
        }
        match self.ticket {
            Some(mine) => {
                if let Some((_, waker)) =
                    state.waiting.iter_mut().find(|(ticket, _)| *ticket == mine)
                {
                    waker.clone_from(cx.waker());
                }
            }
            None => {
                let ticket = state.next_ticket;
                state.next_ticket += 1;
                state.waiting.push_back((ticket, cx.waker().clone()));
                self.ticket = Some(ticket);
            }
        }
        Poll::Pending
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        if let Some(mine) = self.ticket {
            self.semaphore
                .state
                .borrow_mut()
                .waiting
                .retain(|(ticket, _)| *ticket != mine);
            self.semaphore.wake_first();
        }
    }
}

/// Wakes all tasks of one xstream that wait for "something changed". No memory: look, then wait.
#[derive(Debug, Default)]
pub struct Notify {
    state: RefCell<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    generation: u64,
    wakers: Vec<Waker>,
}

impl Notify {
    /// Nobody waits yet.
    pub const fn new() -> Self {
        Self {
            state: RefCell::new(Waiters {
                generation: 0,
                wakers: Vec::new(),
            }),
        }
    }

    /// Wakes everyone whose [`notified`](Self::notified) was made before now.
    pub fn notify_all(&self) {
        let wakers = {
            let mut state = self.state.borrow_mut();
            state.generation += 1;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Done at the first `notify_all` after this call, whether or not it has been polled before.
    pub fn notified(&self) -> Notified<'_> {
        Notified {
            notify: self,
            seen: self.state.borrow().generation,
        }
    }
}

/// Waits for [`Notify::notify_all`].
#[derive(Debug)]
pub struct Notified<'a> {
    notify: &'a Notify,
    seen: u64,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.notify.state.borrow_mut();
        if state.generation != self.seen {
            return Poll::Ready(());
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::{Notify, Semaphore, oneshot, remote};
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_value_arrives_once_and_a_lost_sender_is_none() {
        let (tx, mut rx) = oneshot::channel();
        assert!(poll(&mut rx).is_pending());
        tx.send(7);
        assert_eq!(poll(&mut rx), Poll::Ready(Some(7)));
        let (tx, mut rx) = oneshot::channel::<u8>();
        drop(tx);
        assert_eq!(poll(&mut rx), Poll::Ready(None));
    }

    #[test]
    fn a_value_crosses_threads() {
        let (tx, mut rx) = remote::channel();
        std::thread::spawn(move || tx.send("hello")).join().unwrap();
        assert_eq!(poll(&mut rx), Poll::Ready(Some("hello")));
    }

    #[test]
    fn permits_go_round_in_order_and_a_lost_waiter_passes_its_turn_on() {
        let semaphore = Semaphore::new(1);
        let Poll::Ready(held) = poll(&mut semaphore.acquire()) else {
            panic!("one is free")
        };
        let (mut second, mut third) = (semaphore.acquire(), semaphore.acquire());
        assert!(poll(&mut second).is_pending() && poll(&mut third).is_pending());
        drop(held);
        assert!(poll(&mut third).is_pending(), "the second comes first");
        drop(second);
        assert!(poll(&mut third).is_ready());
    }

    #[test]
    fn a_notification_between_look_and_wait_is_not_lost() {
        let notify = Notify::new();
        let mut waiting = pin!(notify.notified());
        notify.notify_all();
        assert!(poll(&mut waiting).is_ready());
        assert!(poll(&mut notify.notified()).is_pending(), "no memory");
    }
}
