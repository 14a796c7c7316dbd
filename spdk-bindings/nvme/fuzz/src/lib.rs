//! The driver over a device that answers whatever a byte string says: a fuzz target without a fuzzer's toolchain.
//!
//! * [`run`]: bytes in, [`Outcome`] out. Register reads, the device's execution of each command, completions and the data of admin commands are
//!   all decided by the bytes ([`Tape`]). The same bytes give the same outcome. Panics when the driver does something that it must not: it hangs,
//!   loses a buffer, or lets the device reach for memory that was taken from it.
//! * [`FuzzBacking`]: the [`spdk_env::DeviceBacking`] that it runs over.
//! * [`mutate`]: changes bytes, by a seed.
//! * `corpus/`: for each way that was ever taken the shortest input that takes it, named after it. `tests/corpus.rs` replays them;
//!   `examples/fuzz.rs` looks for more.
//!
//! Neighbours: `spdk_nvme` (what is tested) and `nvme_spec`. `nvme_fake` is the device that does wrong by a script; this one by chance. Thread
//! rule: all on one thread.
#![forbid(unsafe_code)]

mod backing;
mod device;
mod mutate;
mod outcome;
mod run;
mod tape;

pub use backing::FuzzBacking;
pub use mutate::{Rng, mutate};
pub use outcome::Outcome;
pub use run::run;
pub use tape::Tape;
