//! Incast variables inside an engine and between engines.
//!
//! The state machine (`engine_iv`) runs on the system xstream. Every other xstream has a cache of its own, which the system xstream feeds
//! over the message rings: a read there ([`Incast::cached`]) is one look-up in memory that no other xstream touches. What a cache does not
//! have is fetched by way of the system xstream, and stays. Questions to other ranks are calls of `engine_rpc`, by rank.
//!
//! An update that waits for all (`Sync::Eager`) has also reached the caches of each rank when it returns: a rank confirms a change only when
//! its xstreams have taken it.
//!
//! ```text
//!  target 0 ── cached() ──> cache            target 1 ── cached() ──> cache
//!     │ miss                  ^                                        ^
//!     └──> system xstream ────┴── feed over the rings, answered ───────┘
//!            machine  <── questions, answers by RPC ──>  machines of other ranks
//! ```
//!
//! Neighbours: below `engine_iv`, `engine_rpc`, `engine_xstream`; above `engine_host` (modules) and the daemon. Threads: [`Incast`] is a handle for any
//! xstream of its engine; set-up is the control thread's. Source: DAOS `src/engine/server_iv.c`, which answers on xstream 0 alone; docs/internals/iv.md.
//!
//! | module | holds |
//! |---|---|
//! | `incast` | the handle: set-up, operations, reads |
//! | `var` | variables with a type |
//! | `service` | the machine's driver on the system xstream |
//! | `readers` | messages to the caches of the other xstreams |
//! | `peers`, `wire` | questions to and from other ranks |
//! | `inspect`, `history`, `look`, `meter` | what operators see, of this rank and of others |

mod history;
mod incast;
mod inspect;
mod look;
mod meter;
mod peers;
mod readers;
mod service;
mod var;
mod wire;

pub use engine_iv::{
    Change, Class, Failure, How, Key, NsId, Place, RequestId, Shortcut, Stamp, Sync, Tree, Value,
    Version,
};
pub use history::{LastError, Past};
pub use incast::{Incast, Options, Scope};
pub use inspect::{Entry, Space, Trace};
pub use peers::IV_MODULE;
pub use var::{IvValue, Var};
