//! How many I/Os per second does a block device give, through the channel that modules use?
//!
//! Comparable with SPDK's bdevperf: random (or sequential) offsets, a fixed number of I/Os in flight per core, one
//! completion per I/O, each one's latency recorded, the next one submitted in its place.

use std::any::Any;
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bdev_file::{FileBdev, FileOptions};
use bdev_malloc::MallocBdev;
use bdev_null::NullBdev;
use bdev_nvme::{DriverOptions, NvmeDevice};
use serde::Serialize;
use spdk_bdev::{Bdev, Completion, Descriptor, IoQueue, Mode, Registry, Request};
use spdk_env::{Clock, DmaBuf, DmaPool, VfioDevice};
use spdk_thread::{Period, PollResult, Poller, Provider, Thread};

use crate::histogram::{Histogram, Latency};
use crate::lane::{Lanes, cpu_seconds};
use crate::load::{Load, TIMED_TOGETHER, Workload};

/// Sizes as bdevperf's defaults in the baselines: 1 GiB null, 512 MiB malloc, 512-byte blocks.
pub(crate) const NULL_BYTES: u64 = 1 << 30;
pub(crate) const MALLOC_BYTES: u64 = 512 << 20;
pub(crate) const BLOCK: u32 = 512;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// `null`, `malloc`, `file:PATH`, or `nvme:ADDRESS` (bound to vfio-pci; its first namespace). With C SPDK also its `spdk:null` and
    /// `spdk:malloc`, and both as `spdk_sys:...`, through the wrapper alone.
    pub device: String,
    /// Bytes of one I/O.
    pub io_size: u64,
    /// I/Os in flight on each core.
    pub queue_depth: u32,
    /// Access pattern.
    pub workload: Workload,
    /// How long, in seconds.
    pub seconds: f64,
    /// One reactor on each.
    pub cores: Vec<usize>,
    /// The reactors' latency goal, in microseconds; 0 polls always.
    pub idle_latency_us: u64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// As asked.
    pub device: String,
    /// Bytes of one I/O.
    pub io_size: u64,
    /// I/Os in flight on each core.
    pub queue_depth: u32,
    /// Completed I/Os per second, all cores together.
    pub iops: f64,
    /// Mebibytes per second.
    pub mib_per_s: f64,
    /// Submission to completion of single I/Os.
    pub latency_us: Latency,
    /// Processor time of the whole process while it ran.
    pub cpu_seconds: f64,
    /// How long it ran.
    pub seconds: f64,
    /// I/Os that failed; their messages are logged.
    pub errors: u64,
}

/// Runs the measurement.
pub fn run(options: &Options) -> Result<Report> {
    #[cfg(feature = "libspdk")]
    if let Some(name) = options.device.strip_prefix("spdk_sys:") {
        return crate::wrapper::run(options, name);
    }
    let registry = Registry::new();
    let Opened {
        bdev,
        provider,
        _keeps,
    } = open(&options.device, options.cores.len() as u16)?;
    let name = bdev.name().to_owned();
    registry.register(bdev)?;
    let mode = if matches!(options.workload, Workload::Read | Workload::RandRead) {
        Mode::ReadOnly
    } else {
        Mode::ReadWrite
    };
    let descriptor = registry.open(&name, mode, "keel bench")?;
    check(options, &descriptor)?;

    let lanes = Lanes::with(&options.cores, options.idle_latency_us, provider)?;
    let cpu_before = cpu_seconds();
    let started = Instant::now();
    let mut results = Vec::new();
    for index in 0..options.cores.len() {
        let (options, descriptor) = (options.clone(), descriptor.clone());
        let seed = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index as u64 + 1);
        results.push(
            lanes
                .run(index, move |thread, done| {
                    start_lane(thread, &options, &descriptor, seed, done)
                })?
                .1,
        );
    }
    let (mut histogram, mut errors, mut ns) = (Histogram::default(), 0, 0);
    for result in results {
        let lane = result
            .recv()
            .context("a lane ended without a result")?
            .map_err(|why| anyhow!(why))?;
        histogram.add(&lane.histogram);
        errors += lane.errors;
        ns = ns.max(lane.elapsed_ns);
    }
    let cpu = cpu_seconds() - cpu_before;
    lanes.stop()?;
    let seconds = if ns > 0 {
        ns as f64 / 1e9
    } else {
        started.elapsed().as_secs_f64()
    };
    Ok(Report::new(options, &histogram, errors, (seconds, cpu)))
}

