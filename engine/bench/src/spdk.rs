//! C SPDK under the measured code: its threads, its devices.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use spdk_bdev::Bdev;
use spdk_provider::{Options, Spdk, SpdkBdev, SpdkThreads};
use spdk_thread::Provider;

use crate::bdev::{BLOCK, MALLOC_BYTES, NULL_BYTES};

/// MiB: 512 for the malloc device, the rest for SPDK's pools.
const MEMORY: u32 = 1024;

/// The process's SPDK: it starts once, and has both devices from the start.
static SPDK: Mutex<Option<Spdk>> = Mutex::new(None);

pub(crate) fn spdk() -> Result<Spdk> {
    let mut running = SPDK.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(spdk) = &*running {
        return Ok(spdk.clone());
    }
    let device = |method: &str, name: &str, bytes: u64| {
        let blocks = bytes / u64::from(BLOCK);
        format!(
            r#"{{"method":"{method}","params":{{"name":"{name}","num_blocks":{blocks},"block_size":{BLOCK}}}}}"#
        )
    };
    let devices = [
        device("bdev_null_create", "null", NULL_BYTES),
        device("bdev_malloc_create", "malloc", MALLOC_BYTES),
    ];
    let json = format!(
        r#"{{"subsystems":[{{"subsystem":"bdev","config":[{}]}}]}}"#,
        devices.join(",")
    );
    let huge = Options {
        memory_mib: MEMORY,
        json,
        ..Options::default()
    };
    let started = Spdk::start(&huge).or_else(|error| match error {
        spdk_provider::StartError::HugePages { .. } => {
            tracing::warn!("{error}: ordinary pages are used, which cost translations");
            Spdk::start(&Options {
                no_huge: true,
                ..huge
            })
        }
        other => Err(other),
    });
    let started = started.context("C SPDK does not start")?;
    *running = Some(started.clone());
    Ok(started)
}

/// Threads of SPDK's.
pub(crate) fn threads() -> Result<Arc<dyn Provider>> {
    Ok(SpdkThreads::new(&spdk()?))
}

/// SPDK's device `name`, and what has to outlive its users.
pub(crate) fn open(name: &str) -> Result<(Arc<dyn Bdev>, Box<dyn Any>)> {
    let spdk = spdk()?;
    let bdev = SpdkBdev::open(&spdk, "spdk", name, |_| ())?;
    Ok((Arc::new(bdev), Box::new(spdk)))
}

#[cfg(test)]
mod tests {
    use crate::bdev::{Options, run};
    use crate::message;

    #[test]
    fn over_spdk_devices_and_messages_are_measured() {
        let cpus = spdk_env::cpu::allowed().unwrap();
        for device in ["spdk:null", "spdk:malloc", "spdk_sys:malloc"] {
            let options = Options {
                device: device.to_owned(),
                io_size: 4096,
                queue_depth: 8,
                workload: "randrw".parse().unwrap(),
                seconds: 0.02,
                cores: vec![cpus[0]],
                idle_latency_us: 0,
            };
            let report = run(&options).unwrap();
            assert!(report.iops > 0.0 && report.errors == 0, "{report:?}");
        }
        if cpus.len() > 1 {
            let report = message::run(0.02, message::Threads::Libspdk).unwrap();
            assert!(report.messages_per_s > 0.0 && report.round_trips > 0);
        }
    }
}
