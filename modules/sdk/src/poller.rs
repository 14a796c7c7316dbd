//! Pollers: a function that this xstream calls every turn, or every period.
//!
//! Invariants, besides E1 to E3 of `engine.rs`:
//! - P1: `arg` is an `Rc<State>` reference that the registration owns; it is given up after `poller_unregister`, from
//!   which on the engine calls the function no more.
#![allow(unsafe_code, reason = "hands a closure to the engine")]

use crate::engine::{self, contained};
use crate::task::c_name;
use daos_errno::Der;
use module_abi::dss_poller;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

/// A registered poller; dropping it unregisters it, also from inside the poller itself.
pub struct Poller {
    raw: NonNull<dss_poller>,
    state: Rc<State>,
}

struct State {
    registered: Cell<bool>,
    function: RefCell<Option<Box<dyn FnMut() -> bool>>>,
}

/// Calls `f` on this xstream every turn (`Duration::ZERO`) or every period. It answers whether it did something. A poller
/// that panics is not called again.
///
/// # Errors
/// `DER_NOMEM` when the engine takes no more, or off xstreams.
pub fn poller(
    name: &str,
    period: Duration,
    f: impl FnMut() -> bool + 'static,
) -> Result<Poller, Der> {
    let state = Rc::new(State {
        registered: Cell::new(true),
        function: RefCell::new(Some(Box::new(f))),
    });
    let arg = Rc::into_raw(Rc::clone(&state));
    let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
    let name = c_name(name);
    let host = engine::host();
    // SAFETY: E1, E2, P1; the name is borrowed for the call.
    let raw = unsafe {
        (host.poller_register)(
            engine::module(),
            name.as_ptr(),
            period,
            Some(call),
            arg.cast_mut().cast(),
        )
    };
    match NonNull::new(raw) {
        Some(raw) => Ok(Poller { raw, state }),
        None => {
            // SAFETY: P1; never registered.
            drop(unsafe { Rc::from_raw(arg) });
            Err(Der::NOMEM)
        }
    }
}

unsafe extern "C" fn call(arg: *mut c_void) -> i32 {
    contained("a poller", 0, || {
        let state = arg.cast::<State>().cast_const();
        // SAFETY: P1; one more reference for this call, in which the poller may drop itself.
        let state = unsafe {
            Rc::increment_strong_count(state);
            Rc::from_raw(state)
        };
        let Some(mut function) = state.function.borrow_mut().take() else {
            return 0;
        };
        let busy = function();
        if state.registered.get() {
            *state.function.borrow_mut() = Some(function);
        }
        i32::from(busy)
    })
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.state.registered.set(false);
        // SAFETY: ours; on its xstream, for `Poller` is not `Send`.
        unsafe { (engine::host().poller_unregister)(self.raw.as_ptr()) };
        // SAFETY: P1; the registration's reference.
        drop(unsafe { Rc::from_raw(Rc::as_ptr(&self.state)) });
        let function = self.state.function.borrow_mut().take();
        drop(function);
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Poller").field(&self.raw).finish()
    }
}
