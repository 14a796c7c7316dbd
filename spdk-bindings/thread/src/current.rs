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
