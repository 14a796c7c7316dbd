//! The values of one xstream, from its start to its end.

use std::any::Any;
use std::cell::{OnceCell, RefCell};
use std::ffi::c_void;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::Arc;

use crate::current::{self, Current};
use crate::error::panic_text;
use crate::registry::{Key, Make};
use crate::{KEYS, KeyIndex, KeyRegistry, Storage, TlsError, XsInfo};

/// One xstream's values. `!Send`: they are made, used and ended on one OS thread. Clones share the values; the last
/// one, or [`Slots::destroy`], ends them.
#[derive(Clone)]
pub struct Slots {
    inner: Rc<Inner>,
}

struct Inner {
    info: XsInfo,
    /// Counted on its own: its address never changes, and ending the values borrows nothing that C points at.
    storage: Rc<Storage>,
    typed: [OnceCell<Box<dyn Any>>; KEYS],
    /// What was made, in order, with the key that made it: its destructor stays reachable whatever the registry does.
    made: RefCell<Vec<(KeyIndex, Arc<Key>)>>,
}

impl Slots {
    /// Makes a value for every key that matches `info.tags`, in ascending slot order. A constructor may use
    /// [`crate::current`] and sees the values of lower slots. If one fails, the values already made are ended in
    /// descending order and the error names the key.
    pub fn build(registry: &KeyRegistry, info: XsInfo) -> Result<Slots, TlsError> {
        let inner = Inner {
            info,
            storage: Rc::new(Storage::new(info.tags)),
            typed: [const { OnceCell::new() }; KEYS],
            made: RefCell::default(),
        };
        let slots = Slots {
            inner: Rc::new(inner),
        };
        let entered = current::enter(&slots);
        for (index, key) in registry.snapshot() {
            if key.tags.matches(info.tags) {
                // On failure both `entered` and `slots` are dropped on the way out, which undoes.
                slots.make(index, key)?;
            }
        }
        drop(entered);
        Ok(slots)
    }

    /// Ends all values in descending slot order, on this OS thread. Destructors that panic are reported; the others
    /// still run. Refused, giving the storage back, while another clone of it exists.
    pub fn destroy(mut self) -> Result<Vec<TlsError>, Slots> {
        match Rc::get_mut(&mut self.inner) {
            Some(inner) => Ok(inner.tear_down()),
            None => Err(self),
        }
    }

    /// Who this storage belongs to.
    #[inline]
    pub fn info(&self) -> XsInfo {
        self.inner.info
    }

    /// The C view. The address is good until the storage ends; only this OS thread may follow it.
    #[inline]
    pub fn as_ptr(&self) -> *const Storage {
        Rc::as_ptr(&self.inner.storage)
    }

    /// A raw key's value; null where the key has none here.
    #[inline]
    pub fn get(&self, index: KeyIndex) -> *mut c_void {
        self.inner.storage.get(index.slot())
    }

    #[inline]
    pub(crate) fn typed<T: 'static>(&self, index: KeyIndex) -> Option<&T> {
        // The mask stands for the bounds check: indices are below KEYS, a power of two.
        self.inner.typed[index.slot() & (KEYS - 1)]
            .get()?
            .downcast_ref()
    }

    pub(crate) fn as_current(&self) -> Current {
        Current {
            storage: self.as_ptr(),
            info: self.inner.info,
        }
    }

    fn make(&self, index: KeyIndex, key: Arc<Key>) -> Result<(), TlsError> {
        let info = &self.inner.info;
        let made = catch_unwind(AssertUnwindSafe(|| match &key.make {
            Make::Raw { init, .. } => {
                init(info).map(|value| self.inner.storage.set(index.slot(), value.as_ptr()))
            }
            // The cell is empty: a slot is built once.
            Make::Typed(init) => {
                init(info).map(|value| drop(self.inner.typed[index.slot()].set(value)))
            }
        }));
        match made {
            Ok(Some(())) => {
                self.inner.made.borrow_mut().push((index, key));
                Ok(())
            }
            Ok(None) => Err(TlsError::no_value(&key.name, info)),
            Err(payload) => Err(TlsError::InitPanicked {
                name: key.name.clone(),
                xs_id: info.xs_id,
                message: panic_text(&*payload),
            }),
        }
    }
}

impl Inner {
    /// Ends what was made, last first. While a destructor runs, [`current::current_storage`] still shows its own value
    /// and the lower ones: a module's destructor may use what its constructor could use.
    fn tear_down(&mut self) -> Vec<TlsError> {
        let _current = current::enter_for_teardown(Current {
            storage: Rc::as_ptr(&self.storage),
            info: self.info,
        });
        let mut problems = Vec::new();
        let mut made = self.made.take();
        while let Some((index, key)) = made.pop() {
            let slot = index.slot();
            let typed = self.typed[slot].take();
            let raw = NonNull::new(self.storage.get(slot));
            let info = self.info;
            let ended = catch_unwind(AssertUnwindSafe(|| match (&key.make, raw) {
                (Make::Raw { fini, .. }, Some(value)) => fini(&info, value),
                _ => drop(typed),
            }));
            self.storage.set(slot, ptr::null_mut());
            if let Err(payload) = ended {
                let (name, message) = (key.name.clone(), panic_text(&*payload));
                problems.push(TlsError::FiniPanicked {
                    name,
                    xs_id: info.xs_id,
                    message,
                });
            }
        }
        problems
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody is left to tell; whoever wants to know calls `destroy`.
        let _ = self.tear_down();
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made: Vec<usize> = self
            .inner
            .made
            .borrow()
            .iter()
            .map(|(index, _)| index.slot())
            .collect();
        f.debug_struct("Slots")
            .field("info", &self.inner.info)
            .field("made", &made)
            .finish()
    }
}

#[cfg(test)]
mod tests;
