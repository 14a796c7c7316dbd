//! Wakers both ways: the engine's as a Rust [`Waker`], a Rust [`Waker`] for the engine.
//!
//! Invariants:
//! - W1: a `dss_waker` is valid for the call that lends it; `clone` makes a reference that is ours until `wake` or
//!   `drop`. All four may be called from any thread (header), and the table of functions lives as long as the process.
//! - W2: `data` of our own `dss_waker` points to a `Waker`: lent for one call by [`lend`], or boxed by `clone`.
#![allow(unsafe_code, reason = "reference counts across the border")]

use module_abi::{dss_waker, dss_waker_vtbl};
use std::ffi::c_void;
use std::sync::Arc;
use std::task::{Wake, Waker};

/// A reference to an engine's waker.
struct EngineWaker(dss_waker);

// SAFETY: W1.
unsafe impl Send for EngineWaker {}
// SAFETY: W1.
unsafe impl Sync for EngineWaker {}

impl Wake for EngineWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // SAFETY: W1; we hold a reference.
        unsafe { ((*self.0.vtbl).wake_by_ref)(self.0.data) }
    }
}

impl Drop for EngineWaker {
    fn drop(&mut self) {
        // SAFETY: W1; this was our reference.
        unsafe { ((*self.0.vtbl).drop)(self.0.data) }
    }
}

/// The Rust waker of one task, made again only when the engine lends another one.
#[derive(Default)]
pub(crate) struct Cached(Option<(dss_waker, Waker)>);

impl Cached {
    /// # Safety
    /// `lent` is a waker that the engine lends for this call (W1).
    pub(crate) unsafe fn get(&mut self, lent: *const dss_waker) -> &Waker {
        // SAFETY: the caller's promise.
        let lent = unsafe { &*lent };
        // We hold a reference to the cached one, so its address cannot have become another waker's.
        let same =
            matches!(&self.0, Some((mine, _)) if mine.data == lent.data && mine.vtbl == lent.vtbl);
        if !same {
            // SAFETY: W1.
            let data = unsafe { ((*lent.vtbl).clone)(lent.data) };
            let mine = dss_waker {
                data,
                vtbl: lent.vtbl,
            };
            self.0 = Some((mine, Waker::from(Arc::new(EngineWaker(mine)))));
        }
        let (_, waker) = self.0.as_ref().unwrap_or_else(|| unreachable!("set above"));
        waker
    }
}

static RUST_WAKER: dss_waker_vtbl = dss_waker_vtbl {
    clone,
    wake,
    wake_by_ref,
    drop: drop_boxed,
};

/// A waker for the engine, valid while `waker` is borrowed; the engine clones it to keep it.
pub(crate) fn lend(waker: &Waker) -> dss_waker {
    dss_waker {
        data: std::ptr::from_ref(waker).cast_mut().cast(),
        vtbl: &RUST_WAKER,
    }
}

unsafe extern "C" fn clone(data: *mut c_void) -> *mut c_void {
    // SAFETY: W2.
    let waker = unsafe { &*data.cast::<Waker>() };
    Box::into_raw(Box::new(waker.clone())).cast()
}

unsafe extern "C" fn wake(data: *mut c_void) {
    // SAFETY: W2; only clones are woken by value.
    unsafe { Box::from_raw(data.cast::<Waker>()) }.wake();
}

unsafe extern "C" fn wake_by_ref(data: *mut c_void) {
    // SAFETY: W2.
    unsafe { &*data.cast::<Waker>() }.wake_by_ref();
}

unsafe extern "C" fn drop_boxed(data: *mut c_void) {
    // SAFETY: W2; only clones are dropped.
    drop(unsafe { Box::from_raw(data.cast::<Waker>()) });
}
