//! A future whose poll switches stacks.
//!
//! Invariants:
//! - S1: a stack is in use by one coroutine, from its first poll to its end; it stays on the OS thread of its task.
//! - S2: `HERE.base` points into the frame at the base of the coroutine that runs on this OS thread, and is NULL while none does.
//!   That frame, with the waker in it, lives until the coroutine ends.
//! - S3: a coroutine that has begun and not ended is never dropped: what is on its stack cannot be unwound (it may be C), so its
//!   memory is given up instead.
//! - S4: no panic leaves a coroutine's function: it is caught at the base.
//! - S5: while a coroutine runs, `HERE.waker` points to the waker of the poll that runs it, which lives as long as that poll does.
#![allow(unsafe_code, reason = "switches stacks")]

use crate::memory::StackMemory;
use crate::overflow;
use corosensei::stack::Stack as _;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use daos_errno::Der;
use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::ptr::null;
use std::task::{Context, Poll, Waker};

type Resume = Yielder<(), ()>;
type Running<R> = Coroutine<(), (), Option<R>, StackMemory>;

/// Why a ULT has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UltError {
    /// It panicked, or an exception of another language reached its base; the log has the text.
    #[error("the ULT panicked")]
    Panicked,
    /// It never began: no memory for a stack, or a size out of bounds.
    #[error(
        "no stack for the ULT ({0}): fewer ULTs at once, smaller stacks, or a larger vm.max_map_count"
    )]
    NoStack(Der),
}

/// The frame at the base of a coroutine.
struct Base {
    yielder: *const Resume,
    /// The task's, kept when the ULT first waits: futures may hold on to it across switches.
    waker: OnceCell<Waker>,
}

#[derive(Clone, Copy)]
struct Here {
    base: *const Base,
    waker: *const Waker,
}

const NOWHERE: Here = Here {
    base: null(),
    waker: null(),
};

thread_local! {
    static HERE: Cell<Here> = const { Cell::new(NOWHERE) };
}

/// A function on a stack of its own; polled on one OS thread.
pub struct Ult<F, R: 'static> {
    name: &'static str,
    stack_size: usize,
    /// Until the first poll.
    body: Option<F>,
    coroutine: ManuallyDrop<Option<Running<R>>>,
    base: *const Base,
    /// Where the stack's guard begins.
    guard: usize,
}

/// A ULT that runs `body` on a stack of `stack_size` bytes (0: the default, 64 KiB; at most 64 MiB) and what the engine's own
/// functions need besides. Nothing happens before the first poll, which takes the stack.
pub fn ult<F, R>(name: &'static str, stack_size: usize, body: F) -> Ult<F, R>
where
    F: FnOnce() -> R + 'static,
    R: 'static,
{
    Ult {
        name,
        stack_size,
        body: Some(body),
        coroutine: ManuallyDrop::new(None),
        base: null(),
        guard: 0,
    }
}

impl<F, R> Unpin for Ult<F, R> {}

impl<F: FnOnce() -> R + 'static, R: 'static> Ult<F, R> {
    fn begin(&mut self, body: F) -> Result<(), UltError> {
        let stack = StackMemory::take(self.stack_size).map_err(UltError::NoStack)?;
        self.guard = stack.limit().get();
        let name = self.name;
        let begun = Coroutine::with_stack(stack, move |yielder: &Resume, ()| {
            let base = Base {
                yielder,
                waker: OnceCell::new(),
            };
            HERE.set(Here {
                base: &raw const base,
                ..HERE.get()
            });
            caught(name, body)
        });
        *self.coroutine = Some(begun);
        Ok(())
    }
}

impl<F: FnOnce() -> R + 'static, R: 'static> Future for Ult<F, R> {
    type Output = Result<R, UltError>;

    /// # Panics
    /// If another waker polls it than when it first waited (a combinator's), or after its end.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(body) = self.body.take() {
            self.begin(body)?;
        } else if !self.base.is_null() {
            // SAFETY: S2: it has begun and not ended.
            let kept = unsafe { &(*self.base).waker };
            let same = kept.get().is_none_or(|kept| kept.will_wake(cx.waker()));
            assert!(same, "a ULT is polled by its task, never by a combinator");
        }
        let (name, guard, base) = (self.name, self.guard, self.base);
        let coroutine = self.coroutine.as_mut();
        let coroutine = coroutine.expect("a ULT was polled after its end");
        let outer = HERE.replace(Here {
            base,
            waker: cx.waker(),
        });
        let resumed = overflow::guarded(name, guard, || coroutine.resume(()));
        let here = HERE.replace(outer);
        match resumed {
            CoroutineResult::Yield(()) => {
                self.base = here.base;
                Poll::Pending
            }
            CoroutineResult::Return(result) => {
                self.base = null();
                if let Some(ended) = self.coroutine.take() {
                    ended.into_stack().give_back();
                }
                Poll::Ready(result.ok_or(UltError::Panicked))
            }
        }
    }
}

impl<F, R> Drop for Ult<F, R> {
    fn drop(&mut self) {
        if self.coroutine.is_some() {
            // S3.
            tracing::error!(
                ult = self.name,
                "dropped before its end: its stack stays, and what is on it"
            );
        }
    }
}

