//! Whose threads and devices the suites run on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use spdk_bdev::Bdev;
use spdk_provider::{Options, Spdk, SpdkBdev, SpdkThreads};
use spdk_reactor::Depth;
use spdk_thread::ThreadOptions;
use spdk_thread::testing::Lockstep;

/// SPDK calls the youngest poller first.
pub(crate) const KEEPS_ORDER: bool = false;
pub(crate) const CAPACITY: u32 = 4096;
pub(crate) const DRIVER: &str = "spdk";
/// What SPDK sends itself rings no doorbell, but in interrupt mode.
pub(crate) const REST: Depth = if crate::INTERRUPT_MODE {
    Depth::Sleep
} else {
    Depth::Nap
};

fn spdk() -> &'static Spdk {
    static SPDK: OnceLock<Spdk> = OnceLock::new();
    SPDK.get_or_init(|| {
        let options = Options {
            memory_mib: 512,
            no_huge: true,
            interrupt_mode: crate::INTERRUPT_MODE,
            ..Options::default()
        };
        Spdk::start(&options).unwrap()
    })
}

pub(crate) fn lockstep() -> Lockstep {
    Lockstep::over(SpdkThreads::new(spdk()))
}

pub(crate) fn thread_options() -> ThreadOptions {
    ThreadOptions {
        provider: Some(SpdkThreads::new(spdk())),
        ..ThreadOptions::default()
    }
}

pub(crate) fn device(name: &str, block_size: u32, blocks: u64) -> Arc<dyn Bdev> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let bdev = format!("m{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let params =
        serde_json::json!({ "name": bdev, "num_blocks": blocks, "block_size": block_size });
    let call = serde_json::json!({ "method": "bdev_malloc_create", "params": params });
    let json = serde_json::json!({ "subsystems": [{ "subsystem": "bdev", "config": [call] }] });
    spdk().load(&json.to_string()).unwrap();
    Arc::new(SpdkBdev::open(spdk(), name, &bdev, |_| ()).unwrap())
}
