//! Clusters on virtual time: a seed makes ranks, a tree, work and faults, and checkers watch what [`engine_iv`] does with them.
//!
//! One thread, no clock, no randomness but the seed's: the same seed is the same run, event for event. The network loses, doubles, delays and
//! reorders messages, splits, and heals; ranks crash, restart and are slow; leaders change; one rank in some runs tells lies. A violated rule
//! ends the run and names the command that replays it.
//!
//! Neighbours: below it `engine_iv`, as it runs in the engine; above it nothing, `keel-sim` and the tests run it.
//!
//! | module | holds |
//! |---|---|
//! | `rng`, `queue` | the seed's numbers; events in the order of time |
//! | `scenario` | what a seed means |
//! | `authority` | the class of the runs: values in a store that outlives leaders |
//! | `membership` | groups and leaders, and when a rank hears of them |
//! | `cluster`, `run` | the ranks and the network; a scenario from start to end |
//! | `xstreams` | what is below a rank: caches and the way to them |
//! | `check`, `judge` | the rules; what ranks are looked at for |
//! | `liar` | a rank that sends what it should not |

mod authority;
mod check;
mod cluster;
mod judge;
mod liar;
mod membership;
mod queue;
mod rng;
mod run;
mod scenario;
mod xstreams;

pub use check::Violation;
pub use cluster::{Cluster, Counts, Network};
pub use rng::Rng;
pub use run::{Report, run, scale};
pub use scenario::{Scenario, Step, Work};
pub use xstreams::Local;
