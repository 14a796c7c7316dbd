//! Names of modules' tasks and pollers, kept for ever: the runtime wants `&'static str`.
//!
//! Bounded: past [`NAMES_MAX`] different names, new ones are all shown under the module's name alone.
#![allow(unsafe_code, reason = "reads a module's C string")]

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, c_char};
use std::sync::{Mutex, PoisonError};

use crate::modules::ModuleEntry;

/// Different names in one process.
const NAMES_MAX: usize = 8192;
/// Bytes of a name that are looked at.
const NAME_LEN: usize = 64;

static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);

type ByName = HashMap<Box<[u8]>, &'static str>;

thread_local! {
    /// What this OS thread has seen, by module: no lock and no allocation for a name that was used before.
    static SEEN: RefCell<HashMap<usize, ByName>> = RefCell::default();
}

/// `<module>:<name>`.
pub(crate) fn task_name(module: &'static ModuleEntry, name: &CStr) -> &'static str {
    let bytes = name.to_bytes();
    let bytes = &bytes[..bytes.len().min(NAME_LEN)];
    SEEN.with_borrow_mut(|seen| {
        let names = seen.entry(std::ptr::from_ref(module).addr()).or_default();
        if let Some(known) = names.get(bytes) {
            return *known;
        }
        let full = format!("{}:{}", module.name, String::from_utf8_lossy(bytes));
        let kept = kept(full)
            .or_else(|| kept(module.name.clone()))
            .unwrap_or("module");
        if names.len() < NAMES_MAX {
            names.insert(bytes.into(), kept);
        }
        kept
    })
}

/// The text for ever; `None` for a new one at the bound.
pub(crate) fn kept(text: String) -> Option<&'static str> {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let names = names.get_or_insert_default();
    if let Some(known) = names.get(text.as_str()) {
        return Some(known);
    }
    if names.len() >= NAMES_MAX {
        return None;
    }
    let text: &'static str = Box::leak(text.into_boxed_str());
    names.insert(text);
    Some(text)
}

/// A module's text; NULL is the empty one.
///
/// # Safety
/// `text` is NULL or a C string that lives for `'a` (H1 of `guard.rs`).
pub(crate) unsafe fn c_text<'a>(text: *const c_char) -> &'a CStr {
    if text.is_null() {
        return c"";
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }
}
