//! What does an async ULT cost? Create + run + join in batches of 1,000, and yield among 100.
//!
//! Comparable with Argobots: `ABT_thread_create` + `ABT_thread_join`, `ABT_thread_yield`.

use std::cell::Cell;
use std::rc::Rc;

use anyhow::{Context, Result};
use serde::Serialize;
use spdk_env::Clock;
use spdk_thread::{Thread, yield_now};

use crate::lane::Lanes;

const BATCH: usize = 1000;
const YIELDERS: usize = 100;
const YIELDS: usize = 1000;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Nanoseconds to create, run and join one ULT.
    pub create_run_join_ns: f64,
    /// ULTs created.
    pub ults: u64,
    /// Nanoseconds from one ULT's yield to the next one running.
    pub yield_ns: f64,
    /// Yields made.
    pub yields: u64,
}

/// Runs both measurements, `seconds` each, on the first core.
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
    let clock = Clock::tsc();
    let (start, ran) = (clock.now(), Rc::new(Cell::new(0u64)));
    let mut handles = Vec::with_capacity(BATCH);
    while clock.now() - start < ns {
        for _ in 0..BATCH {
            let ran = ran.clone();
            handles.push(thread.spawn("bench", async move { ran.set(ran.get() + 1) })?);
        }
        for handle in handles.drain(..) {
            handle.await?;
        }
    }
    let (create_ns, ults) = (clock.now() - start, ran.get());

    let (start, yields) = (clock.now(), Rc::new(Cell::new(0u64)));
    while clock.now() - start < ns {
        for _ in 0..YIELDERS {
            let yields = yields.clone();
            handles.push(thread.spawn("bench", async move {
                for _ in 0..YIELDS {
                    yield_now().await;
                }
                yields.set(yields.get() + YIELDS as u64);
            })?);
        }
        for handle in handles.drain(..) {
            handle.await?;
        }
    }
    let yield_ns = clock.now() - start;
    Ok(Report {
        create_run_join_ns: create_ns as f64 / ults as f64,
        ults,
        yield_ns: yield_ns as f64 / yields.get() as f64,
        yields: yields.get(),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn ults_run_and_yield() {
        let report = super::run(0.01).unwrap();
        assert!(
            report.ults >= 1000 && report.yields >= 100_000,
            "{report:?}"
        );
    }
}
