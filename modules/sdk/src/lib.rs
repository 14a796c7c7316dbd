//! The safe Rust face of the module ABI: what a module written in Rust needs, and all that it needs.
//!
//! A module is a `cdylib` crate with one [`module!`] declaration. Its handlers are async functions; they run as tasks
//! (ULTs) of the xstream that received the request and never leave it, so they share state without locks through a
//! [`TlsKey`]. A module crate contains no `unsafe`: this crate holds all of it.
//!
//! Key types: [`module!`] (descriptor), [`TlsKey`] (one value per xstream), [`Request`]/[`Reply`] (RPC),
//! [`DrpcCall`]/[`DrpcReply`] (dRPC), [`Bdev`] and [`DmaBuf`] (this target's share of its device), [`spawn`],
//! [`spawn_on`], [`sleep`] (tasks), [`spawn_ult`] (straight-line code), [`collective`] (many targets), [`rpc_call`] (other modules), [`iv`] (values shared by all engines), [`query`] (the engine), [`Counter`] and kin, [`Der`].
//!
//! Thread rule: everything belongs to the xstream it was made on, unless its type is `Send`. A panic in a module's
//! code ends the request, task or call it happened in, is logged with the module's name, and goes no further.
//!
//! Outside an engine (unit tests of a module) log messages go to stderr, [`shutting_down`] is false, metrics record
//! nothing, and all else panics, saying that there is no engine.
//!
//! Neighbours: `module_abi` (the types), `engine_host` (the other side). `docs/internals/modules.md` shows how to write
//! a module in ten minutes.
//!
//! Modules: `engine` (the host's table), `declare` (the macro), `life`, `tls`, `task`, `waker`, `timer`, `poller`,
//! `buffer`, `bdev`, `rpc`, `sched`, `drpc`, `call`, `collective`, `ult` straight-line code, `log`, `metrics`, `sync`, `iv` incast variables.

mod bdev;
mod buffer;
mod call;
mod collective;
mod declare;
mod drpc;
mod engine;
pub mod iv;
mod life;
mod log;
mod metrics;
mod poller;
mod rpc;
mod sched;
pub mod sync;
mod task;
mod timer;
mod tls;
mod ult;
mod waker;

pub use bdev::{Bdev, BdevInfo, IoFuture};
pub use buffer::DmaBuf;
pub use call::{Answer, CallError, CallFuture, QueryFuture, Tag, query, rpc_call};
pub use collective::collective;
pub use daos_errno::Der;
pub use drpc::{DrpcCall, DrpcReply, DrpcStatus};
pub use engine::{now_ns, shutting_down};
pub use log::Level;
pub use metrics::{Counter, Gauge, Histogram};
pub use poller::{Poller, poller};
pub use prost;
pub use rpc::{Reply, Request};
pub use sched::{ReqAttr, ReqClass, RpcHead, SchedReq, forget_pool, report_space, space_pressure};
pub use task::{JoinError, JoinHandle, RemoteJoin, Xs, spawn, spawn_on, tasklet, yield_now};
pub use timer::{Sleep, sleep, sleep_until};
pub use tls::{ModuleInfo, PerXstream, Tags, TlsKey, module_info, targets};
pub use ult::{Ult, UltHandle, UltOptions, block_on, sleep_ult, spawn_ult, yield_ult};

/// What the expansion of [`module!`] and the log macros uses. Not for modules.
#[doc(hidden)]
pub mod rt {
    pub use crate::declare::{CStrings, version};
    pub use crate::drpc::enter as drpc_enter;
    pub use crate::engine::host_slot;
    pub use crate::life::{finish, init, start};
    pub use crate::log::{enabled, write};
    pub use crate::rpc::enter as rpc_enter;
    pub use crate::sched::classify;
    pub use module_abi as abi;
}
