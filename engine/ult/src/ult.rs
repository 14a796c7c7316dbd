//! A future whose poll switches stacks.
//!
//! Invariants:
//! - S1: a stack is in use by one coroutine, from its first poll to its end; it stays on the OS thread of its task.
//! - S2: `HERE.base` points into the frame at the base of the coroutine that runs on this OS thread, and is NULL while none does.
//!   That frame, with the waker in it, lives until the coroutine ends.
//! - S3: a coroutine that has begun and not ended is never dropped: what is on its stack cannot be unwound (it may be C), so its
//!   memory is given up instead.
//! - S4: no panic leaves a coroutine's function: it is caught at the base. An exception of another language, which Rust cannot catch,
//!   is stopped just inside: when it has come so far that all frames of the body are gone, the stack is left and never run again.
//! - S5: while a coroutine runs, `HERE.waker` points to the waker of the poll that runs it, which lives as long as that poll does.
#![allow(unsafe_code, reason = "switches stacks")]

use crate::list::{self, Owner};
use crate::memory::{Record, StackMemory};
use crate::{UltError, kept, overflow};
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::ptr::null;
use std::task::{Context, Poll, Waker};

type Resume = Yielder<(), ()>;
type Running<R> = Coroutine<(), (), Option<R>, StackMemory>;

/// The frame at the base of a coroutine.
struct Base {
    name: &'static str,
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
    owner: Option<Owner>,
    /// Of the coroutine's stack.
    record: *const Record,
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
        owner: None,
        record: null(),
    }
}

impl<F, R> Unpin for Ult<F, R> {}

impl<F: FnOnce() -> R + 'static, R: 'static> Ult<F, R> {
    /// Says whose it is, for [`stacks`](crate::stacks) and the message of an overflow.
    #[must_use]
    pub fn owned_by(mut self, owner: Option<Owner>) -> Self {
        self.owner = owner;
        self
    }

    fn begin(&mut self, body: F) -> Result<(), UltError> {
        let stack = kept::take(self.stack_size).inspect_err(|_| list::refused())?;
        let (name, record) = (self.name, stack.record());
        record.name.set(name);
        record.owner.set(self.owner);
        self.record = record;
        let begun = Coroutine::with_stack(stack, move |yielder: &Resume, ()| {
            let base = Base {
                name,
                yielder,
                waker: OnceCell::new(),
            };
            HERE.set(Here {
                base: &raw const base,
                ..HERE.get()
            });
            caught(&base, body)
        });
        *self.coroutine = Some(begun);
        Ok(())
    }
}

impl<F, R> Ult<F, R> {
    /// Its coroutine has ended.
    fn end(&mut self, result: Option<R>) -> Poll<Result<R, UltError>> {
        self.base = null();
        if let Some(ended) = self.coroutine.take() {
            let stack = ended.into_stack();
            stack.record().owner.set(None);
            kept::give_back(stack);
        }
        Poll::Ready(result.ok_or(UltError::Panicked))
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
        let (record, base) = (self.record, self.base);
        let coroutine = self.coroutine.as_mut();
        let coroutine = coroutine.expect("a ULT was polled after its end");
        let outer = HERE.replace(Here {
            base,
            waker: cx.waker(),
        });
        let resumed = overflow::guarded(record, || coroutine.resume(()));
        let here = HERE.replace(outer);
        match resumed {
            CoroutineResult::Yield(()) if !here.base.is_null() => {
                self.base = here.base;
                Poll::Pending
            }
            CoroutineResult::Yield(()) => {
                // SAFETY: S4: only the frames of the base are left, which own nothing any more.
                unsafe { coroutine.force_reset() };
                self.end(None)
            }
            CoroutineResult::Return(result) => self.end(result),
        }
    }
}

impl<F, R> Drop for Ult<F, R> {
    fn drop(&mut self) {
        if self.coroutine.is_some() {
            // SAFETY: S3: the stack stays, and its record; it is nobody's from now on.
            unsafe { &*self.record }.owner.set(None);
            tracing::error!(
                ult = self.name,
                "dropped before its end: its stack stays, and what is on it"
            );
        }
    }
}

