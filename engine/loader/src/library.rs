//! dlopen and dlsym.
//!
//! Invariant L1: a library that was opened stays open until the process ends. So every address taken from one, and
//! everything those addresses point to, is valid for `'static`.
#![allow(
    unsafe_code,
    reason = "opening a library runs its constructors; there is no safe way"
)]

use std::path::Path;

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use module_abi::dss_module;

/// Opens `path` for ever.
pub(crate) fn open(path: &Path) -> Result<Opened, String> {
    // SAFETY: L1 rules out the hazards of closing. Running the library's constructors is what loading a module means:
    // the operator named it, and search_path made sure that only its owner can have written it.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    library.map(Opened).map_err(|error| with_source(&error))
}

/// A library that is open for ever.
pub(crate) struct Opened(Library);

impl Opened {
    /// The descriptor `<name>_module`, not yet trusted.
    pub(crate) fn descriptor(self, name: &str) -> Option<*mut dss_module> {
        let symbol = format!("{name}_module");
        // SAFETY: the symbol is only turned into an address here; handshake.rs decides what may be read through it.
        let address = unsafe { self.0.get::<*mut dss_module>(symbol.as_bytes()) }
            .ok()
            .map(|symbol| symbol.into_raw().cast());
        // Keeps L1: the handle is given up, the library stays.
        let _ = self.0.into_raw();
        address
    }
}

fn with_source(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    source.unwrap_or_else(|| error.to_string())
}