/// S4: the base of every stack.
fn caught<R>(name: &'static str, body: impl FnOnce() -> R) -> Option<R> {
    let caught = catch_unwind(AssertUnwindSafe(body));
    caught
        .inspect_err(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            let panic = text.unwrap_or_else(|| "an exception of another language".to_owned());
            tracing::error!(ult = name, panic, "a ULT panicked");
        })
        .ok()
}

/// Whether the caller runs on a ULT's stack, where [`wait`] may be called.
#[must_use]
pub fn inside() -> bool {
    !HERE.get().base.is_null()
}

/// Waits for a future on the ULT's own stack.
///
/// # Panics
/// Outside a ULT: ask [`inside`] first where that can be.
pub fn wait<F: Future>(future: F) -> F::Output {
    let here = HERE.get();
    assert!(!here.base.is_null(), "waiting outside a ULT");
    // SAFETY: S2: we are on its stack.
    let base = unsafe { &*here.base };
    // SAFETY: S5: we are in that poll.
    let waker = base.waker.get_or_init(|| unsafe { (*here.waker).clone() });
    let mut future = pin!(future);
    loop {
        let mut cx = Context::from_waker(waker);
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        // SAFETY: S1, S2: lives as long as the coroutine.
        unsafe { &*base.yielder }.suspend(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spdk_thread::testing::Lockstep;
    use std::rc::Rc;

    #[test]
    fn a_function_waits_in_the_middle_and_its_result_comes_out() {
        let mut lockstep = Lockstep::new();
        let thread = lockstep.thread("t");
        let body = || {
            let mut sum = 0;
            for round in 1..=3 {
                wait(spdk_thread::yield_now());
                wait(spdk_thread::sleep(5));
                // A wait inside a wait: what a future calls may wait, too.
                sum += wait(async move {
                    wait(spdk_thread::sleep(5));
                    spdk_thread::yield_now().await;
                    round
                });
            }
            sum
        };
        let ults: Vec<_> = (0..3).map(|_| ult("t", 0, body)).collect();
        let tasks: Vec<_> = ults
            .into_iter()
            .map(|ult| thread.spawn("ult", ult).unwrap())
            .collect();
        for task in tasks {
            assert_eq!(lockstep.block_on(&thread, task), Ok(Ok(Ok(6))));
        }
    }

    #[test]
    fn a_panic_ends_the_ult_and_nothing_else() {
        let mut lockstep = Lockstep::new();
        let thread = lockstep.thread("t");
        let body = || {
            wait(spdk_thread::yield_now());
            if spdk_thread::current().is_some() {
                panic!("as asked")
            }
        };
        assert_eq!(
            lockstep.block_on(&thread, ult("t", 0, body)),
            Ok(Err(UltError::Panicked))
        );
        assert_eq!(lockstep.block_on(&thread, ult("t", 0, || 7)), Ok(Ok(7)));
    }

    #[test]
    fn one_that_never_began_goes_and_one_that_did_is_given_up_without_unwinding() {
        struct Held(Rc<Cell<u32>>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let drops = Rc::new(Cell::new(0));
        let held = Held(Rc::clone(&drops));
        drop(ult("never", 0, move || drop(held)));
        assert_eq!(drops.get(), 1);
        let mut lockstep = Lockstep::new();
        let thread = lockstep.thread("t");
        let held = Held(Rc::clone(&drops));
        let waits = ult("waits", 0, move || {
            wait(std::future::pending::<()>());
            drop(held);
        });
        let task = thread.spawn("waits", waits).unwrap();
        lockstep.settle();
        task.abort();
        assert!(lockstep.block_on(&thread, task).unwrap().is_err());
        assert_eq!(drops.get(), 1, "C frames cannot be unwound");
    }

    #[test]
    fn a_thousand_that_never_wait_share_one_stack_and_a_bad_size_is_the_joiners_error() {
        let mut lockstep = Lockstep::new();
        let thread = lockstep.thread("t");
        let bases: Rc<Cell<Vec<usize>>> = Rc::default();
        let tasks: Vec<_> = (0..1000)
            .map(|_| {
                let seen = Rc::clone(&bases);
                let body = move || {
                    let mut all = seen.take();
                    all.push(HERE.get().base.addr());
                    seen.set(all);
                };
                thread.spawn("ult", ult("t", 0, body)).unwrap()
            })
            .collect();
        for task in tasks {
            assert_eq!(lockstep.block_on(&thread, task), Ok(Ok(Ok(()))));
        }
        let mut bases = bases.take();
        assert_eq!(bases.len(), 1000);
        bases.dedup();
        assert_eq!(bases.len(), 1);
        assert_eq!(
            lockstep.block_on(&thread, ult("t", usize::MAX / 2, || ())),
            Ok(Err(UltError::NoStack(Der::INVAL)))
        );
    }

    #[test]
    fn others_join_one_that_panics_and_inside_is_true_inside_only() {
        let mut lockstep = Lockstep::new();
        let thread = lockstep.thread("t");
        assert!(!inside());
        let first = thread.spawn(
            "first",
            ult("first", 0, || -> u32 {
                wait(spdk_thread::yield_now());
                assert!(!inside(), "panics: we are inside");
                0
            }),
        );
        let first = first.unwrap();
        let second = ult("second", 0, move || wait(first));
        assert_eq!(
            lockstep.block_on(&thread, second),
            Ok(Ok(Ok(Err(UltError::Panicked))))
        );
        assert!(!inside());
        assert!(catch_unwind(|| wait(spdk_thread::yield_now())).is_err());
    }
}
