//! One real engine per test: a scratch directory, a configuration, the process, its log, its end. Every wait is bounded.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test file uses its part of it"
)]
#![allow(missing_docs, reason = "a test")]

mod cluster;
mod config;
pub mod demo;
mod etcd;
mod libraries;
mod machines;
mod network;
mod process;
mod wire;

pub use cluster::Cluster;
pub use config::{Config, Kind, is_over_spdk};
pub use etcd::EtcdServer;
pub use machines::{Machine, Machines};
pub use network::Network;
pub use process::{Engine, Exited, PATIENCE, eventually};

/// Says that a test could test nothing here, in the words that `cargo xtask test` counts.
#[expect(clippy::print_stderr, reason = "who runs the tests has to hear of it")]
pub fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// Bytes that repeat for the same seed and do not compress.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    use rand::{RngCore, SeedableRng};
    let mut data = vec![0; len];
    rand::rngs::SmallRng::seed_from_u64(seed).fill_bytes(&mut data);
    data
}
