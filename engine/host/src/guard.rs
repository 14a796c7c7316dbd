//! Who may call what, where and when: the header's tags at run time.
//!
//! Invariants that the unsafe sites of this crate rest on:
//! - H1: pointers that a module passes are what the header says: borrowed for the call, NUL-terminated where they are
//!   names, long enough where a length goes with them, writable where they are results. A NULL is checked for.
//! - H2: a descriptor and what it points to live as long as the process and do not change (invariant D of `module_abi`):
//!   libraries are never unloaded. Its functions are called where their tags allow.
//! - H3: what a module gives away (`data` of a task, `arg` of a call-back) is passed on untouched and only to the
//!   functions that came with it: on one xstream, one call at a time.
//! - H4: no panic leaves a function of the table: each runs inside [`entry`].

use crate::here::{self, Here};
use crate::hooks;
use crate::modules::{self, ModuleEntry};
use crate::ult::{Running, os_thread_ends, running};
use daos_errno::Der;
use module_abi::dss_module;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// The header's place tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// \[xs\]
    Xstream,
    /// \[xs:sys\]
    System,
    /// \[xs:main\]
    Main,
}

impl Place {
    fn text(self) -> &'static str {
        match self {
            Place::Xstream => "an xstream",
            Place::System => "the system xstream",
            Place::Main => "a target's main xstream",
        }
    }
}

/// Runs a function of the table; a panic of the engine's own code answers `default` (H4), and so does a call from a destructor of an OS
/// thread at its end, where nothing of the engine can be used any more, its log included.
pub(crate) fn entry<R>(function: &'static str, default: R, f: impl FnOnce() -> R) -> R {
    if os_thread_ends() {
        return default;
    }
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        tracing::error!(
            function,
            panic = text,
            "the engine panicked in a call from a module"
        );
        default
    })
}

/// The same for functions that answer 0 or a negative error.
pub(crate) fn coded(function: &'static str, f: impl FnOnce() -> Result<(), Der>) -> i32 {
    entry(function, Der::MISC.neg(), || {
        f().map_or_else(Der::neg, |()| 0)
    })
}

/// The module behind `self`. An unknown one is refused: it was never loaded, or it is gone.
pub(crate) fn module(
    function: &'static str,
    module: *const dss_module,
) -> Result<&'static ModuleEntry, Der> {
    modules::find(module).ok_or_else(|| {
        tracing::error!(
            function,
            "called with a descriptor that no engine has loaded"
        );
        Der::INVAL
    })
}

/// The xstream that calls, if it is one of the wanted.
pub(crate) fn place(
    function: &'static str,
    caller: Option<&ModuleEntry>,
    wanted: Place,
) -> Result<Rc<Here>, Der> {
    let here = here::current();
    let right = here.as_ref().is_some_and(|here| match wanted {
        Place::Xstream => true,
        Place::System => here.is_system(),
        Place::Main => here.is_main(),
    });
    here.filter(|_| right).ok_or_else(|| {
        let module = caller.map_or("?", |module| module.name.as_str());
        let xstream = here::current().map_or(-1, |here| here.info.dmi_xs_id);
        tracing::error!(
            module,
            function,
            xstream,
            "called from the wrong place: allowed on {} only",
            wanted.text()
        );
        Der::OP_NOT_PERMITTED
    })
}

/// The header's \[ult\]: the ULT that calls, if it has a stack of its own to wait on. Not while a panic unwinds it: Rust counts panics by
/// OS thread, so others that ran meanwhile would take it for theirs.
pub(crate) fn ult(function: &'static str) -> Result<Rc<Running>, Der> {
    if std::thread::panicking() {
        tracing::error!(
            function,
            "called while a panic unwinds: what is dropped then must not wait"
        );
        return Err(Der::OP_NOT_PERMITTED);
    }
    // A hook runs on whatever stack the system xstream is on, and holds the machine.
    running().filter(|_| !hooks::inside()).ok_or_else(|| {
        let xstream = here::current().map_or(-1, |here| here.info.dmi_xs_id);
        tracing::error!(
            function,
            xstream,
            "called from the wrong place: allowed in a ULT with a stack of its own only"
        );
        Der::OP_NOT_PERMITTED
    })
}

/// The header's \[serving\].
pub(crate) fn serving(function: &'static str, module: &ModuleEntry) -> Result<(), Der> {
    let state = module.state();
    if state.serves() {
        return Ok(());
    }
    let name = module.name.as_str();
    tracing::error!(
        module = name,
        function,
        state = state.text(),
        "called in the wrong state: allowed from setup to cleanup"
    );
    Err(Der::OP_NOT_PERMITTED)
}

/// Names what is wrong with a handle.
pub(crate) fn bad_handle(function: &'static str) -> impl FnOnce(Der) -> Der {
    move |der| {
        let why = if der == Der::OP_NOT_PERMITTED {
            "of another xstream"
        } else {
            "stale, of another kind or none"
        };
        tracing::error!(function, "called with a handle that is {why}");
        der
    }
}
