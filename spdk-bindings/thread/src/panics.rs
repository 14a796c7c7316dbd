//! Panics do not cross a message, a poller or a task: they are caught, named, counted.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a panic said.
pub(crate) fn text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a text".to_owned()
    }
}

/// Runs `f`; a panic comes back as its text.
#[inline]
pub(crate) fn contain<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let said = text(&*payload);
        // The payload is the user's: dropping it may panic as well.
        if catch_unwind(AssertUnwindSafe(|| drop(payload))).is_err() {
            return format!("{said} (and its payload panicked when dropped)");
        }
        said
    })
}
