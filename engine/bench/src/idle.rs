//! What does rest cost, and how late is work that ends it? Messages at irregular times to a reactor that has nothing else to
//! do: from before the send until it runs there; and the processor time of a reactor without any work.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use spdk_env::{Clock, cpu};
use spdk_reactor::{Depth, ReactorOptions, ReactorSet};
use spdk_thread::{ThreadHandle, ThreadOptions};

use crate::histogram::{Histogram, Latency};
use crate::lane::cpu_seconds;

/// Between two messages: longer than any pause before a sleep, and irregular.
const SHORTEST: Duration = Duration::from_micros(300);
const SPREAD: u64 = 2_000;
/// Not counted: the reactor learns what this machine's wake-ups take.
const WARM_UP: u64 = 300;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The goal, in microseconds.
    pub idle_latency_us: u64,
    /// CPUs of sender and sleeper.
    pub cores: [usize; 2],
    /// From before the send until it runs.
    pub wake_us: Latency,
    /// The latest.
    pub wake_max_us: f64,
    /// Messages measured.
    pub wakes: u64,
    /// How many of them were later than the goal, in percent.
    pub late_percent: f64,
    /// How often the reactor slept, and gave up sleeping for a while.
    pub sleeps: u64,
    /// See `sleeps`.
    pub holds: u64,
    /// Processor time of a reactor without work, in percent of a core.
    pub idle_cpu_percent: f64,
}

/// Both measurements, `seconds` each, with a goal of `idle_latency_us`.
pub fn run(seconds: f64, idle_latency_us: u64) -> Result<Report> {
    let cpus = cpu::allowed()?;
    let first = *cpus.first().context("this process may use no CPU")?;
    let last = *cpus.last().unwrap_or(&first);
    let options = ReactorOptions {
        cpus: vec![first],
        idle_latency_us,
        pin: true,
        name_prefix: "bench".to_owned(),
    };
    let mut set = ReactorSet::start(&options).context("the benchmark's reactor does not start")?;
    let reactor = set.reactors()[0].clone();
    let sleeper = reactor.spawn_thread("sleeper", ThreadOptions::default(), |_| {})?;

    let before = cpu_seconds();
    let began = Instant::now();
    thread::sleep(Duration::from_secs_f64(seconds));
    let idle = (cpu_seconds() - before) / began.elapsed().as_secs_f64();

    let samples = thread::scope(|scope| {
        scope
            .spawn(|| {
                cpu::pin_current_thread(last)?;
                wake_it(&sleeper, seconds)
            })
            .join()
            .map_err(|_| anyhow!("the sender panicked"))?
    })?;
    let stats = reactor.stats();
    drop(sleeper);
    set.shutdown(Duration::from_secs(10))
        .map_err(|held| anyhow!("the benchmark does not end: {held}"))?;

    let mut histogram = Histogram::default();
    samples.iter().for_each(|&ns| histogram.record(ns));
    let late = samples.iter().filter(|&&ns| ns > idle_latency_us * 1000);
    let late_percent = late.count() as f64 * 100.0 / samples.len().max(1) as f64;
    Ok(Report {
        idle_latency_us,
        cores: [last, first],
        wake_us: histogram.latency(1.0),
        wake_max_us: samples.iter().max().map_or(0.0, |&ns| ns as f64 / 1e3),
        wakes: samples.len() as u64,
        late_percent,
        sleeps: stats.at(Depth::Sleep).count,
        holds: stats.holds,
        idle_cpu_percent: idle * 100.0,
    })
}

/// One message at a time; nanoseconds of each, the first ones left out.
fn wake_it(sleeper: &ThreadHandle, seconds: f64) -> Result<Vec<u64>> {
    let clock = Clock::tsc();
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let (reply, ran) = mpsc::channel();
    let mut samples = Vec::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut sent_so_far = 0;
    while Instant::now() < end {
        // xorshift: irregular is enough.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        thread::sleep(SHORTEST + Duration::from_micros(random % SPREAD));
        let reply = reply.clone();
        let sent = clock.now();
        sleeper
            .send(move |_| {
                // The sender waits for it.
                let _ = reply.send(Clock::tsc().now());
            })
            .context("the sleeper takes no message")?;
        let at = ran.recv().context("the sleeper ended")?;
        sent_so_far += 1;
        if sent_so_far > WARM_UP || seconds < 1.0 {
            samples.push(at.saturating_sub(sent));
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_sleeper_wakes_for_every_message() {
        let report = super::run(0.05, 20).unwrap();
        assert!(report.wakes > 0 && report.sleeps > 0, "{report:?}");
        assert!(report.wake_max_us >= report.wake_us.p50 * 0.9, "{report:?}");
    }
}
