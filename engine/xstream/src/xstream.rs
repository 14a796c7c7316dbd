//! An xstream seen from its own code.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::future::Future;
use std::rc::Rc;

use engine_tls::Slots;
use spdk_thread::{JoinHandle, Scope, Thread};

use crate::chores::ChoreQueue;
use crate::request::Requests;
use crate::sched::{self, RequestSched};
use crate::{Role, SpawnError, XstreamId, XstreamRef, Xstreams};

thread_local! {
    static CURRENT: RefCell<Option<Xstream>> = const { RefCell::new(None) };
}

/// The xstream whose code runs on this OS thread; `None` on a control thread.
pub fn current() -> Option<Xstream> {
    CURRENT.with_borrow(Clone::clone)
}

/// An xstream, own thread only. Clones are cheap; none may outlive the xstream, whose shutdown waits for them.
#[derive(Clone)]
pub struct Xstream {
    pub(crate) inner: Rc<Inner>,
}

pub(crate) struct Inner {
    thread: Thread,
    address: XstreamRef,
    pub(crate) slots: Slots,
    /// Of the ULTs that can be woken and aborted.
    pub(crate) requests: Rc<Requests>,
    /// On main xstreams.
    pub(crate) sched: Option<Rc<RequestSched>>,
    /// On helpers.
    pub(crate) chores: Option<Rc<ChoreQueue>>,
    /// Known from the start-up barrier on.
    set: OnceCell<Xstreams>,
}

impl Xstream {
    pub(crate) fn new(thread: &Thread, address: XstreamRef, slots: Slots) -> Xstream {
        let (requests, set) = (Rc::default(), OnceCell::new());
        let sched = (address.role() == Role::Main)
            .then(|| RequestSched::new(thread, address.name(), sched::Options::default()));
        let chores = (address.role() == Role::Offload).then(Rc::default);
        Xstream {
            inner: Rc::new(Inner {
                thread: thread.clone(),
                address,
                slots,
                requests,
                sched,
                chores,
                set,
            }),
        }
    }

    /// Its lightweight thread: pollers, I/O channels, watched descriptors.
    pub fn thread(&self) -> &Thread {
        &self.inner.thread
    }

    /// Its address, for others.
    pub fn xref(&self) -> XstreamRef {
        self.inner.address.clone()
    }

    /// Its id.
    pub fn id(&self) -> XstreamId {
        self.inner.address.id()
    }

    /// What it is for.
    pub fn role(&self) -> Role {
        self.inner.address.role()
    }

    /// Its target, or the target that it helps.
    pub fn target(&self) -> Option<u32> {
        self.inner.address.target()
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.inner.address.name()
    }

    /// Its per-xstream storage.
    #[inline]
    pub fn tls(&self) -> &Slots {
        &self.inner.slots
    }

    /// Its request scheduler; only main xstreams have one.
    pub fn sched(&self) -> Option<&Rc<RequestSched>> {
        self.inner.sched.as_ref()
    }

    /// All xstreams of the engine; `None` before the start-up barrier, when not all are up.
    pub fn set(&self) -> Option<&Xstreams> {
        self.inner.set.get()
    }

    /// Creates a ULT here. It first runs in the next task phase, not inside this call.
    ///
    /// # Errors
    /// [`SpawnError::Shutdown`] once the engine stops, [`SpawnError::TooMany`] at the limit.
    #[track_caller]
    pub fn spawn<T: 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + 'static,
    ) -> Result<JoinHandle<T>, SpawnError> {
        self.inner.address.check_running()?;
        self.spawn_accepted(name, future)
    }

    /// The same for a ULT that was accepted before the engine began to stop: it is not refused on its way.
    #[track_caller]
    pub(crate) fn spawn_accepted<T: 'static>(
        &self,
        name: &'static str,
        future: impl Future<Output = T> + 'static,
    ) -> Result<JoinHandle<T>, SpawnError> {
        self.inner
            .thread
            .spawn(name, future)
            .map_err(|error| match error {
                spdk_thread::SpawnError::Exiting => SpawnError::Shutdown(self.id()),
                spdk_thread::SpawnError::TooMany(limit) => SpawnError::TooMany(self.id(), limit),
            })
    }

    /// Whether the engine shuts down: a ULT that repeats itself ends when it sees this.
    pub fn is_shutting_down(&self) -> bool {
        self.inner.address.is_shutting_down()
    }

    pub(crate) fn install_set(&self, set: Xstreams) {
        // The barrier is passed once; a second set would be a bug of the start-up, and the first stays.
        let _ = self.inner.set.set(set);
    }
}

impl fmt::Debug for Xstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Xstream({} {})", self.id(), self.name())
    }
}

/// Makes the xstream and its storage current while its thread is polled: several xstreams share an OS thread. Once per
/// turn, so the handles change places instead of being counted: here between turns, in the thread-locals during one.
pub(crate) struct XstreamScope {
    xstream: Cell<Option<Xstream>>,
    slots: Cell<Option<Slots>>,
}

impl XstreamScope {
    pub(crate) fn new(xstream: Xstream) -> XstreamScope {
        let slots = Cell::new(Some(xstream.inner.slots.clone()));
        XstreamScope {
            xstream: Cell::new(Some(xstream)),
            slots,
        }
    }

    #[inline]
    fn change_places(&self) {
        self.slots.set(engine_tls::switch(self.slots.take()));
        self.xstream.set(CURRENT.replace(self.xstream.take()));
    }
}

impl Scope for XstreamScope {
    fn enter(&self) {
        self.change_places();
    }

    fn leave(&self) {
        self.change_places();
    }
}