/// S4: the base of every stack.
fn caught<R>(base: &Base, body: impl FnOnce() -> R) -> Option<R> {
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let mut border = Border {
            base,
            passed: false,
        };
        let result = body();
        border.passed = true;
        result
    }));
    caught
        .inspect_err(|panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            let panic = text.unwrap_or_else(|| "no text".to_owned());
            tracing::error!(ult = base.name, panic, "a ULT panicked");
        })
        .ok()
}

/// Dropped by what unwinds the body, unless that came to its end. A panic goes on, to where it is caught; anything else would end the process there.
struct Border<'a> {
    base: &'a Base,
    passed: bool,
}

impl Drop for Border<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.passed && !std::thread::panicking() {
            self.base.leave();
        }
    }
}

impl Base {
    /// Leaves the stack for good.
    #[cold]
    fn leave(&self) {
        tracing::error!(
            ult = self.name,
            "an exception of another language left the function of a ULT; its memory is lost"
        );
        // SAFETY: S4: nobody comes back to the base, whose waker is dropped here instead of there.
        drop(unsafe { std::ptr::read(&raw const self.waker) });
        HERE.set(Here {
            base: null(),
            ..HERE.get()
        });
        // SAFETY: S1, S2.
        unsafe { &*self.yielder }.suspend(());
        std::process::abort(); // S4: it is never resumed
    }
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
    use crate::{StackError, StackStats, StackUse, stack_stats, stacks};
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
            Ok(Err(UltError::NoStack(StackError::TooLarge(usize::MAX / 2))))
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

    /// Bytes that the frames of `levels` calls take at least.
    fn deeper(levels: usize) -> u8 {
        let frame = [levels as u8; 1024];
        let frame = std::hint::black_box(&frame);
        if levels == 0 {
            frame[0]
        } else {
            deeper(levels - 1).wrapping_add(frame[7])
        }
    }

    #[test]
    fn stacks_in_use_are_listed_by_owner_with_what_was_touched() {
        let mut lockstep = Lockstep::new();
        let thread = lockstep.thread("t");
        let start = |xstream, task, levels, size| {
            let body = move || {
                std::hint::black_box(deeper(levels));
                wait(spdk_thread::sleep(5));
            };
            let owned = ult("t", size, body).owned_by(Some(Owner { xstream, task }));
            thread.spawn("t", owned).unwrap()
        };
        let tasks = [
            start("a", 4, 1, 0),
            start("a", 5, 40, 1 << 20),
            start("b", 4, 1, 0),
        ];
        assert_eq!(stacks("a"), [], "none has begun");
        lockstep.settle();
        let mut listed = stacks("a");
        listed.sort_by_key(|(task, _)| *task);
        let [(4, shallow), (5, deep)] = listed[..] else {
            panic!("{listed:?}");
        };
        assert_eq!(shallow.size, 128 << 10);
        assert!(
            shallow.deepest > 0 && shallow.deepest < 40 << 10,
            "{shallow:?}"
        );
        assert_eq!(deep.size, (1 << 20) + (64 << 10));
        assert!(
            deep.deepest > 40 << 10 && deep.deepest < 200 << 10,
            "{deep:?}"
        );
        assert_eq!(stack_stats().in_use, 3);
        for task in tasks {
            assert_eq!(lockstep.block_on(&thread, task), Ok(Ok(Ok(()))));
        }
        assert_eq!((stacks("a"), stacks("b")), (vec![], vec![]));
        let stats = stack_stats();
        assert_eq!((stats.in_use, stats.kept, stats.refused), (0, 3, 0));
        // The large one is there again, and shows nothing of its past.
        let again = start("a", 6, 1, 1 << 20);
        lockstep.settle();
        let (6, StackUse { deepest, .. }) = stacks("a")[0] else {
            panic!("not listed");
        };
        assert!(deepest < 40 << 10, "{deepest}");
        assert_eq!(lockstep.block_on(&thread, again), Ok(Ok(Ok(()))));
        drop(lockstep.block_on(&thread, ult("t", usize::MAX, || ())));
        let StackStats { refused, .. } = stack_stats();
        assert_eq!(refused, 1);
    }
}
