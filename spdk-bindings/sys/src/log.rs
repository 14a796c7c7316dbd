//! What SPDK and DPDK log goes to `tracing`, on whatever OS thread they log.
#![allow(unsafe_code, reason = "reads texts that C gives")]
//! - **L1** origin and text are valid for the call; origin ends in a zero, text has `length` bytes.

use core::ffi::{CStr, c_char, c_int};
use core::slice;
use std::sync::{Mutex, PoisonError};

use crate::ffi;

/// Errors and warnings since the last [`begin`]: the reason of a failure is what the library said just before it.
static SAID: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// More explain nothing.
const MOST: usize = 16;

/// Sends both logs here. 0, or a negative errno.
pub(crate) fn open() -> i32 {
    // SAFETY: `said` has the announced signature and does not unwind.
    let rc = unsafe { ffi::ks_log_open(said) };
    let level = if tracing::enabled!(target: "spdk", tracing::Level::DEBUG) {
        4
    } else if tracing::enabled!(target: "spdk", tracing::Level::INFO) {
        3
    } else {
        1
    };
    // SAFETY: no more than a number is stored.
    unsafe { ffi::ks_log_set_level(level) };
    rc
}

/// From here on what goes wrong is kept.
pub(crate) fn begin() {
    *SAID.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
}

/// What went wrong since [`begin`], and no more is kept.
pub(crate) fn end() -> Vec<String> {
    let said = SAID.lock().unwrap_or_else(PoisonError::into_inner).take();
    said.unwrap_or_default()
}

unsafe extern "C" fn said(level: c_int, origin: *const c_char, text: *const c_char, length: usize) {
    // SAFETY: L1.
    let (origin, text) = unsafe {
        (
            CStr::from_ptr(origin),
            slice::from_raw_parts(text.cast::<u8>(), length),
        )
    };
    let (origin, text) = (origin.to_string_lossy(), String::from_utf8_lossy(text));
    // A subscriber that panics must not unwind into C.
    let _ = std::panic::catch_unwind(|| tell(level, &origin, &text));
}

fn tell(level: c_int, origin: &str, text: &str) {
    if level <= 1
        && let Some(said) = &mut *SAID.lock().unwrap_or_else(PoisonError::into_inner)
        && said.len() < MOST
    {
        said.push(text.to_owned());
    }
    match level {
        0 => tracing::error!(target: "spdk", origin, "{text}"),
        1 => tracing::warn!(target: "spdk", origin, "{text}"),
        // A notice is what both libraries say on every start.
        2 | 3 => tracing::info!(target: "spdk", origin, "{text}"),
        _ => tracing::debug!(target: "spdk", origin, "{text}"),
    }
}
