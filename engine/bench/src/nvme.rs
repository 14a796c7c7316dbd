//! What does the NVMe driver cost per I/O, without the device? And how long does it take to attach?
//!
//! A queue pair over the emulated controller, in rounds: submit a queue full, ring; let the device work, off the clock; take the
//! completions. What is left is the driver's own time: building and checking commands, doorbells, phase tags, tables.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail, ensure};
use nvme_fake::{FakeController, FakeOptions, NamespaceOptions};
use serde::Serialize;
use spdk_env::{Clock, DeviceBacking, DmaPool};
use spdk_nvme::{Controller, Io, IoKind, IoTarget, Options as NvmeOptions, QueuePair};

/// Queue pairs of the timed attach.
const ATTACH_PAIRS: u16 = 8;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// I/Os of one round.
    pub queue_depth: u32,
    /// Bytes of one I/O.
    pub io_size: u32,
    /// How long, in seconds, device time included.
    pub seconds: f64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// I/Os of one round.
    pub queue_depth: u32,
    /// Bytes of one I/O.
    pub io_size: u32,
    /// Nanoseconds to submit one I/O, its part of the doorbell included.
    pub submit_ns: f64,
    /// Nanoseconds to take one completion.
    pub complete_ns: f64,
    /// Both.
    pub overhead_ns: f64,
    /// The same of the best tenth of rounds: what it costs when nobody else is on the machine.
    pub best_tenth_ns: f64,
    /// I/Os in all.
    pub ios: u64,
    /// Milliseconds to attach a controller with 8 queue pairs, device time included.
    pub attach_ms: f64,
}

type Pair = QueuePair<FakeController>;

/// Runs the measurement on the calling thread.
pub fn run(options: &Options) -> Result<Report> {
    ensure!(
        options.queue_depth > 0 && options.queue_depth <= 1024,
        "the queue depth is 1 to 1024"
    );
    ensure!(
        options.io_size >= 512
            && options.io_size.is_multiple_of(512)
            && options.io_size <= 128 << 10,
        "the I/O size is a multiple of 512, up to 128 KiB"
    );
    let clock = Clock::tsc();
    let attach_ms = attach_ms(&clock)?;
    let mut namespace = NamespaceOptions::new(1 << 21, 9);
    namespace.discard = true;
    let fake = FakeController::new(FakeOptions {
        namespaces: vec![namespace],
        max_queue_entries: 2048,
        ..FakeOptions::default()
    });
    let pool = DmaPool::new(options.io_size as usize, options.queue_depth as usize)?;
    fake.map_pool(&pool)?;
    let depth = options.queue_depth;
    let nvme = NvmeOptions {
        queue_entries: depth + 1,
        depth,
        ..NvmeOptions::default()
    };
    let mut controller = Controller::new(Arc::new(fake.clone()), nvme)?;
    controller.attach(|| {
        fake.step();
        clock.now()
    })?;
    let Some(namespace) = controller.namespaces().into_iter().next() else {
        bail!("the emulated controller has no namespace");
    };
    let mut pair = controller.queue_pair()?.attach();
    let mut ios: Vec<Io> = (0..depth)
        .map(|i| {
            let blocks = options.io_size / 512;
            let buf = pool.get().ok_or_else(|| anyhow!("the pool is too small"))?;
            Ok(Io::new(IoKind::Read, u64::from(i * blocks), blocks)
                .with_buf(buf)
                .with_user(u64::from(i)))
        })
        .collect::<Result<_>>()?;
    let target = namespace.target();

    let end = clock.now() + (options.seconds * 1e9) as u64;
    let mut rounds: Vec<(u64, u64)> = Vec::with_capacity(1 << 16);
    while clock.now() < end || rounds.is_empty() {
        let before = clock.now();
        submit_round(&mut pair, &target, &mut ios);
        let submitted = clock.now();
        fake.step();
        let answered = clock.now();
        let mut finished = 0;
        while finished < depth {
            finished += take_round(&mut pair, answered, &mut ios);
        }
        rounds.push((submitted - before, clock.now() - answered));
    }
    Ok(report(options, &mut rounds, attach_ms))
}

/// Not inlined, so that an instruction count can be taken of it by name.
#[inline(never)]
fn submit_round(pair: &mut Pair, target: &IoTarget, ios: &mut Vec<Io>) {
    for io in ios.drain(..) {
        let taken = pair.submit(black_box(target), io);
        debug_assert!(taken.is_ok(), "a queue pair of this depth takes them all");
    }
    pair.ring();
}

/// As above.
#[inline(never)]
fn take_round(pair: &mut Pair, now: u64, ios: &mut Vec<Io>) -> u32 {
    pair.poll(now, |done| {
        debug_assert!(
            done.result.is_ok(),
            "the emulated device does no wrong unasked"
        );
        ios.push(done.io);
    })
}

fn attach_ms(clock: &Clock) -> Result<f64> {
    let fake = FakeController::new(FakeOptions::default());
    let options = NvmeOptions {
        queue_pairs: ATTACH_PAIRS,
        ..NvmeOptions::default()
    };
    let before = clock.now();
    let mut controller = Controller::new(Arc::new(fake.clone()), options)?;
    controller.attach(|| {
        fake.step();
        clock.now()
    })?;
    ensure!(
        fake.io_queues() == usize::from(ATTACH_PAIRS),
        "not all queue pairs were created"
    );
    Ok((clock.now() - before) as f64 / 1e6)
}

fn report(options: &Options, rounds: &mut [(u64, u64)], attach_ms: f64) -> Report {
    let depth = f64::from(options.queue_depth);
    let mean = |rounds: &[(u64, u64)], pick: fn(&(u64, u64)) -> u64| {
        rounds.iter().map(pick).sum::<u64>() as f64 / rounds.len() as f64 / depth
    };
    let both = |round: &(u64, u64)| round.0 + round.1;
    let (submit_ns, complete_ns) = (mean(rounds, |r| r.0), mean(rounds, |r| r.1));
    rounds.sort_unstable_by_key(both);
    let best = &rounds[..rounds.len().div_ceil(10)];
    Report {
        queue_depth: options.queue_depth,
        io_size: options.io_size,
        submit_ns,
        complete_ns,
        overhead_ns: submit_ns + complete_ns,
        best_tenth_ns: mean(best, both),
        ios: rounds.len() as u64 * u64::from(options.queue_depth),
        attach_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_comes_back() {
        for (queue_depth, io_size) in [(1, 512), (32, 4096), (128, 128 << 10)] {
            let report = run(&Options {
                queue_depth,
                io_size,
                seconds: 0.01,
            })
            .unwrap();
            assert!(report.ios >= u64::from(queue_depth) && report.overhead_ns > 0.0);
        }
        assert!(
            run(&Options {
                queue_depth: 0,
                io_size: 4096,
                seconds: 0.01
            })
            .is_err()
        );
    }
}
