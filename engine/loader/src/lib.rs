//! Opens modules, checks them, orders them, drives the first and last step of their life.
//!
//! Mechanism only: it knows the ABI ([`module_abi`]) and the file system, no xstream and no network. What a module
//! may call lives in `engine_host`; the two meet in [`Registrar`].
//!
//! ```text
//! names ──search_path──> file ──library──> dlopen ──handshake──> LoadedModule ──order──> Modules::load
//!                                                                              └─lifecycle─> init .. fini
//! ```
//!
//! A library is opened with `RTLD_NOW | RTLD_LOCAL` (a missing symbol shows at load, not at its first call) and is
//! never closed: unloading Rust code with thread-local destructors is unsound on Linux.
//!
//! Thread rule: everything here runs on the process's main thread, before the first xstream starts and after the
//! last one ended. Source: DAOS `src/engine/module.c`; deviations in `docs/decisions/0030-module-loading.md`.

mod error;
mod handshake;
mod library;
mod lifecycle;
mod module;
mod order;
mod search_path;

pub use error::{LoadError, LoadErrors};
pub use lifecycle::{Modules, Registrar, State};
pub use module::{LoadedModule, ModuleInfo};
pub use search_path::SearchPath;
