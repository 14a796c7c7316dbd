//! Work that was offered and refused stays the module's.
//!
//! The runtime drops a closure or future that it refuses, inside the refusing call. What a module gave must then not be
//! ended: it is still the module's. The flag says so to the drops of that call.

use std::cell::Cell;

thread_local! {
    static OFFERING: Cell<bool> = const { Cell::new(false) };
}

/// Offers work: while `f` runs, drops of [`is_offering`] work are refusals.
pub(crate) fn offering<R>(f: impl FnOnce() -> R) -> R {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            OFFERING.set(self.0);
        }
    }
    let _reset = Reset(OFFERING.replace(true));
    f()
}

/// Whether a drop now is a refusal.
pub(crate) fn is_offering() -> bool {
    OFFERING.get()
}
