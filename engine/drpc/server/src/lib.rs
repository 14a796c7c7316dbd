//! The dRPC server: listener, sessions, progress step, dispatch to handlers.
//!
//! The engine's control channel (DAOS `src/engine/drpc_listener.c`, `drpc_progress.c`, `drpc_handler.c`): tools and the control
//! server connect to a Unix socket and call methods of modules. [`DrpcServer::progress`] is one step over sessions and
//! listener with DAOS's return codes; nothing in it waits for a peer. [`install`] makes that step a poller of the
//! system xstream that costs no system call while nothing is ready.
//!
//! Key types:
//! - [`DrpcServer`] and its [`Options`]: the socket, the sessions, all bounds;
//! - [`Registry`] and [`Handler`]: who answers for which module id;
//! - [`Reply`]: the answer to one call, given at once or later, from any thread; dropped unsent it is FAILURE;
//! - [`DrpcService`]: an installed server.
//!
//! Neighbours: `drpc_wire` (bytes and messages) below; `engine_host` and the daemon above register handlers and install it.
//!
//! Thread rule: `DrpcServer` belongs to one thread (the system xstream); `Registry` and `Reply` go anywhere.
//!
//! Modules: `options`, `registry`, `reply`, `completions` (replies on their way back), `socket_file` (the path on disk),
//! `peer` (who may connect), `readiness` (what poll said), `session` (one peer), `sessions` (all, with their bounds),
//! `server` (the step), `spawner` (what runs a call), `service` (the poller), `bind_error`, `stats`, `metrics`.

mod bind_error;
mod completions;
mod metrics;
mod options;
mod peer;
mod readiness;
mod registry;
mod reply;
mod server;
mod service;
mod session;
mod sessions;
mod socket_file;
mod spawner;
mod stats;

pub use bind_error::BindError;
pub use options::Options;
pub use peer::Peer;
pub use registry::{Handler, Registry};
pub use reply::Reply;
pub use server::DrpcServer;
pub use service::{DrpcService, Unanswered, install};
pub use socket_file::{DrpcSocket, engine_socket_path};
pub use spawner::{Inline, Job, Spawner};
pub use stats::Stats;
