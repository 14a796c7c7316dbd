//! Watching descriptors: the table between tasks and pollers that wait, and the reactor whose epoll knows.
//!
//! Level-triggered for the user: as long as the descriptor is readable, taking the flag makes it come back. To spare a
//! system call per event, a direction stays armed in epoll while its flag is taken in time; if an event finds its flag
//! still set, the direction is disarmed until the flag is taken, so that a descriptor that nobody reads does not keep
//! the reactor awake. Writing is armed only when somebody asks, since sockets are nearly always writable.

use crate::Thread;
use crate::task::TaskWaker;
use slab::Slab;
use std::cell::RefCell;
use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};

/// The directions of a descriptor that somebody is interested in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Interest {
    /// Data, a connection, or the end of the stream.
    pub readable: bool,
    /// Room to write.
    pub writable: bool,
}

impl Interest {
    /// Neither.
    pub const NONE: Interest = Interest {
        readable: false,
        writable: false,
    };
    /// Reading.
    pub const READABLE: Interest = Interest {
        readable: true,
        writable: false,
    };
    /// Writing.
    pub const WRITABLE: Interest = Interest {
        readable: false,
        writable: true,
    };
    /// Both.
    pub const BOTH: Interest = Interest {
        readable: true,
        writable: true,
    };

    /// Whether it is neither.
    #[must_use]
    pub const fn is_none(self) -> bool {
        !self.readable && !self.writable
    }
}

/// What epoll should do next about a descriptor.
#[derive(Debug)]
pub struct FdChange {
    /// The watch; give it to [`Thread::fd_ready`].
    pub id: u32,
    /// The descriptor; alive until the change has been applied.
    pub fd: Rc<OwnedFd>,
    /// What epoll should report from now on, level-triggered; none is "take it out".
    pub interest: Interest,
    /// The watch is gone: its id may be used again after this change.
    pub closed: bool,
}

struct Slot {
    fd: Rc<OwnedFd>,
    interest: Interest,
    /// What happened and was not taken.
    ready: Interest,
    /// What epoll should report.
    armed: Interest,
    readers: Vec<TaskWaker>,
    writers: Vec<TaskWaker>,
    dirty: bool,
    closed: bool,
}

#[derive(Default)]
struct State {
    slots: Slab<Slot>,
    dirty: Vec<u32>,
    /// Watches of users.
    open: usize,
    /// The watch of the thread's own carrier.
    carrier: Option<u32>,
}

#[derive(Default)]
pub(crate) struct FdTable(RefCell<State>);

impl State {
    fn arm(&mut self, id: u32, armed: Interest) {
        let Some(slot) = self.slots.get_mut(id as usize) else {
            return;
        };
        if slot.armed != armed {
            slot.armed = armed;
            self.mark(id);
        }
    }

    fn mark(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(id as usize) else {
            return;
        };
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Takes a flag; either way the direction is armed afterwards, so that the next event is reported.
    fn take(&mut self, id: u32, direction: Interest) -> bool {
        let Some(slot) = self.slots.get_mut(id as usize) else {
            return false;
        };
        let mut armed = slot.armed;
        let taken = if direction.readable {
            armed.readable = true;
            std::mem::take(&mut slot.ready.readable)
        } else {
            // A writable descriptor would be reported for ever: asked for again when it is full again.
            armed.writable = !slot.ready.writable;
            std::mem::take(&mut slot.ready.writable)
        };
        self.arm(id, armed);
        taken
    }
}

impl FdTable {
    fn insert(&self, fd: Rc<OwnedFd>, interest: Interest) -> u32 {
        let mut state = self.0.borrow_mut();
        let armed = Interest {
            readable: interest.readable,
            writable: false,
        };
        let id = state.slots.insert(Slot {
            fd,
            interest,
            ready: Interest::NONE,
            armed,
            readers: Vec::new(),
            writers: Vec::new(),
            dirty: false,
            closed: false,
        }) as u32;
        state.open += 1;
        if !armed.is_none() {
            state.mark(id);
        }
        id
    }

    /// Watches what wakes the thread's carrier; that does not hold the thread.
    pub(crate) fn watch_carrier(&self, fd: OwnedFd) {
        let id = self.insert(Rc::new(fd), Interest::READABLE);
        let mut state = self.0.borrow_mut();
        state.carrier = Some(id);
        state.open -= 1;
    }

    /// Before the carrier looks by itself: so that what comes later is reported. `false`: it has no descriptor.
    pub(crate) fn take_carrier(&self) -> bool {
        let mut state = self.0.borrow_mut();
        let Some(id) = state.carrier else {
            return false;
        };
        state.take(id, Interest::READABLE);
        true
    }

    /// The thread exits.
    pub(crate) fn close_carrier(&self) {
        let id = self.0.borrow_mut().carrier.take();
        if let Some(id) = id {
            self.0.borrow_mut().open += 1;
            self.close(id);
        }
    }

    fn close(&self, id: u32) {
        let mut state = self.0.borrow_mut();
        let state_mut = &mut *state;
        let Some(slot) = state_mut.slots.get_mut(id as usize) else {
            return;
        };
        slot.closed = true;
        slot.armed = Interest::NONE;
        let waiting = (
            std::mem::take(&mut slot.readers),
            std::mem::take(&mut slot.writers),
        );
        state_mut.open -= 1;
        state_mut.mark(id);
        drop(state);
        drop(waiting);
    }

