//! [`Poller`]: a function that SPDK calls on one of its threads.
#![allow(unsafe_code, reason = "hands a closure to SPDK")]
//! - **P1** the argument is a `Body` that the `Poller` holds; SPDK calls it in a turn of the poller's thread only, and not after it was
//!   unregistered, which `drop` does first. One that unregisters itself is held by its own call meanwhile.

use core::cell::{Cell, RefCell};
use core::ffi::{c_int, c_void};
use core::fmt;
use core::ptr::NonNull;
use std::ffi::CString;
use std::rc::Rc;

use crate::ffi;
use crate::thread::{Core, Thread, contained};

type Function = Box<dyn FnMut() -> bool>;

struct Body {
    /// Absent after the end.
    function: RefCell<Option<Function>>,
    gone: Cell<bool>,
}

/// A registered poller (`struct spdk_poller`); `!Send`. Dropping it unregisters it, then drops its function; both are legal from inside
/// the function itself.
///
/// ```compile_fail,E0277
/// fn goes_elsewhere(poller: spdk_sys::Poller) {
///     std::thread::spawn(move || drop(poller));
/// }
/// ```
#[must_use = "dropping a Poller unregisters it"]
pub struct Poller {
    raw: NonNull<ffi::Poller>,
    body: Rc<Body>,
    core: Rc<Core>,
    paused: Cell<bool>,
}

impl Poller {
    /// Has `f` called in every turn of `thread`, or every `period_us` microseconds if that is not 0; it says whether it was busy. A panic
    /// comes out of [`Thread::poll`]. `None`: SPDK has no memory left.
    pub fn register<M: Send>(
        thread: &Thread<M>,
        name: &str,
        period_us: u64,
        f: impl FnMut() -> bool + 'static,
    ) -> Option<Poller> {
        let core = Rc::clone(thread.core());
        let body = Rc::new(Body {
            function: RefCell::new(Some(Box::new(f))),
            gone: Cell::new(false),
        });
        let name = CString::new(name).unwrap_or_default();
        let entered = core.enter();
        let arg = Rc::as_ptr(&body).cast_mut().cast();
        // SAFETY: P1; the thread is current; the name is copied.
        let raw = unsafe { ffi::ks_poller_register(call, arg, period_us, name.as_ptr()) };
        drop(entered);
        Some(Poller {
            raw: NonNull::new(raw)?,
            body,
            core,
            paused: Cell::new(false),
        })
    }

    /// Stops calling it until it is resumed.
    pub fn pause(&self) {
        if !self.paused.replace(true) {
            let _entered = self.core.enter();
            // SAFETY: P1: registered, and its thread is current.
            unsafe { ffi::ks_poller_pause(self.raw.as_ptr()) };
        }
    }

    /// Calls it again; a timed one a period from now.
    pub fn resume(&self) {
        if self.paused.replace(false) {
            let _entered = self.core.enter();
            // SAFETY: as in `pause`.
            unsafe { ffi::ks_poller_resume(self.raw.as_ptr()) };
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        let entered = self.core.enter();
        // SAFETY: P1: registered once, unregistered once, its thread is current.
        unsafe { ffi::ks_poller_unregister(self.raw.as_ptr()) };
        drop(entered);
        self.body.gone.set(true);
        // While it runs it is its call that drops it.
        if let Ok(mut function) = self.body.function.try_borrow_mut() {
            let function = function.take();
            drop(function);
        }
    }
}

unsafe extern "C" fn call(body: *mut c_void) -> c_int {
    let body = body.cast_const().cast::<Body>();
    // SAFETY: P1: alive now; the reference that is counted here keeps it alive if its poller goes meanwhile.
    let body = unsafe {
        Rc::increment_strong_count(body);
        Rc::from_raw(body)
    };
    let busy = contained(|| {
        let busy = match body.function.try_borrow_mut().as_deref_mut() {
            Ok(Some(function)) => function(),
            // A poller that has its thread polled from inside itself.
            _ => false,
        };
        if body.gone.get() {
            let function = body.function.borrow_mut().take();
            drop(function);
        }
        busy
    });
    c_int::from(busy == Some(true))
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("paused", &self.paused)
            .finish_non_exhaustive()
    }
}
