//! A ULT's own handle on its life: sleep, wake, abort, stop (DAOS `src/engine/sched.c`: `struct sched_request`).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use spdk_thread::TaskWaker;

use crate::{UltRef, Xstream, XstreamRef, current};

/// Names a ULT in the whole process, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UltId(u64);

impl UltId {
    pub(crate) fn next() -> UltId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        UltId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The requests of an xstream's ULTs, by id.
pub(crate) type Requests = RefCell<HashMap<UltId, Weak<Control>>>;

pub(crate) struct Control {
    id: UltId,
    name: &'static str,
    xstream: XstreamRef,
    aborted: Cell<bool>,
    /// Counts wake-ups: a sleep ends when the number is no longer the one that it began with, so that a wake-up of one
    /// who does not sleep is forgotten.
    wakeups: Cell<u64>,
    sleeper: RefCell<Option<TaskWaker>>,
    /// Where messages find it.
    findable: Rc<Requests>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.findable.borrow_mut().remove(&self.id);
    }
}

impl Control {
    pub(crate) fn wake(&self) {
        self.wakeups.set(self.wakeups.get().wrapping_add(1));
        let sleeper = self.sleeper.take();
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    pub(crate) fn abort(&self) {
        self.aborted.set(true);
        self.wake();
    }
}

/// A ULT seen from its own xstream: what the ULT itself sleeps and stops with, and what others there wake and abort it
/// with. Clones are one request; own thread only. [`crate::UltRef`] is the same from elsewhere.
///
/// DAOS's `sched_request` without the queues: those are the scheduler's.
#[derive(Clone)]
pub struct UltRequest(Rc<Control>);

impl UltRequest {
    /// Found by its id from now until its last clone drops.
    pub(crate) fn new(id: UltId, name: &'static str, xstream: &Xstream) -> UltRequest {
        let findable = Rc::clone(&xstream.inner.requests);
        let control = Rc::new(Control {
            id,
            name,
            xstream: xstream.xref(),
            aborted: Cell::new(false),
            wakeups: Cell::new(0),
            sleeper: RefCell::default(),
            findable,
        });
        let known = &control.findable;
        known.borrow_mut().insert(id, Rc::downgrade(&control));
        UltRequest(control)
    }

    /// For a ULT that was made without one, called by it (DAOS: `sched_req_get(attr, NULL)`). `None` without a name, and on a
    /// thread that is no xstream.
    pub fn attach(name: &'static str) -> Option<UltRequest> {
        let xstream = current().filter(|_| !name.is_empty())?;
        Some(UltRequest::new(UltId::next(), name, &xstream))
    }

    /// The same ULT for others, on any xstream.
    pub fn address(&self) -> UltRef {
        UltRef::new(self.0.xstream.clone(), self.0.id, self.0.name)
    }

    /// Where it runs.
    pub fn xstream(&self) -> &XstreamRef {
        &self.0.xstream
    }

    /// The name of its ULT.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Sleeps for `ns` nanoseconds, or until woken or aborted. For 0, after an abort, and on a stopping xstream it only
    /// yields. By its own ULT.
    pub async fn sleep(&self, ns: u64) -> Slept {
        if ns == 0 || self.must_stop() {
            spdk_thread::yield_now().await;
            return Slept::Yielded;
        }
        Sleeping {
            control: &self.0,
            _asleep: Asleep(&self.0),
            since: self.0.wakeups.get(),
            timer: spdk_thread::sleep(ns),
        }
        .await
    }

    /// Ends its sleep; nothing if it does not sleep (DAOS: `sched_req_wakeup`).
    pub fn wakeup(&self) {
        self.0.wake();
    }

    /// Asks it to end: its sleep ends now, [`UltRequest::yield_or_stop`] answers true from now on. A ULT that never
    /// asks runs on; one that has ended does not notice (DAOS: `sched_req_abort`).
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether somebody asked it to end.
    pub fn is_aborted(&self) -> bool {
        self.0.aborted.get()
    }

    /// Whether it should come to its end: aborted, or its xstream is stopping.
    pub fn must_stop(&self) -> bool {
        self.is_aborted() || self.0.xstream.is_stopping()
    }

    /// Waits for a future until the ULT is to come to its end: then it is dropped, and the answer is `None`. What is there at once is given
    /// all the same. By its own ULT.
    pub async fn unless_stopped<F: Future>(&self, future: F) -> Option<F::Output> {
        let _asleep = Asleep(&self.0);
        let mut future = pin!(future);
        poll_fn(|cx| {
            // The future names itself as what is waited for, after this.
            let before = self.0.sleeper.replace(Some(TaskWaker::from_cx(cx, "")));
            drop(before);
            match future.as_mut().poll(cx) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if self.must_stop() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// True: come to your end. Otherwise lets others run, and false (DAOS: `dss_ult_yield`).
    pub async fn yield_or_stop(&self) -> bool {
        if self.must_stop() {
            return true;
        }
        spdk_thread::yield_now().await;
        false
    }
}

impl fmt::Debug for UltRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aborted = if self.is_aborted() { ", aborted" } else { "" };
        write!(f, "UltRequest({}{aborted})", self.0.name)
    }
}

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slept {
    /// The time was up.
    TimeUp,
    /// It was woken or aborted before.
    Woken,
    /// It did not sleep, it only let others run.
    Yielded,
}

/// Takes the waker of a ULT that can be woken back when it waits no more.
struct Asleep<'a>(&'a Control);

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        let sleeper = self.0.sleeper.take();
        drop(sleeper);
    }
}

struct Sleeping<'a> {
    control: &'a Control,
    _asleep: Asleep<'a>,
    since: u64,
    timer: spdk_thread::Sleep,
}

impl Future for Sleeping<'_> {
    type Output = Slept;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Slept> {
        if self.control.wakeups.get() != self.since {
            return Poll::Ready(Slept::Woken);
        }
        if Pin::new(&mut self.timer).poll(cx).is_ready() {
            return Poll::Ready(Slept::TimeUp);
        }
        let waker = TaskWaker::from_cx(cx, "sleep");
        let before = self.control.sleeper.replace(Some(waker));
        drop(before);
        Poll::Pending
    }
}

/// A beat that does not drift: for work that repeats every so often.
#[derive(Debug)]
pub struct Beat {
    next: u64,
    period_ns: u64,
}

impl Beat {
    /// Begins now, on an xstream.
    pub fn new(period_ns: u64) -> Beat {
        let next = now();
        Beat { next, period_ns }
    }

    /// Sleeps until the next beat; a wake-up begins a new one at once, and so do missed beats, one period from here. False:
    /// the ULT must stop.
    pub async fn wait(&mut self, request: &UltRequest) -> bool {
        self.next = self.next.saturating_add(self.period_ns);
        if self.next <= now() {
            self.next = now().saturating_add(self.period_ns);
        }
        if request.sleep(self.next - now()).await == Slept::Woken {
            self.next = now();
        }
        !request.must_stop()
    }
}

fn now() -> u64 {
    spdk_thread::current().map_or(0, |thread| thread.now())
}

/// The xstream stops: whoever sleeps shall see it.
pub(crate) fn wake_all(requests: &Requests) {
    let all: Vec<_> = requests
        .borrow()
        .values()
        .filter_map(Weak::upgrade)
        .collect();
    all.iter().for_each(|control| control.wake());
}