    pub(crate) fn has_changes(&self) -> bool {
        !self.0.borrow().dirty.is_empty()
    }

    pub(crate) fn drain_changes(&self, mut apply: impl FnMut(FdChange)) {
        loop {
            let change = {
                let mut state = self.0.borrow_mut();
                let Some(id) = state.dirty.pop() else { return };
                let Some(slot) = state.slots.get_mut(id as usize) else {
                    continue;
                };
                slot.dirty = false;
                let change = FdChange {
                    id,
                    fd: slot.fd.clone(),
                    interest: slot.armed,
                    closed: slot.closed,
                };
                if change.closed {
                    state.slots.remove(id as usize);
                }
                change
            };
            apply(change);
        }
    }

    pub(crate) fn ready(&self, id: u32, found: Interest) {
        let (readers, writers) = {
            let mut state = self.0.borrow_mut();
            let Some(slot) = state.slots.get_mut(id as usize).filter(|slot| !slot.closed) else {
                return;
            };
            let mut armed = slot.armed;
            let readable = found.readable && slot.interest.readable;
            let writable = found.writable && slot.interest.writable;
            // Reported again although nobody has taken it: be quiet until somebody does. Hang-ups are reported even
            // where nobody is interested.
            if found.readable && (slot.ready.readable || !slot.interest.readable) {
                armed.readable = false;
            }
            if found.writable {
                armed.writable = false;
            }
            slot.ready.readable |= readable;
            slot.ready.writable |= writable;
            let readers = if readable {
                std::mem::take(&mut slot.readers)
            } else {
                Vec::new()
            };
            let writers = if writable {
                std::mem::take(&mut slot.writers)
            } else {
                Vec::new()
            };
            state.arm(id, armed);
            (readers, writers)
        };
        readers.into_iter().chain(writers).for_each(TaskWaker::wake);
    }

    fn poll_ready(&self, id: u32, direction: Interest, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.borrow_mut().take(id, direction) {
            return Poll::Ready(());
        }
        let waits_for = if direction.readable {
            "a readable descriptor"
        } else {
            "a writable descriptor"
        };
        let waker = TaskWaker::from_cx(cx, waits_for);
        let mut state = self.0.borrow_mut();
        if let Some(slot) = state.slots.get_mut(id as usize) {
            let list = if direction.readable {
                &mut slot.readers
            } else {
                &mut slot.writers
            };
            list.push(waker);
        }
        Poll::Pending
    }

    pub(crate) fn open(&self) -> usize {
        self.0.borrow().open
    }

    pub(crate) fn holders(&self) -> Vec<String> {
        use std::os::fd::AsRawFd;
        let state = self.0.borrow();
        let is_users = |id: usize| state.carrier.is_none_or(|own| own as usize != id);
        let slots = state.slots.iter();
        let open = slots.filter(|(id, slot)| !slot.closed && is_users(*id));
        open.map(|(_, slot)| format!("watch of descriptor {}", slot.fd.as_raw_fd()))
            .collect()
    }
}

/// A watched descriptor; own thread only. Dropping it ends the watch; the descriptor itself is closed when its last
/// owner goes. A descriptor can have one watch per reactor.
#[must_use = "dropping an FdWatch ends the watch"]
pub struct FdWatch {
    thread: Thread,
    fd: Rc<OwnedFd>,
    id: u32,
}

impl FdWatch {
    pub(crate) fn new(thread: &Thread, fd: Rc<OwnedFd>, interest: Interest) -> FdWatch {
        let id = thread.inner().fds.insert(fd.clone(), interest);
        FdWatch {
            thread: thread.clone(),
            fd,
            id,
        }
    }

    fn table(&self) -> &FdTable {
        &self.thread.inner().fds
    }

    /// Waits until the descriptor may be read without blocking, or is at its end or broken. Try to read first and wait
    /// after `EAGAIN`: that is one system call less. The answer may be stale; reading decides.
    pub async fn readable(&self) {
        poll_fn(|cx| self.table().poll_ready(self.id, Interest::READABLE, cx)).await;
    }

    /// Waits until the descriptor may be written without blocking, or is broken. Call it after `EAGAIN`.
    pub async fn writable(&self) {
        poll_fn(|cx| self.table().poll_ready(self.id, Interest::WRITABLE, cx)).await;
    }

    /// For pollers: whether the descriptor has become readable since this was last asked. If it still is after what
    /// the poller read, the flag comes back.
    #[must_use]
    pub fn take_readable(&self) -> bool {
        self.table()
            .0
            .borrow_mut()
            .take(self.id, Interest::READABLE)
    }

    /// For pollers: whether the descriptor has become writable since this was last asked. Asking arms it: ask after
    /// `EAGAIN`, until it says yes.
    #[must_use]
    pub fn take_writable(&self) -> bool {
        self.table()
            .0
            .borrow_mut()
            .take(self.id, Interest::WRITABLE)
    }

    /// The descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for FdWatch {
    fn drop(&mut self) {
        self.table().close(self.id);
    }
}

impl std::fmt::Debug for FdWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FdWatch({:?} of {:?})", self.fd, self.thread.name())
    }
}
