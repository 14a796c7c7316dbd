//! What does a ULT cost? Create + run + join in batches of 1,000, and yield among 100; async ones, and those with a stack.
//!
//! Comparable with Argobots: `ABT_thread_create` + `ABT_thread_join`, `ABT_thread_yield`.

use std::future::Future;

use anyhow::{Context, Result};
use engine_ult::{UltError, ult, wait};
use serde::Serialize;
use spdk_env::Clock;
use spdk_thread::{Thread, yield_now};

use crate::lane::Lanes;
use crate::peer::Figure;

const BATCH: usize = 1000;
const YIELDERS: usize = 100;
const YIELDS: u64 = 1000;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Nanoseconds to create, run and join one async ULT.
    pub create_run_join_ns: f64,
    /// Nanoseconds from one async ULT's yield to the next one running.
    pub yield_ns: f64,
    /// As `create_run_join_ns`, with a stack of its own.
    pub stackful_create_run_join_ns: f64,
    /// As `yield_ns`, with a stack of its own.
    pub stackful_yield_ns: f64,
    /// ULTs created, of both kinds.
    pub ults: u64,
    /// Yields made, in both kinds.
    pub yields: u64,
}

impl Report {
    /// For a comparison. A peer has one kind of ULT: both of ours stand beside it.
    pub fn figures(&self) -> Vec<Figure> {
        let figure = |name, value, peer_name| Figure {
            name,
            value,
            peer_name,
        };
        vec![
            figure(
                "create_run_join_ns",
                self.create_run_join_ns,
                "create_run_join_ns",
            ),
            figure("yield_ns", self.yield_ns, "yield_ns"),
            figure(
                "stackful_create_run_join_ns",
                self.stackful_create_run_join_ns,
                "create_run_join_ns",
            ),
            figure("stackful_yield_ns", self.stackful_yield_ns, "yield_ns"),
        ]
    }
}

/// Runs the four measurements, `seconds` each, on the first core.
pub fn run(seconds: f64) -> Result<Report> {
    let cpu = spdk_env::cpu::allowed()?[0];
    let lanes = Lanes::start(&[cpu])?;
    let (_, done) = lanes.run(0, move |thread, done| {
        let spawner = thread.clone();
        let spawned = thread.spawn("bench_ult", async move {
            let report = measure(&spawner, (seconds * 1e9) as u64).await;
            let _ = done.send(report);
        });
        // The benchmark's own first task: far below the thread's limit.
        drop(spawned);
    })?;
    let report = done
        .recv()
        .context("the benchmark's ULT ended without a result")?;
    lanes.stop()?;
    report
}

async fn measure(thread: &Thread, ns: u64) -> Result<Report> {
    let created = batches(thread, ns, BATCH, || async { Ok(1) }).await?;
    let yielded = batches(thread, ns, YIELDERS, || async {
        for _ in 0..YIELDS {
            yield_now().await;
        }
        Ok(YIELDS)
    })
    .await?;
    let stackful_created = batches(thread, ns, BATCH, || ult("bench", 0, || 1)).await?;
    let stackful_yielded = batches(thread, ns, YIELDERS, || {
        ult("bench", 0, || {
            (0..YIELDS).for_each(|_| wait(yield_now()));
            YIELDS
        })
    })
    .await?;
    Ok(Report {
        create_run_join_ns: created.ns_each(),
        yield_ns: yielded.ns_each(),
        stackful_create_run_join_ns: stackful_created.ns_each(),
        stackful_yield_ns: stackful_yielded.ns_each(),
        ults: created.done + stackful_created.done,
        yields: yielded.done + stackful_yielded.done,
    })
}

struct Measured {
    elapsed_ns: u64,
    /// Sum of what the ULTs returned.
    done: u64,
}

impl Measured {
    fn ns_each(&self) -> f64 {
        self.elapsed_ns as f64 / self.done as f64
    }
}

/// Starts `size` tasks and joins them, again and again for `ns`.
async fn batches<F>(thread: &Thread, ns: u64, size: usize, make: impl Fn() -> F) -> Result<Measured>
where
    F: Future<Output = Result<u64, UltError>> + 'static,
{
    let clock = Clock::tsc();
    let (start, mut done) = (clock.now(), 0);
    let mut handles = Vec::with_capacity(size);
    loop {
        for _ in 0..size {
            handles.push(thread.spawn("bench", make())?);
        }
        for handle in handles.drain(..) {
            done += handle.await??;
        }
        let elapsed_ns = clock.now() - start;
        if elapsed_ns >= ns {
            return Ok(Measured { elapsed_ns, done });
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ults_of_both_kinds_run_and_yield() {
        let report = super::run(0.01).unwrap();
        assert!(
            report.ults >= 2000 && report.yields >= 200_000,
            "{report:?}"
        );
        assert!(report.figures().iter().all(|figure| figure.value > 0.0));
    }
}
