//! I/O as futures: the same path as [`crate::IoQueue`], through a queue of the channel's own.

use core::cell::{Cell, RefCell};
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::rc::Rc;

use slab::Slab;
use spdk_env::DmaBuf;

use crate::channel::Core;
use crate::queue::Limits;
use crate::{BdevError, BdevErrorKind, Completion, Rejected, Request};

/// The route of every future of a channel.
pub(crate) const ROUTE: u32 = 0;

type Outcome = (Result<(), BdevError>, Option<DmaBuf>);

enum State {
    /// At the device.
    Running(Option<Waker>),
    /// Back, not yet looked at.
    Finished(Outcome),
    /// Nobody waits; the buffer is dropped when it comes back.
    Detached,
}

/// The futures of a channel whose I/O is at the device, and those that wait for room.
#[derive(Default)]
pub(crate) struct Operations {
    running: RefCell<Slab<State>>,
    room: Cell<u32>,
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
}

/// One future in the line for room; a place that becomes free is handed to the first in line.
struct Waiter {
    granted: Cell<bool>,
    waker: RefCell<Waker>,
}

impl Operations {
    pub(crate) fn new(depth: u32) -> Operations {
        Operations {
            room: Cell::new(depth),
            ..Operations::default()
        }
    }

    /// One operation is back.
    pub(crate) fn finish(&self, completion: Completion) {
        let Completion {
            buf, user, result, ..
        } = completion;
        let mut running = self.running.borrow_mut();
        let key = user as usize;
        let Some(state) = running.get_mut(key) else {
            debug_assert!(
                false,
                "a completion for operation {key}, which does not run"
            );
            return;
        };
        let before = core::mem::replace(state, State::Finished((result, buf)));
        if let State::Detached = before {
            running.remove(key);
        }
        drop(running);
        if let State::Running(Some(waker)) = before {
            waker.wake();
        }
        self.release();
    }

    fn release(&self) {
        match self.waiting.borrow_mut().pop_front() {
            Some(next) => {
                next.granted.set(true);
                next.waker.borrow().wake_by_ref();
            }
            None => self.room.set(self.room.get() + 1),
        }
    }
}

/// One I/O as a future. Dropped before the I/O starts: nothing happens. Dropped later: the I/O goes on with its buffer.
pub(crate) struct Operation {
    core: Rc<Core>,
    step: Step,
}

enum Step {
    Start(Limits, Request),
    Waiting(Limits, Request, Rc<Waiter>),
    Running(usize),
    Done,
}

impl Operation {
    pub(crate) fn new(core: Rc<Core>, limits: Limits, request: Request) -> Operation {
        Operation {
            core,
            step: Step::Start(limits, request),
        }
    }

    fn run(&mut self, request: Request, waker: &Waker) {
        let key = self
            .core
            .operations()
            .running
            .borrow_mut()
            .insert(State::Running(Some(waker.clone())));
        let taken = self.core.submit(ROUTE, request.with_user(key as u64));
        // The lane is as deep as there is room.
        debug_assert!(taken.is_ok(), "a future beyond its lane's depth");
        self.step = Step::Running(key);
    }
}

impl Future for Operation {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let core = Rc::clone(&self.core);
        let operations = core.operations();
        match core::mem::replace(&mut self.step, Step::Done) {
            Step::Start(limits, request) => {
                if !limits.accepts(&request) || core.is_over() {
                    let why = limits.why(&request, &core);
                    let (error, buf) = Rejected { request, why }.into_error(core.name());
                    return Poll::Ready((Err(error), buf));
                }
                if operations.room.get() > 0 {
                    operations.room.set(operations.room.get() - 1);
                    self.run(request, cx.waker());
                } else {
                    let waiter = Rc::new(Waiter {
                        granted: Cell::new(false),
                        waker: RefCell::new(cx.waker().clone()),
                    });
                    operations
                        .waiting
                        .borrow_mut()
                        .push_back(Rc::clone(&waiter));
                    self.step = Step::Waiting(limits, request, waiter);
                }
            }
            Step::Waiting(limits, request, waiter) => {
                if waiter.granted.get() {
                    self.run(request, cx.waker());
                } else {
                    waiter.waker.borrow_mut().clone_from(cx.waker());
                    self.step = Step::Waiting(limits, request, waiter);
                }
            }
            Step::Running(key) => {
                let mut running = operations.running.borrow_mut();
                if let Some(State::Running(waker)) = running.get_mut(key) {
                    *waker = Some(cx.waker().clone());
                    drop(running);
                    self.step = Step::Running(key);
                } else if let Some(State::Finished(outcome)) = running.try_remove(key) {
                    return Poll::Ready(outcome);
                }
            }
            Step::Done => return Poll::Ready((Err(gone(&core)), None)),
        }
        Poll::Pending
    }
}

fn gone(core: &Core) -> BdevError {
    BdevErrorKind::Channel {
        device: core.name().to_owned(),
        why: "a finished operation was polled again".into(),
    }
    .into()
}

impl Drop for Operation {
    fn drop(&mut self) {
        let operations = self.core.operations();
        match &self.step {
            Step::Running(key) => {
                let mut running = operations.running.borrow_mut();
                if let Some(state @ State::Running(_)) = running.get_mut(*key) {
                    *state = State::Detached;
                } else {
                    drop(running.try_remove(*key));
                }
            }
            Step::Waiting(_, _, waiter) if waiter.granted.get() => operations.release(),
            Step::Waiting(_, _, waiter) => {
                operations
                    .waiting
                    .borrow_mut()
                    .retain(|other| !Rc::ptr_eq(other, waiter));
            }
            Step::Start(..) | Step::Done => {}
        }
    }
}
