//! Wakers across the border, from the engine's side.
//!
//! Invariants, besides H1 and H3 of `guard.rs`:
//! - W1: `data` of our own `dss_waker` is an `Arc<Waker>`'s pointer; every clone holds a count.
//! - W2: a module's waker is valid for the call that lends it; a clone until `wake` or `drop`; all four functions may be
//!   called from any thread.
#![allow(unsafe_code, reason = "reference counts across the border")]

use module_abi::{dss_waker, dss_waker_vtbl};
use std::ffi::c_void;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

static VTBL: dss_waker_vtbl = dss_waker_vtbl {
    clone,
    wake,
    wake_by_ref,
    drop: drop_one,
};

/// The waker of one task for the module, made again only when the runtime gives another.
#[derive(Default)]
pub(crate) struct Lent(Option<Arc<Waker>>);

impl Lent {
    pub(crate) fn get(&mut self, cx: &Context<'_>) -> dss_waker {
        let waker = match &mut self.0 {
            Some(waker) if waker.will_wake(cx.waker()) => waker,
            other => other.insert(Arc::new(cx.waker().clone())),
        };
        dss_waker {
            data: Arc::as_ptr(waker).cast_mut().cast(),
            vtbl: &VTBL,
        }
    }
}

unsafe extern "C" fn clone(data: *mut c_void) -> *mut c_void {
    // SAFETY: W1.
    unsafe { Arc::increment_strong_count(data.cast::<Waker>()) };
    data
}

unsafe extern "C" fn wake(data: *mut c_void) {
    // SAFETY: W1: the caller's count.
    unsafe { Arc::from_raw(data.cast::<Waker>()) }.wake_by_ref();
}

unsafe extern "C" fn wake_by_ref(data: *mut c_void) {
    // SAFETY: W1.
    unsafe { &*data.cast::<Waker>() }.wake_by_ref();
}

unsafe extern "C" fn drop_one(data: *mut c_void) {
    // SAFETY: W1: the caller's count.
    drop(unsafe { Arc::from_raw(data.cast::<Waker>()) });
}

/// A module's waker, kept.
pub(crate) struct Kept(dss_waker);

impl Kept {
    /// A clone of a lent one; `None` when it is no waker.
    ///
    /// # Safety
    /// `lent` is NULL or lent by a module for this call (W2).
    pub(crate) unsafe fn clone_of(lent: *const dss_waker) -> Option<Kept> {
        // SAFETY: the caller's promise.
        let lent = unsafe { lent.as_ref()? };
        // SAFETY: W2.
        let vtbl = unsafe { lent.vtbl.as_ref()? };
        // SAFETY: W2.
        let data = unsafe { (vtbl.clone)(lent.data) };
        Some(Kept(dss_waker {
            data,
            vtbl: lent.vtbl,
        }))
    }

    /// Whether `lent` is the one that this is a clone of.
    ///
    /// # Safety
    /// As [`Kept::clone_of`].
    pub(crate) unsafe fn is(&self, lent: *const dss_waker) -> bool {
        // SAFETY: the caller's promise. While we hold a count, the address is no other waker's.
        let lent = unsafe { lent.as_ref() };
        lent.is_some_and(|lent| lent.data == self.0.data && lent.vtbl == self.0.vtbl)
    }

    pub(crate) fn wake(&self) {
        // SAFETY: W2: ours.
        unsafe { ((*self.0.vtbl).wake_by_ref)(self.0.data) }
    }
}

// SAFETY: W2: any thread.
unsafe impl Send for Kept {}
// SAFETY: W2: any thread.
unsafe impl Sync for Kept {}

impl Wake for Kept {
    fn wake(self: Arc<Self>) {
        Kept::wake(&self);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: W2: ours.
        unsafe { ((*self.0.vtbl).drop)(self.0.data) }
    }
}
