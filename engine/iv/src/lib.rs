//! Incast variables: values that all ranks of a group share along a tree, cached at each rank, stamped at the root.
//!
//! A sans-I/O state machine, one [`Iv`] per rank. Inputs are local operations ([`Iv::fetch`], [`Iv::update`], [`Iv::invalidate`]),
//! messages ([`Iv::receive`]), time ([`Iv::tick`]) and what membership decides ([`Iv::set_group`], [`Iv::set_leader`]). Outputs are messages
//! to send, completions, and which copies are old ([`Iv::poll`]). Nothing waits, nothing reads a clock, and equal inputs give equal outputs, so that the
//! simulator replays a run by its seed.
//!
//! A user registers a [`Class`]: what a key means, and what happens to a value at the root and on its way. A fetch that a rank cannot
//! answer goes to the parent in the [`Tree`], concurrent ones as one; an update goes up to the root, which stamps it with a [`Version`]
//! and sends it down as its [`Sync`] says. A rank never goes back to an older version, and keeps a value no longer than the class's lease
//! after the root vouched for it.
//!
//! Neighbours: below it only `daos_errno`; beside it nothing. `engine_sim` drives thousands of them. Threads: one owner, `!Send` classes
//! allowed. Source: DAOS `src/engine/server_iv.c`, `src/cart/crt_iv.c`; docs/internals/iv.md says where and why ours differs.
//!
//! | module | holds |
//! |---|---|
//! | `key`, `group`, `tree` | names, versions; members; who is whose parent |
//! | `class` | the hooks of a user |
//! | `message` | what travels |
//! | `options` | bounds and times; sync modes; how an operation fails |
//! | `space`, `entry` | a namespace at one rank; one cached value |
//! | `iv`, `namespaces` | the machine's face, admission of messages; what membership decides |
//! | `fetch`, `update`, `spread` | the way up for values, the way up for changes, the way down |
//! | `cache`, `feed`, `hash` | the xstreams below a rank: what one has; who has what, and has taken what |
//! | `operation`, `window`, `timers` | retries and deadlines; which requests the root knows; what is due |

mod cache;
mod class;
mod entry;
mod feed;
mod fetch;
mod group;
mod hash;
mod iv;
mod key;
mod message;
mod namespaces;
mod operation;
mod options;
mod space;
mod spread;
mod timers;
mod tree;
mod update;
mod window;

pub use cache::{Cache, Item};
pub use class::{Class, Place};
pub use entry::Cached;
pub use feed::{Feed, Readers};
pub use group::{Group, Rank};
pub use hash::QuickBuild;
pub use iv::{Iv, Output};
pub use key::{Key, MAX_KEY, NsId, Value, Version};
pub use message::{Body, Change, Copy, Message, RequestId, Stamp};
pub use operation::{Done, Failure, OpId};
pub use options::{How, INLINE, Nanos, Options, Shortcut, Sync};
pub use tree::Tree;
