//! A benchmark's own reactors: one per core, each hosting one thread that runs the measured code.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use spdk_reactor::{ReactorOptions, ReactorSet};
use spdk_thread::{Provider, Thread, ThreadHandle, ThreadOptions};

/// How long a thread may take to end once its work is done.
const STOP: Duration = Duration::from_secs(10);

/// Reactors on `cpus`, one thread on each.
pub(crate) struct Lanes {
    set: ReactorSet,
    provider: Option<Arc<dyn Provider>>,
}

impl Lanes {
    /// Always polling.
    pub(crate) fn start(cpus: &[usize]) -> Result<Lanes> {
        Lanes::with(cpus, 0, None)
    }

    /// With threads of this provider; `None`: our own.
    pub(crate) fn with(
        cpus: &[usize],
        idle_latency_us: u64,
        provider: Option<Arc<dyn Provider>>,
    ) -> Result<Lanes> {
        let options = ReactorOptions {
            cpus: cpus.to_vec(),
            idle_latency_us,
            pin: true,
            name_prefix: "bench".to_owned(),
        };
        Ok(Lanes {
            set: ReactorSet::start(&options).context("the benchmark's reactors do not start")?,
            provider,
        })
    }

    /// Runs `init` on a new thread of reactor `index`. What it sends is the result.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        index: usize,
        init: impl FnOnce(&Thread, mpsc::Sender<T>) + Send + 'static,
    ) -> Result<(ThreadHandle, mpsc::Receiver<T>)> {
        let (sender, receiver) = mpsc::channel();
        let options = ThreadOptions {
            provider: self.provider.clone(),
            ..ThreadOptions::default()
        };
        let run = move |thread: &Thread| init(thread, sender);
        let handle = self.set.reactors()[index].spawn_thread("bench", options, run)?;
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
