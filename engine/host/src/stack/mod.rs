//! Functions on stacks of their own that wait in the middle: a future whose poll switches stacks.
//!
//! Invariants:
//! - S1: a stack is in use by one coroutine, from its first poll to its end; it stays on the OS thread of its task.
//! - S2: `INSIDE` points into the frame at the base of the coroutine that runs on this OS thread, and is NULL while none does.
//!   That frame, with the waker in it, lives until the coroutine ends.
//! - S3: a coroutine that has begun and not ended is never dropped: what is on its stack cannot be unwound (it may be C), so its
//!   memory is given up instead.
//! - S4: no panic leaves a coroutine's function: it is caught at the base.
#![allow(unsafe_code, reason = "switches stacks")]

mod memory;
mod overflow;

use corosensei::stack::Stack as _;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use daos_errno::Der;
use memory::StackMemory;
use std::cell::Cell;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::ptr::null;
use std::task::{Context, Poll, Waker};

pub(crate) use overflow::name_overflows;

type Resume = Yielder<(), ()>;
type Running<R> = Coroutine<(), (), Option<R>, StackMemory>;

/// What a coroutine knows of itself, in the frame at its base.
struct Inside {
    yielder: *const Resume,
    waker: Waker,
}

thread_local! {
    static INSIDE: Cell<*const Inside> = const { Cell::new(null()) };
}

/// A function on a stack of its own; polled on one OS thread.
pub(crate) struct Ult<R: 'static> {
    name: &'static str,
    /// Taken by the first poll, which is the one that knows the waker.
    body: Option<Box<dyn FnOnce() -> R>>,
    stack: Option<StackMemory>,
    coroutine: ManuallyDrop<Option<Running<R>>>,
    inside: *const Inside,
    waker: Option<Waker>,
    /// Where the stack's guard begins.
    guard: usize,
}

/// Runs `body` on a stack of `stack_size` bytes (0: the default) and what the engine's own functions need besides. `None`: it
/// panicked.
///
/// # Errors
/// `DER_NOMEM` without a stack.
pub(crate) fn ult<R: 'static>(
    name: &'static str,
    stack_size: usize,
    body: impl FnOnce() -> R + 'static,
) -> Result<Ult<R>, Der> {
    let stack = StackMemory::take(stack_size)?;
    Ok(Ult {
        name,
        body: Some(Box::new(body)),
        guard: stack.limit().get(),
        stack: Some(stack),
        coroutine: ManuallyDrop::new(None),
        inside: null(),
        waker: None,
    })
}

impl<R> Unpin for Ult<R> {}

impl<R: 'static> Future for Ult<R> {
    type Output = Option<R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        if let (Some(stack), Some(body)) = (self.stack.take(), self.body.take()) {
            let (name, waker) = (self.name, cx.waker().clone());
            self.waker = Some(waker.clone());
            let begun = Coroutine::with_stack(stack, move |yielder: &Resume, ()| {
                let inside = Inside { yielder, waker };
                INSIDE.set(&raw const inside);
                caught(name, body)
            });
            *self.coroutine = Some(begun);
        }
        let same = self
            .waker
            .as_ref()
            .is_some_and(|mine| mine.will_wake(cx.waker()));
        assert!(same, "a ULT is polled by its task, never by a combinator");
        let (name, guard, inside) = (self.name, self.guard, self.inside);
        let Some(coroutine) = &mut *self.coroutine else {
            return Poll::Ready(None);
        };
        let outer = INSIDE.replace(inside);
        let resumed = overflow::guarded(name, guard, || coroutine.resume(()));
        self.inside = INSIDE.replace(outer);
        match resumed {
            CoroutineResult::Yield(()) => Poll::Pending,
            CoroutineResult::Return(result) => {
                if let Some(ended) = self.coroutine.take() {
                    ended.into_stack().give_back();
                }
                Poll::Ready(result)
            }
        }
    }
}

impl<R> Drop for Ult<R> {
    fn drop(&mut self) {
        if let Some(stack) = self.stack.take() {
            stack.give_back();
        }
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
fn caught<R>(name: &'static str, body: Box<dyn FnOnce() -> R>) -> Option<R> {
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

/// Waits for a future on the ULT's own stack.
///
/// # Panics
/// Outside a ULT: the callers have looked.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    let inside = INSIDE.get();
    assert!(!inside.is_null(), "waiting outside a ULT");
    // SAFETY: S2: we are on its stack.
    let inside = unsafe { &*inside };
    let mut future = pin!(future);
    loop {
        let mut cx = Context::from_waker(&inside.waker);
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        // SAFETY: S1, S2: lives as long as the coroutine.
        unsafe { &*inside.yielder }.suspend(());
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
        let ults: Vec<_> = (0..3).map(|_| ult("t", 0, body).unwrap()).collect();
        let tasks: Vec<_> = ults
            .into_iter()
            .map(|ult| thread.spawn("ult", ult).unwrap())
            .collect();
        for task in tasks {
            assert_eq!(lockstep.block_on(&thread, task), Ok(Ok(Some(6))));
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
            lockstep.block_on(&thread, ult("t", 0, body).unwrap()),
            Ok(None)
        );
        assert_eq!(
            lockstep.block_on(&thread, ult("t", 0, || 7).unwrap()),
            Ok(Some(7))
        );
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
        drop(ult("never", 0, move || drop(held)).unwrap());
        assert_eq!(drops.get(), 1);
        let mut lockstep = Lockstep::new();
        let thread = lockstep.thread("t");
        let held = Held(Rc::clone(&drops));
        let waits = ult("waits", 0, move || {
            wait(std::future::pending::<()>());
            drop(held);
        });
        let task = thread.spawn("waits", waits.unwrap()).unwrap();
        lockstep.settle();
        task.abort();
        assert!(lockstep.block_on(&thread, task).unwrap().is_err());
        assert_eq!(drops.get(), 1, "C frames cannot be unwound");
    }
}
