//! Answers the call-backs of the module ABI: the engine's side of `engine_module.h`.
//!
//! [`Host`] holds what modules may reach (devices, RPC, dRPC, queries, metrics) and fills the one table of functions,
//! [`Host::table`]. It registers a loaded module's key and handlers ([`engine_loader::Registrar`]), drives `sm_setup` and
//! `sm_cleanup` ([`Host::setup_all`], [`Host::cleanup_all`]), and undoes exactly what was done when a step fails.
//!
//! Every function checks who calls, where and when, as the header's tags say: a wrong call answers
//! `-DER_OP_NOT_PERMITTED` (or NULL), is logged with the module's name and has no effect. What modules hold are numbers
//! with a generation, never addresses: a stale or foreign handle is an error, not a crash.
//!
//! Neighbours: `module_abi` and `engine_loader` below, `engine_xstream`, `engine_tls`, `engine_rpc`, `engine_drpc`,
//! `spdk_bdev` `engine_iv_service` for what it lends; the daemon above implements [`Control`] and says which target has which share.
//! DAOS: `src/engine/module.c`, `ult.c`, `drpc_handler.c`.
//!
//! Thread rule: [`Host`] goes anywhere; `setup_all` and `cleanup_all` run on the system xstream; registration on the main
//! thread while no xstream runs.
//!
//! Modules: `host` options and state · `modules` what is known of each · `register` · `life` · `here` one xstream's side
//! · `handles` of one xstream, `shared` of all · `ult`, `stack` straight-line code, `sync` what it waits with · `guard` the checks · `hooks` of classes of incast variables · `names` · `table` and `calls/*` the functions by subject.

mod calls;
mod guard;
mod handles;
mod here;
mod hooks;
mod host;
mod life;
mod modules;
mod names;
mod register;
mod shared;
mod sync;
mod table;
mod ult;

pub use host::{BufferClass, Control, Host, HostError, HostOptions, QueryFuture, TargetShare};
pub use life::{CleanupFailure, SetupError};
pub use modules::{ModuleState, ModuleStatus};
pub use register::RegisterError;
