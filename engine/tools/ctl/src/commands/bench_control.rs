//! `keel bench control`: how long `keel engine status` takes while clients keep every target busy.
//!
//! Unlike the other benchmarks it needs a running engine: what is measured is what an operator feels, connection and all, beside what
//! clients do to that engine. The load is puts and gets in a closed loop in a pool of its own, which goes afterwards.

use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use drpc_wire::keel::EngineStatus;
use engine_bench::{Histogram, Latency};
use obj_client::{Engine, GetOptions, ObjError, PutOptions};
use serde::Serialize;

use crate::cli::{BenchControl, Cli};
use crate::endpoint::Endpoint;
use crate::error::{CliError, Exit};
use crate::output::show;
use crate::store::{engine, failed};

/// Between two questions: they are not to be the load themselves.
const PAUSE: Duration = Duration::from_millis(5);
/// Objects of each connection, at most: enough to come to every target. Fewer where they are large, but two.
const NAMES: u64 = 32;
/// Bytes of all objects, unless that would be less than two of each connection.
const OBJECTS: u64 = 32 << 20;
/// Of the whole time, this part before the load begins.
const QUIET_PART: f64 = 0.25;
const CONT: &str = "load";

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    /// Connections that put and get.
    connections: usize,
    /// Bytes of each object.
    object_size: u64,
    /// Before the load.
    quiet: Answers,
    /// During the load.
    loaded: Answers,
    /// Puts and gets per second.
    requests_per_s: f64,
    /// Time that the core of each target's xstream was busy during the load, percent.
    busy: Vec<Busy>,
}

/// Of questions, one after the other.
#[derive(Debug, Serialize)]
struct Answers {
    count: u64,
    latency_us: Latency,
    max_us: f64,
}

#[derive(Debug, Serialize)]
struct Busy {
    xstream: String,
    percent: f64,
}

pub(crate) fn run(cli: &Cli, options: &BenchControl) -> Result<(), CliError> {
    let whole = Duration::from_secs_f64(options.seconds);
    let quiet = ask(cli, whole.mul_f64(QUIET_PART))?;
    let engine = engine(cli)?;
    let label = format!("bench-control-{}", std::process::id());
    // Replaced objects are freed in the background, so there is room for several of each.
    let (connections, object) = (options.connections as u64, options.object_size.max(4096));
    let size = (connections * names(options) * object * 4).max(16 << 20);
    let pool = engine.create_pool(&label, size).map_err(failed)?;
    let measured = pool
        .create_container(CONT)
        .map_err(failed)
        .and_then(|_| loaded(cli, options, &label, whole.mul_f64(1.0 - QUIET_PART)));
    let gone = engine.destroy_pool(&label, true).map_err(failed);
    let (loaded, requests_per_s, busy) = measured?;
    gone?;
    let report = Report {
        connections: options.connections,
        object_size: options.object_size,
        quiet,
        loaded,
        requests_per_s,
        busy,
    };
    show(cli.output, &report, text)
}

/// Objects of each connection.
fn names(options: &BenchControl) -> u64 {
    let of_one = OBJECTS / options.connections as u64 / options.object_size.max(1);
    of_one.clamp(2, NAMES)
}

fn text(report: &Report) -> String {
    let row = |name: &str, answers: &Answers| {
        let Latency { p50, p99, p999, .. } = answers.latency_us;
        let (count, max) = (answers.count, answers.max_us);
        format!("{name} p50 {p50} p99 {p99} p99.9 {p999} max {max:.0} us, {count} answers\n")
    };
    let busy = |busy: &Busy| format!("{} {:.0} %", busy.xstream, busy.percent);
    let busy: Vec<_> = report.busy.iter().map(busy).collect();
    format!(
        "{}{}load: {:.0} puts and gets/s of {} bytes on {} connections; busy: {}",
        row("status, quiet ", &report.quiet),
        row("status, loaded", &report.loaded),
        report.requests_per_s,
        report.object_size,
        report.connections,
        busy.join(", ")
    )
}

/// Asks for the status again and again, as the command does, each time on a connection of its own.
fn ask(cli: &Cli, time: Duration) -> Result<Answers, CliError> {
    let (mut histogram, mut max) = (Histogram::default(), Duration::ZERO);
    let end = Instant::now() + time;
    loop {
        let asked = Instant::now();
        Endpoint::connect(cli)?.status()?;
        let took = asked.elapsed();
        histogram.record(took.as_nanos() as u64);
        max = max.max(took);
        if Instant::now() + PAUSE >= end {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(Answers {
        count: histogram.count(),
        latency_us: histogram.latency(1.0),
        max_us: max.as_nanos() as f64 / 1000.0,
    })
}

/// Answers beside the load, its requests per second, and how busy it kept the targets.
fn loaded(
    cli: &Cli,
    options: &BenchControl,
    pool: &str,
    time: Duration,
) -> Result<(Answers, f64, Vec<Busy>), CliError> {
    let before = Endpoint::connect(cli)?.status()?;
    let (address, size) = (before.rpc_address.as_str(), options.object_size as usize);
    let over = AtomicBool::new(false);
    let (over, names, began) = (&over, names(options), Instant::now());
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..options.connections)
            .map(|nr| scope.spawn(move || client(address, pool, nr, (size, names), over)))
            .collect();
        let answers = ask(cli, time);
        let after = Endpoint::connect(cli).and_then(|mut engine| engine.status());
        let took = began.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        let mut requests = 0;
        for client in clients {
            let done = client.join();
            let done = done.map_err(|_| CliError::new(Exit::Software, "a client panicked"))?;
            requests += done.map_err(failed)?;
        }
        let busy = busy(&before, &after?);
        Ok((answers?, requests as f64 / took, busy))
    })
}

/// Puts and gets until it is over; how many.
fn client(
    address: &str,
    pool: &str,
    nr: usize,
    (size, names): (usize, u64),
    over: &AtomicBool,
) -> Result<u64, ObjError> {
    let cont = Engine::connect(address)?.pool(pool)?.container(CONT)?;
    let data = vec![nr as u8; size];
    let mut back = Vec::with_capacity(size);
    let mut done = 0;
    while !over.load(Ordering::Relaxed) {
        let name = format!("{nr}/{}", done / 2 % names);
        cont.put(&name, &mut Cursor::new(&data), PutOptions::default())?;
        back.clear();
        cont.get(&name, &mut back, GetOptions::default())?;
        done += 2;
    }
    Ok(done)
}

/// Of the targets' xstreams; time is counted by core.
fn busy(before: &EngineStatus, after: &EngineStatus) -> Vec<Busy> {
    let both = before.xstreams.iter().zip(&after.xstreams);
    both.filter(|(xs, _)| xs.role == "main")
        .map(|(before, after)| {
            let busy = after.busy_ns.saturating_sub(before.busy_ns) as f64;
            let idle = after.idle_ns.saturating_sub(before.idle_ns) as f64;
            Busy {
                xstream: after.name.clone(),
                percent: 100.0 * busy / (busy + idle).max(1.0),
            }
        })
        .collect()
}
