//! A benchmark's own reactors: one per core, each hosting one thread that runs the measured code.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use spdk_reactor::{ReactorOptions, ReactorSet};
use spdk_thread::{Thread, ThreadHandle, ThreadOptions};

/// How long a thread may take to end once its work is done.
const STOP: Duration = Duration::from_secs(10);

/// Reactors on `cpus`, one thread on each.
pub(crate) struct Lanes {
    set: ReactorSet,
}

impl Lanes {
    /// Always polling.
    pub(crate) fn start(cpus: &[usize]) -> Result<Lanes> {
        Lanes::with_goal(cpus, 0)
    }

    pub(crate) fn with_goal(cpus: &[usize], idle_latency_us: u64) -> Result<Lanes> {
        let options = ReactorOptions {
            cpus: cpus.to_vec(),
            idle_latency_us,
            pin: true,
            name_prefix: "bench".to_owned(),
        };
        Ok(Lanes {
            set: ReactorSet::start(&options).context("the benchmark's reactors do not start")?,
        })
    }

    /// Runs `init` on a new thread of reactor `index`. What it sends is the result.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        index: usize,
        init: impl FnOnce(&Thread, mpsc::Sender<T>) + Send + 'static,
    ) -> Result<(ThreadHandle, mpsc::Receiver<T>)> {
        let (sender, receiver) = mpsc::channel();
        let handle = self.set.reactors()[index].spawn_thread(
            "bench",
            ThreadOptions::default(),
            move |thread| init(thread, sender),
        )?;
        Ok((handle, receiver))
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        self.set
            .shutdown(STOP)
            .map_err(|held| anyhow!("the benchmark does not end: {held}"))
    }
}

/// Processor time that this process has used.
pub(crate) fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
