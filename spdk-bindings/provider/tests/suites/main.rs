//! The suites that do not mind who carries threads and whose the devices are, over C SPDK with memory in ordinary pages. A process for
//! each test: `cargo nextest run -p spdk_provider --features libspdk`.
#![cfg(feature = "libspdk")]
#![allow(missing_docs, reason = "tests")]

#[path = "../../../thread/tests/carried/exit.rs"]
mod exit;
#[path = "../../../bdev/malloc/tests/block_layer/layer.rs"]
mod layer;
mod provider;
#[path = "../../../reactor/tests/hosting/reactors.rs"]
mod reactors;
mod setup;
#[path = "../../../thread/tests/carried/tasks.rs"]
mod tasks;
#[path = "../../../thread/tests/carried/turns.rs"]
mod turns;

const INTERRUPT_MODE: bool = false;