impl Report {
    pub(crate) fn new(
        options: &Options,
        histogram: &Histogram,
        errors: u64,
        (seconds, cpu_seconds): (f64, f64),
    ) -> Report {
        let iops = histogram.count() as f64 / seconds;
        let ns_per_tick = Clock::tsc().ticks_to_ns(1 << 30) as f64 / (1u64 << 30) as f64;
        Report {
            device: options.device.clone(),
            io_size: options.io_size,
            queue_depth: options.queue_depth,
            iops,
            mib_per_s: iops * options.io_size as f64 / (1 << 20) as f64,
            latency_us: histogram.latency(ns_per_tick),
            cpu_seconds,
            seconds,
            errors,
        }
    }
}

/// A device, and whose threads it needs.
struct Opened {
    bdev: Arc<dyn Bdev>,
    provider: Option<Arc<dyn Provider>>,
    /// Shut down after the last user.
    _keeps: Box<dyn Any>,
}

fn open(device: &str, channels: u16) -> Result<Opened> {
    #[cfg(feature = "libspdk")]
    if let Some(name) = device.strip_prefix("spdk:") {
        let (bdev, _keeps) = crate::spdk::open(name)?;
        let provider = Some(crate::spdk::threads()?);
        return Ok(Opened {
            bdev,
            provider,
            _keeps,
        });
    }
    if let Some(address) = device.strip_prefix("nvme:") {
        let backing = Arc::new(VfioDevice::open_nvme(address)?);
        let driver = DriverOptions {
            queue_pairs: channels,
            queue_entries: 1024,
            depth: 1023,
            ..DriverOptions::default()
        };
        let controller = NvmeDevice::attach(backing, &driver, |event| {
            tracing::warn!(?event, "controller")
        })?;
        let first = controller
            .namespaces()
            .first()
            .context("the controller has no namespace")?
            .nsid;
        return Ok(Opened {
            bdev: controller.bdev("nvme", first)?,
            provider: None,
            _keeps: Box::new(controller),
        });
    }
    let bdev: Arc<dyn Bdev> = match device.split_once(':') {
        None if device == "null" => {
            Arc::new(NullBdev::new("null", BLOCK, NULL_BYTES / u64::from(BLOCK)))
        }
        None if device == "malloc" => Arc::new(MallocBdev::new(
            "malloc",
            BLOCK,
            MALLOC_BYTES / u64::from(BLOCK),
        )?),
        Some(("file", path)) => Arc::new(FileBdev::open(
            "file",
            Path::new(path),
            &FileOptions {
                block_size: BLOCK,
                ..FileOptions::default()
            },
        )?),
        #[cfg(not(feature = "libspdk"))]
        Some(("spdk" | "spdk_sys", _)) => bail!(
            "device `{device}` is C SPDK's, and this keel was built without it: docs/operating/spdk.md says how to build one with it"
        ),
        _ => bail!("device `{device}` is none of null, malloc, file:PATH, nvme:ADDRESS"),
    };
    Ok(Opened {
        bdev,
        provider: None,
        _keeps: Box::new(()),
    })
}

fn check(options: &Options, descriptor: &Descriptor) -> Result<()> {
    let geometry = descriptor.geometry();
    let block = u64::from(geometry.block_size);
    ensure!(
        options.io_size > 0 && options.io_size.is_multiple_of(block),
        "--io-size {} is not a multiple of the device's block size {block}",
        options.io_size
    );
    let blocks = options.io_size / block;
    ensure!(
        blocks <= u64::from(geometry.max_io_blocks),
        "--io-size {} is more than the {} bytes that the device takes at once",
        options.io_size,
        u64::from(geometry.max_io_blocks) * block
    );
    ensure!(
        geometry.num_blocks >= blocks,
        "the device is smaller than one I/O"
    );
    ensure!(!options.cores.is_empty(), "--cores names no core");
    Ok(())
}

/// What one core measured.
struct LaneResult {
    histogram: Histogram,
    errors: u64,
    elapsed_ns: u64,
}

/// One core's measurement in progress.
struct Lane {
    queue: IoQueue,
    load: Load,
    errors: u64,
}

type Done = mpsc::Sender<Result<LaneResult, String>>;

fn start_lane(thread: &Thread, options: &Options, descriptor: &Descriptor, seed: u64, done: Done) {
    let lane = match prepare(thread, options, descriptor, seed) {
        Ok(lane) => lane,
        Err(error) => {
            let _ = done.send(Err(format!("{error:#}")));
            return;
        }
    };
    let mut lane = Some(lane);
    // The poller unregisters itself when the last I/O is back; its handle lives in a cell that it can reach.
    let handle: Rc<RefCell<Option<Poller>>> = Rc::default();
    let own = handle.clone();
    let poller = thread.register_poller("bench_bdev", Period::EveryTurn, move |_| {
        let Some(running) = lane.as_mut() else {
            return PollResult::Idle;
        };
        let reaped = running.turn();
        if running.queue.in_flight() == 0 {
            let lane = lane.take().map(|lane| {
                let (histogram, elapsed_ns) = lane.load.end();
                LaneResult {
                    histogram,
                    errors: lane.errors,
                    elapsed_ns,
                }
            });
            let _ = done.send(lane.ok_or_else(|| "no result".to_owned()));
            own.borrow_mut().take();
        }
        if reaped > 0 {
            PollResult::Busy
        } else {
            PollResult::Idle
        }
    });
    *handle.borrow_mut() = Some(poller);
}

