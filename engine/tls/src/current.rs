//! Which storage the code on this OS thread belongs to.
//!
//! Two thread-locals: a plain cell with the C view (read by `dss_tls_get()`, one load) and the counted handle for Rust.
//! Both change together when an xstream is entered or left, so an OS thread that hosts several xstreams never shows
//! one the values of another.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::ptr;

use crate::{Slots, Storage, XsInfo};

#[derive(Clone, Copy)]
pub(crate) struct Current {
    pub(crate) storage: *const Storage,
    pub(crate) info: XsInfo,
}

thread_local! {
    static STORAGE: Cell<*const Storage> = const { Cell::new(ptr::null()) };
    static INFO: Cell<Option<XsInfo>> = const { Cell::new(None) };
    static SLOTS: RefCell<Option<Slots>> = const { RefCell::new(None) };
}

/// Makes `slots` this OS thread's current storage until the guard drops; then the one before is current again.
pub fn enter(slots: &Slots) -> Entered {
    swap(Some(slots.as_current()), Some(slots.clone()))
}

/// Makes `slots` this OS thread's current storage and gives back the one before: for who enters and leaves often, since
/// nothing is counted. Undone by switching back.
#[inline]
pub fn switch(slots: Option<Slots>) -> Option<Slots> {
    STORAGE.set(slots.as_ref().map_or(ptr::null(), Slots::as_ptr));
    INFO.set(slots.as_ref().map(Slots::info));
    SLOTS.replace(slots)
}

/// The C view alone, while the values end and nobody may take a counted handle any more.
pub(crate) fn enter_for_teardown(current: Current) -> Entered {
    swap(Some(current), None)
}

/// The current storage's handle; `None` on an OS thread that has entered none.
pub fn current() -> Option<Slots> {
    SLOTS.with_borrow(Clone::clone)
}

/// The current storage as C sees it: what `dss_tls_get()` returns. Null on an OS thread that has entered none.
#[inline]
pub fn current_storage() -> *const Storage {
    STORAGE.get()
}

/// Who the current storage belongs to.
#[inline]
pub fn current_info() -> Option<XsInfo> {
    INFO.get()
}

fn swap(current: Option<Current>, slots: Option<Slots>) -> Entered {
    let storage = current.map_or(ptr::null(), |current| current.storage);
    Entered {
        storage: STORAGE.replace(storage),
        info: INFO.replace(current.map(|current| current.info)),
        slots: SLOTS.replace(slots),
        own_thread: PhantomData,
    }
}

/// Restores what was current before; see [`enter`]. Guards drop in reverse order of their making.
#[must_use = "the storage is left at once if the guard is dropped"]
#[derive(Debug)]
pub struct Entered {
    storage: *const Storage,
    info: Option<XsInfo>,
    slots: Option<Slots>,
    own_thread: PhantomData<*mut ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        STORAGE.set(self.storage);
        INFO.set(self.info);
        let left = SLOTS.replace(self.slots.take());
        // After the cells are whole again: this may be the last handle, whose destructors look at them.
        drop(left);
    }
}
