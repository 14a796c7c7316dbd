//! Which thread is being polled on this OS thread.

use crate::Thread;
use std::cell::RefCell;
use std::mem::ManuallyDrop;

thread_local! {
    /// Without a destructor, so that each access is one load: it is `None` whenever no turn is under way.
    static CURRENT: RefCell<ManuallyDrop<Option<Thread>>> = const { RefCell::new(ManuallyDrop::new(None)) };
}

/// The thread whose `poll()` is running on this OS thread (SPDK: `spdk_get_thread`).
#[must_use]
pub fn current() -> Option<Thread> {
    CURRENT.with(|current| Option::clone(&current.borrow()))
}

/// The number of the task that is being polled on this OS thread, as [`TaskInfo::id`](crate::TaskInfo::id) has it.
#[must_use]
pub fn running_task() -> Option<u32> {
    with_current(|thread| thread?.inner().tasks.running())
}

/// The number of the request that the running code works for, as [`traced`] set it or as the task inherited it from the code that
/// started it; 0: none, or no thread is being polled here.
#[must_use]
pub fn trace() -> u64 {
    with_current(|thread| thread.map_or(0, |thread| thread.inner().tasks.trace().get()))
}

/// Runs `f` in the name of a request: what it starts inherits the number, and [`trace`] gives it.
pub fn traced<R>(trace: u64, f: impl FnOnce() -> R) -> R {
    struct Back(u64);
    impl Drop for Back {
        fn drop(&mut self) {
            set(self.0);
        }
    }
    let _back = Back(set(trace));
    f()
}

/// Returns the number before.
fn set(trace: u64) -> u64 {
    with_current(|thread| thread.map_or(0, |thread| thread.inner().tasks.trace().replace(trace)))
}

/// As [`current`], without taking a reference.
#[inline]
pub(crate) fn with_current<R>(f: impl FnOnce(Option<&Thread>) -> R) -> R {
    CURRENT.with(|current| f(current.borrow().as_ref()))
}

/// Makes a thread the current one, inside its scope, until dropped; then the one before is current again.
pub(crate) struct Entered {
    before: Option<Thread>,
}

impl Entered {
    #[inline]
    pub(crate) fn new(thread: &Thread) -> Entered {
        let before = CURRENT.with(|current| swap(current, Some(thread.clone())));
        thread.inner().scope.enter();
        Entered { before }
    }
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        let entered = CURRENT.with(|current| swap(current, self.before.take()));
        if let Some(thread) = entered {
            thread.inner().scope.leave();
        }
    }
}

#[inline]
fn swap(current: &RefCell<ManuallyDrop<Option<Thread>>>, next: Option<Thread>) -> Option<Thread> {
    std::mem::replace(&mut **current.borrow_mut(), next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lockstep, Trace};

    #[test]
    fn what_a_request_starts_works_for_it() {
        let log = Trace::new();
        let mut lockstep = Lockstep::new();
        let thread = lockstep.thread("a");
        let (inner, own) = (thread.clone(), log.clone());
        let outer = async move {
            let start = || {
                let log = own.clone();
                let child = async move {
                    crate::yield_now().await;
                    log.log(format!("child {}", trace()));
                };
                inner.spawn("child", child).unwrap().detach();
                own.log(format!("inside {}", trace()));
            };
            traced(7, start);
            own.log(format!("after {}", trace()));
            crate::yield_now().await;
            own.log(format!("later {}", trace()));
        };
        thread.spawn("outer", outer).unwrap().detach();
        lockstep.step();
        let traces: Vec<u64> = thread.tasks().iter().map(|task| task.trace).collect();
        assert_eq!(traces, [0, 7]);
        (0..4).for_each(|_| {
            lockstep.step();
        });
        assert_eq!(log.take(), ["inside 7", "after 0", "later 0", "child 7"]);
        assert_eq!(
            (trace(), traced(3, trace)),
            (0, 0),
            "nothing is polled here"
        );
    }
}
