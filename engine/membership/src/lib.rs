//! Who belongs to a group of engines, and who leads it.
//!
//! A [`Source`] says it: the configuration, a control plane, or etcd. It hands in [`Map`]s, each with a version that only grows. The [`Keeper`]
//! is the sans-I/O part that all sources have in common: it refuses what is older than what it knows, finds the leader and its term, and
//! says what has changed for the RPC, the incast variables and the operator. It never waits and reads no clock.
//!
//! | who says the members | version | leader | term |
//! |---|---|---|---|
//! | configuration, control plane | theirs | the member with the lowest rank | the version, then the leader's life |
//! | etcd | counted by the leader | the member that joined first | etcd's revision at which it joined |
//!
//! A leader's term is greater than those of all leaders before it, and one that has lost its memory leads in a greater one: that is what
//! fences those who have not heard of it.
//!
//! Neighbours: below it only `daos_errno`; above it `engine_etcd` and the daemon, which drives it on the system xstream. Source: DAOS
//! `src/mgmt/srv_target.c` (`ds_mgmt_group_update`) and `src/cart/crt_group.c` (`crt_group_primary_modify`).
//!
//! | module | holds |
//! |---|---|
//! | `map` | members, leader |
//! | `keeper` | the state machine |
//! | `source` | what a source is |
//! | `lists` | two simple ones: the configuration, a control plane |
//! | `uri` | addresses as DAOS writes them |

mod keeper;
mod lists;
mod map;
mod source;
mod uri;

pub use keeper::{Change, Keeper, Refusal};
pub use lists::{Listed, Told};
pub use map::{Leader, Map, MapError, Member};
pub use source::{Announcement, Desk, Report, Source, SourceError, Standing};
pub use uri::address;
