//! The module ABI: the Rust mirror of `include/engine_module.h`.
//!
//! The header is the truth; every struct, field, type and constant here has the header's name, and
//! `tests/layout` compares the two field by field through the C compiler. Names follow DAOS
//! (`src/include/daos_srv/daos_engine.h`) where the concept is its own.
//!
//! Types only: nothing here calls anything. The engine's side of the border is `engine_host` (it fills a
//! [`dss_host`]) and `engine_loader` (it reads a [`dss_module`]); a module's side is `module_sdk`, or the header alone.
//! Who may call which function, on which xstream and when, stands at each field of [`dss_host`] in the header's own
//! tags: `[any]`, `[main-thread]`, `[xs]`, `[xs:sys]`, `[xs:main]`, `[owner]`, `[ult]`, `[serving]`.
#![allow(non_camel_case_types, reason = "names identical to the C header's")]

mod constants;
mod descriptor;
mod device;
mod host;
mod iv;
mod level;
mod message;
mod storage;
mod task;
mod ult;

pub use constants::*;
pub use descriptor::*;
pub use device::*;
pub use host::*;
pub use iv::*;
pub use level::*;
pub use message::*;
pub use storage::*;
pub use task::*;
pub use ult::*;
