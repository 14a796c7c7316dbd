//! What surrounds a thread's turns: somebody who wants to know when its code begins and ends to run on this OS thread.

use crate::Thread;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Entered when a turn of the thread begins and left when it ends. The engine's xstreams switch their per-xstream storage
/// with it, since several threads share an OS thread.
pub trait Scope {
    /// The thread's code runs from here on.
    fn enter(&self);
    /// The thread's code does not run any more, until `enter` is called again.
    fn leave(&self);
}

/// A thread's scope, if it has one, and whether it is entered.
#[derive(Default)]
pub(crate) struct ScopeSlot {
    scope: RefCell<Option<Rc<dyn Scope>>>,
    entered: Cell<bool>,
}

impl ScopeSlot {
    #[inline]
    pub(crate) fn enter(&self) {
        if let Some(scope) = &*self.scope.borrow() {
            scope.enter();
            self.entered.set(true);
        }
    }

    #[inline]
    pub(crate) fn leave(&self) {
        if self.entered.replace(false)
            && let Some(scope) = &*self.scope.borrow()
        {
            scope.leave();
        }
    }
}

impl Thread {
    /// Sets what surrounds this thread's turns. From inside a turn it takes effect at once: the scope before is left and
    /// dropped, the new one is entered.
    pub fn set_scope(&self, scope: Option<Rc<dyn Scope>>) {
        let slot = &self.inner().scope;
        slot.leave();
        // Dropped with nothing borrowed: its destructor may use the thread.
        let before = slot.scope.replace(scope);
        drop(before);
        if self.is_polling() {
            slot.enter();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lockstep, Trace};

    struct Named(&'static str, Trace);

    impl Scope for Named {
        fn enter(&self) {
            self.1.log(format!("+{}", self.0));
        }
        fn leave(&self) {
            self.1.log(format!("-{}", self.0));
        }
    }

    #[test]
    fn a_scope_surrounds_each_turn_and_changes_inside_one() {
        let trace = Trace::new();
        let mut lockstep = Lockstep::new();
        let (a, b) = (lockstep.thread("a"), lockstep.thread("b"));
        a.set_scope(Some(Rc::new(Named("a", trace.clone()))));
        b.set_scope(Some(Rc::new(Named("b", trace.clone()))));
        lockstep.step();
        assert_eq!(trace.take(), ["+a", "-a", "+b", "-b"]);
        let (inside, log) = (a.clone(), trace.clone());
        let task = a.spawn("change", async move {
            inside.set_scope(Some(Rc::new(Named("c", log.clone()))));
            log.log("changed");
            inside.set_scope(None);
            log.log("none");
        });
        task.unwrap().detach();
        lockstep.step();
        assert_eq!(
            trace.take(),
            ["+a", "-a", "+c", "changed", "-c", "none", "+b", "-b"]
        );
        lockstep.step();
        assert_eq!(trace.take(), ["+b", "-b"]);
    }
}