fn prepare(thread: &Thread, options: &Options, descriptor: &Descriptor, seed: u64) -> Result<Lane> {
    let geometry = descriptor.geometry();
    let mut lane = Lane {
        queue: descriptor.get_channel(thread)?.queue(options.queue_depth)?,
        load: Load::new(options, geometry.num_blocks, geometry.block_size, seed),
        errors: 0,
    };
    // Devices that memory has to be mapped for take buffers of a pool; for the others it makes no difference here.
    let pool = if options.device.starts_with("nvme:") {
        Some(DmaPool::new(
            options.io_size as usize,
            options.queue_depth as usize,
        )?)
    } else {
        None
    };
    for number in 0..options.queue_depth {
        let buf = match &pool {
            Some(pool) => pool.get().context("the pool is too small")?,
            None => DmaBuf::alloc(options.io_size as usize)?,
        };
        let now = lane.load.now();
        lane.submit(u64::from(number), buf, now);
    }
    Ok(lane)
}

impl Lane {
    /// Reaps what is finished and submits as much again, until the time is over.
    #[inline]
    fn turn(&mut self) -> usize {
        let over = self.load.is_over();
        let mut reaped = 0;
        let mut time = 0;
        // At most one round of the queue: what is submitted in here belongs to the next turn.
        let depth = self.queue.depth() as usize;
        while reaped < depth
            && let Some(completion) = self.queue.pop()
        {
            if reaped % TIMED_TOGETHER == 0 {
                time = self.load.now();
            }
            reaped += 1;
            self.finish(completion, over, time);
        }
        reaped
    }

    #[inline]
    fn finish(&mut self, completion: Completion, over: bool, now: u64) {
        let number = completion.user;
        self.load.ended(number, now);
        if let Err(error) = completion.result {
            self.failed(&error);
        }
        if let Some(buf) = completion.buf
            && !over
        {
            self.submit(number, buf, now);
        }
    }

    #[inline]
    fn submit(&mut self, number: u64, buf: DmaBuf, now: u64) {
        let (op, lba) = self.load.next(number, now);
        let request = Request {
            buf: Some(buf),
            lba,
            user: number,
            blocks: self.load.blocks(),
            op,
            fua: false,
        };
        if let Err(rejected) = self.queue.submit(request) {
            let (error, _) = rejected.into_error("bench");
            self.failed(&error);
        }
    }

    #[cold]
    fn failed(&mut self, error: &spdk_bdev::BdevError) {
        self.errors += 1;
        if self.errors <= 10 {
            tracing::error!(%error, "benchmark I/O failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny(device: &str, workload: Workload) -> Report {
        let options = Options {
            device: device.to_owned(),
            io_size: 4096,
            queue_depth: 8,
            workload,
            seconds: 0.02,
            cores: vec![first_cpu()],
            idle_latency_us: 0,
        };
        run(&options).unwrap()
    }

    fn first_cpu() -> usize {
        spdk_env::cpu::allowed().unwrap()[0]
    }

    #[test]
    fn every_device_and_workload_runs_without_errors() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("bench.img");
        std::fs::write(&path, vec![1; 4 << 20]).unwrap();
        let file = format!("file:{}", path.display());
        for workload in ["read", "write", "randread", "randwrite", "randrw"] {
            for device in ["null", "malloc", &file] {
                let report = tiny(device, workload.parse().unwrap());
                assert!(
                    report.iops > 0.0 && report.errors == 0,
                    "{device} {workload}: {report:?}"
                );
            }
        }
    }

    #[test]
    fn wrong_questions_are_refused() {
        let ask = |device: &str, io_size| {
            let options = Options {
                device: device.to_owned(),
                io_size,
                queue_depth: 1,
                workload: Workload::RandRead,
                seconds: 0.01,
                cores: vec![first_cpu()],
                idle_latency_us: 0,
            };
            run(&options).unwrap_err().to_string()
        };
        assert_eq!(
            ask("tape", 4096),
            "device `tape` is none of null, malloc, file:PATH, nvme:ADDRESS"
        );
        if cfg!(not(feature = "libspdk")) {
            let said = ask("spdk:null", 4096);
            assert!(said.contains("was built without it"), "{said}");
        }
        assert_eq!(
            ask("null", 100),
            "--io-size 100 is not a multiple of the device's block size 512"
        );
        assert_eq!(
            "sideways".parse::<Workload>().unwrap_err().to_string(),
            "workload `sideways` is none of read, write, randread, randwrite, randrw"
        );
    }
}
