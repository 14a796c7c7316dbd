//! One file per question; runs tiny in tests, for real by `keel bench`.
//!
//! Every benchmark runs in the calling process on reactors of its own, which poll always but in `idle`, and gives one report that
//! serialises to JSON. Figures mean something only beside a peer in the same run: `docs/PROMISES.md` has the commands.
//!
//! | file | question |
//! |---|---|
//! | [`bdev`] | I/Os per second of a block device, through the channel that modules use |
//! | [`idle`] | how late work is that ends a reactor's rest, and what rest costs |
//! | [`message`] | messages from one core to another: throughput, ping-pong |
//! | [`ult`] | creating, running and joining a ULT, and yielding: async ones, and those with a stack of their own |
//! | [`peer`] | the same figures of another program, in the same run |
//! | [`drpc`] | a dRPC round trip beside a bare socket ping-pong |
//! | [`rpc`] | a call over TCP, and large data both ways; `examples/tonic_peer.rs` measures gRPC beside it |
//! | [`iv`] | reading and updating incast variables |
//! | [`nvme`] | the NVMe driver's own time per I/O, over an emulated controller |
//! | [`sched`] | what updates wait while a scrub and a gc run beside them |
//! | [`tls`] | reading a value of per-xstream storage |

pub mod bdev;
pub mod drpc;
mod histogram;
pub mod idle;
pub mod iv;
mod iv_ranks;
mod lane;
mod load;
pub mod message;
pub mod nvme;
pub mod peer;
pub mod rpc;
pub mod sched;
#[cfg(feature = "libspdk")]
mod spdk;
pub mod tls;
pub mod ult;
#[cfg(feature = "libspdk")]
mod wrapper;

pub use histogram::{Histogram, Latency};
pub use load::Workload;
