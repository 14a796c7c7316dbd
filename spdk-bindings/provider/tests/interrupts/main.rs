//! The same suites in SPDK's interrupt mode, in which reactors sleep until SPDK rings.
#![cfg(feature = "libspdk")]
#![allow(missing_docs, reason = "tests")]

#[path = "../../../thread/tests/carried/exit.rs"]
mod exit;
#[path = "../../../bdev/malloc/tests/block_layer/layer.rs"]
mod layer;
#[path = "../suites/provider.rs"]
mod provider;
#[path = "../../../reactor/tests/hosting/reactors.rs"]
mod reactors;
#[path = "../suites/setup.rs"]
mod setup;
#[path = "../../../thread/tests/carried/tasks.rs"]
mod tasks;
#[path = "../../../thread/tests/carried/turns.rs"]
mod turns;

const INTERRUPT_MODE: bool = true;
