//! Waiting among the tasks of one xstream.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Something changed: whoever waits looks again.
#[derive(Default)]
pub(crate) struct Event {
    waiting: RefCell<Vec<Waker>>,
}

impl Event {
    /// Wakes all waiters.
    pub(crate) fn notify(&self) {
        for waker in std::mem::take(&mut *self.waiting.borrow_mut()) {
            waker.wake();
        }
    }

    /// Returns once `ready` gives a value. It is asked again after each [`Event::notify`].
    pub(crate) async fn wait<T>(&self, mut ready: impl FnMut() -> Option<T>) -> T {
        poll_fn(|cx| match ready() {
            Some(value) => Poll::Ready(value),
            None => {
                let mut waiting = self.waiting.borrow_mut();
                if !waiting.iter().any(|w| w.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }
}

/// One at a time.
#[derive(Default)]
pub(crate) struct Mutex {
    held: Cell<bool>,
    released: Event,
}

impl Mutex {
    pub(crate) async fn lock(&self) -> MutexGuard<'_> {
        self.released
            .wait(|| (!self.held.replace(true)).then_some(()))
            .await;
        MutexGuard(self)
    }
}

/// Releases the [`Mutex`] when dropped.
pub(crate) struct MutexGuard<'a>(&'a Mutex);

impl Drop for MutexGuard<'_> {
    fn drop(&mut self) {
        self.0.held.set(false);
        self.0.released.notify();
    }
}

type Key = (u32, Box<str>);

/// One change at a time per object: (container, name).
#[derive(Default)]
pub(crate) struct KeyLocks {
    held: RefCell<HashMap<Key, Rc<Event>>>,
}

impl KeyLocks {
    pub(crate) async fn lock(&self, cont: u32, name: &str) -> KeyGuard<'_> {
        let key: Key = (cont, name.into());
        loop {
            let held = self.held.borrow().get(&key).cloned();
            let Some(event) = held else {
                self.held.borrow_mut().insert(key.clone(), Rc::default());
                return KeyGuard { locks: self, key };
            };
            let free = || {
                let held = self.held.borrow();
                !held.get(&key).is_some_and(|e| Rc::ptr_eq(e, &event))
            };
            event.wait(|| free().then_some(())).await;
        }
    }
}

/// Releases the key when dropped.
pub(crate) struct KeyGuard<'a> {
    locks: &'a KeyLocks,
    key: Key,
}

impl Drop for KeyGuard<'_> {
    fn drop(&mut self) {
        let event = self.locks.held.borrow_mut().remove(&self.key);
        if let Some(event) = event {
            event.notify();
        }
    }
}

struct Slot<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

/// A value that comes later.
pub(crate) struct Promise<T>(Rc<RefCell<Slot<T>>>);

/// The end that waits for the value of a [`Promise`].
pub(crate) struct Ticket<T>(Rc<RefCell<Slot<T>>>);

/// A promise and the ticket for its value.
pub(crate) fn promise<T>() -> (Promise<T>, Ticket<T>) {
    let slot = Rc::new(RefCell::new(Slot {
        value: None,
        waker: None,
    }));
    (Promise(slot.clone()), Ticket(slot))
}

impl<T> Promise<T> {
    pub(crate) fn fulfil(self, value: T) {
        let mut slot = self.0.borrow_mut();
        slot.value = Some(value);
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Ticket<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.0.borrow_mut();
        match slot.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Lets the other tasks of the xstream have a turn.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
