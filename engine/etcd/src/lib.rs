//! Membership from etcd, for systems of several machines: no consensus of our own.
//!
//! Each engine keeps a key of its own under a lease: while the key is there, the engine is. The engine whose key is the oldest leads, as in
//! etcd's own election: its term is the revision at which the key was made, so a later leader always has a greater one. The leader writes the
//! list of members as one document, in a transaction that holds only while it leads; everybody takes that document as the map.
//!
//! ```text
//!  <prefix>/ranks/00002    uuid of the engine that rank 2 belongs to, for ever
//!  <prefix>/members/00002  {"uuid","address","incarnation","seen"}, under the lease of rank 2
//!  <prefix>/group          {"version","leader","term","members"}, written by the leader
//! ```
//!
//! An engine that does not reach etcd keeps the map that it has. When its lease may have ended it no longer leads; when it has ended, the engine
//! comes back with another incarnation. An etcd that has gone back in time, restored from a backup, is not believed: [`Fence`](fence::Fence).
//! Time is the monotonic clock's throughout.
//!
//! Neighbours: below it `engine_membership`; above it the daemon. Threads: one of its own, with a tokio runtime on it; xstreams are only sent
//! reports. docs/internals/membership.md says what is promised.
//!
//! | module | holds |
//! |---|---|
//! | `options` | where etcd is, how long a lease lasts |
//! | `keys`, `board` | what stands in etcd; sans-I/O |
//! | `fence` | what was seen last, kept on the disk |
//! | `post` | what the engine is told, and that it steps down in time |
//! | `client`, `txn`, `proto` | etcd's API |
//! | `claim` | an engine's rank |
//! | `session` | one connection's life: join, watch, keep the lease, publish |
//! | `source` | the thread |

mod board;
mod claim;
mod client;
mod fence;
mod keys;
mod options;
mod post;
mod proto;
mod session;
mod source;
mod txn;

pub use options::{Options, Tls};
pub use source::Etcd;
