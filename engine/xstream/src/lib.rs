//! Execution streams: roles, placement, ULTs, start-up and shutdown.
//!
//! - [`Layout`]: how many xstreams, for what, on which core. Pure: numbers in, table out.
//! - [`XstreamSet`]: starts them in order and stops them in order; the owner's side. [`Xstreams`]: who is who, for all.
//! - [`XstreamRef`]: an xstream's address: [`send`](XstreamRef::send) a message, [`spawn`](XstreamRef::spawn) a ULT,
//!   [`execute`](XstreamRef::execute) one and await its result, [`create`](XstreamRef::create) one with a handle: an
//!   [`Ult`] to join, wake and abort; inside, the ULT has its [`UltRequest`]. [`Xstream`]: the xstream itself, for its own code:
//!   thread, storage, ULTs. [`current`]: which one runs here.
//! - [`Xstreams::reserve_chore`]: work in small steps for helpers, bounded by credits: a [`Chore`].
//! - [`Xstreams::collective`]: the same work on many targets, reduced to one result.
//!
//! An xstream is a lightweight thread with a role and per-xstream storage. Several can share a core: each keeps its own
//! mailbox, pollers, ULTs and storage, which is switched when its turn begins and ends.
//!
//! Neighbours: `spdk_thread` and `spdk_reactor` below, `engine_tls` beside; dRPC, RPC and modules above. Source: DAOS
//! `src/engine/srv.c`, `ult.c`, `init.c`.
//!
//! Thread rule: [`Xstream`] is own-thread-only; [`XstreamRef`] and [`Xstreams`] are for everybody; [`XstreamSet`] and
//! everything called `blocking` are for control threads.
//!
//! Modules: `layout` · `role` · `xstream` inside view · `xref` address · `set` table · `execute` waiting for others ·
//! `ult`, `request` handles of ULTs · [`sched`] requests by class · `chores` steps for helpers · `collective`, `target_set` · `start`, `shutdown` · `stats`, `ults` for operators ·
//! [`testing`] xstreams stepped on one OS thread.

mod chores;
mod collective;
mod error;
mod execute;
mod layout;
mod request;
mod role;
pub mod sched;
mod set;
mod shutdown;
mod start;
mod stats;
mod target_set;
pub mod testing;
mod ult;
mod ults;
mod xref;
mod xstream;

pub use chores::{
    CHORE_CREDITS, CHORE_CREDITS_MIN, Chore, ChoreError, ChorePermit, ChoreStats, ChoreStep,
};
pub use error::{ExecError, SpawnError};
pub use execute::Remote;
pub use layout::{
    Core, HelperMode, Layout, LayoutError, LayoutOptions, MAX_TARGETS, Placement, SYS_XS_NR,
    ServeError, XstreamSpec,
};
pub use request::{Beat, Slept, UltRequest};
pub use role::{Role, XsType, XstreamId};
pub use set::Xstreams;
pub use shutdown::Held;
pub use start::{Phase, StartCause, StartError, StartOptions, XstreamSet};
pub use stats::XstreamStats;
pub use target_set::TargetSet;
pub use ult::{Ult, UltRef};
pub use ults::{Listed, UltInfo, XstreamUlts};
pub use xref::XstreamRef;
pub use xstream::{Xstream, current};

#[cfg(test)]
mod tests;
