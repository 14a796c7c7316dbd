//! `keel bench bdev|message|idle|ult|sched|tls|iv|rpc|drpc|nvme`: runs in this process, needs no engine; `control` is in a file of its own.

use engine_bench::{Latency, bdev, drpc, idle, iv, message, nvme, peer, rpc, sched, tls, ult};

use crate::cli::{Bench, BenchBdev, BenchMessage, BenchNvme, BenchPeer, BenchRpc, BenchSched, Cli};
use crate::commands::bench_control;
use crate::error::{CliError, Exit};
use crate::output::{show, table};

pub(crate) fn run(cli: &Cli, command: &Bench) -> Result<(), CliError> {
    match command {
        Bench::Bdev(options) => bdev(cli, options),
        Bench::Nvme(options) => nvme(cli, options),
        Bench::Message(options) => message(cli, options),
        Bench::Idle(options) => show(
            cli.output,
            &idle::run(options.seconds, options.idle_latency_us).map_err(failed)?,
            |r| {
                format!(
                    "woken within {} max {:.1} us, {:.2} % of {} later than {} us\n{} sleeps, given up for a while {} times\n\
                     {:.2} % of a core without work",
                    latency(&r.wake_us),
                    r.wake_max_us,
                    r.late_percent,
                    r.wakes,
                    r.idle_latency_us,
                    r.sleeps,
                    r.holds,
                    r.idle_cpu_percent
                )
            },
        ),
        Bench::Ult(options) => ult(cli, options),
        Bench::Sched(options) => sched(cli, options),
        Bench::Control(options) => bench_control::run(cli, options),
        Bench::Tls(options) => show(
            cli.output,
            &tls::run(options.seconds).map_err(failed)?,
            |r| {
                format!(
                    "typed key {:.2} ns\nas a module reads it {:.2} ns",
                    r.typed_ns, r.module_ns
                )
            },
        ),
        Bench::Iv(options) => show(
            cli.output,
            &iv::run(options.seconds).map_err(failed)?,
            |r| {
                format!(
                    "cached read on a target {:.1} ns, as a type {:.1} ns\neager update over the caches of an engine {}\neager update over {} ranks on rings in one process {}\n{:.0} updates/s among {} ranks over TCP",
                    r.cached_ns,
                    r.typed_ns,
                    latency(&r.eager_us),
                    r.ring_ranks,
                    latency(&r.rings_us),
                    r.updates_per_s,
                    r.ranks
                )
            },
        ),
        Bench::Rpc(options) => self::rpc(cli, options),
        Bench::Drpc(options) => show(
            cli.output,
            &drpc::run(options.seconds).map_err(failed)?,
            |r| {
                format!(
                    "dRPC echo of 64 bytes {}\nbare socket ping-pong {}\nratio of the medians {:.2}",
                    latency(&r.drpc_us),
                    latency(&r.bare_us),
                    r.ratio_p50
                )
            },
        ),
    }
}

fn message(cli: &Cli, options: &BenchMessage) -> Result<(), CliError> {
    let threads = match options {
        #[cfg(feature = "libspdk")]
        BenchMessage { libspdk: true, .. } => message::Threads::Libspdk,
        _ => message::Threads::Native,
    };
    let options = &options.measured;
    let measure = || message::run(options.seconds, threads);
    if let Some(peer) = &options.peer {
        return compared(cli, peer, options.rounds, || Ok(measure()?.figures()));
    }
    show(cli.output, &measure().map_err(failed)?, |r| {
        format!(
            "{:.2} M messages/s from CPU {} to CPU {}\nround trip {}",
            r.messages_per_s / 1e6,
            r.cores[0],
            r.cores[1],
            latency(&r.round_trip_us)
        )
    })
}

fn rpc(cli: &Cli, options: &BenchRpc) -> Result<(), CliError> {
    let measure = || rpc::run(options.peer.seconds, options.certificates.clone());
    if let Some(peer) = &options.peer.peer {
        return compared(cli, peer, options.peer.rounds, || Ok(measure()?.figures()));
    }
    show(cli.output, &measure().map_err(failed)?, |r| {
        format!(
            "a call of 64 bytes {}\n{:.0} MiB/s of requests' data, {:.0} MiB/s of answers', {:.0} MiB/s taken of what is offered{}",
            latency(&r.echo_us),
            r.push_mib_per_s,
            r.pull_mib_per_s,
            r.take_mib_per_s,
            if r.tls { ", over TLS" } else { "" }
        )
    })
}

fn ult(cli: &Cli, options: &BenchPeer) -> Result<(), CliError> {
    let measure = || ult::run(options.seconds);
    if let Some(peer) = &options.peer {
        return compared(cli, peer, options.rounds, || Ok(measure()?.figures()));
    }
    show(cli.output, &measure().map_err(failed)?, |r| {
        format!(
            "create + run + join {:.1} ns\nyield {:.1} ns\n\
             with a stack of its own: create + run + join {:.1} ns\nwith a stack of its own: yield {:.1} ns",
            r.create_run_join_ns, r.yield_ns, r.stackful_create_run_join_ns, r.stackful_yield_ns
        )
    })
}

fn compared(
    cli: &Cli,
    command: &str,
    rounds: u32,
    ours: impl FnMut() -> anyhow::Result<Vec<peer::Figure>>,
) -> Result<(), CliError> {
    let comparison = peer::compare(command, rounds, ours).map_err(failed)?;
    show(cli.output, &comparison, |comparison| {
        let number = |value: Option<f64>, digits| {
            value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let row = |figure: &peer::Compared| {
            let ours = number(Some(figure.ours), 1);
            let (peer, ratio) = (number(figure.peer, 1), number(figure.ratio, 2));
            vec![figure.name.to_owned(), ours, peer, ratio]
        };
        let rows: Vec<_> = comparison.figures.iter().map(row).collect();
        table(&["FIGURE", "OURS", "PEER", "RATIO"], &rows)
    })
}

fn bdev(cli: &Cli, options: &BenchBdev) -> Result<(), CliError> {
    let options = bdev::Options {
        device: options.device.clone(),
        io_size: options.io_size,
        queue_depth: options.queue_depth,
        workload: options.workload.parse().map_err(failed)?,
        seconds: options.seconds,
        cores: options.cores.clone(),
        idle_latency_us: options.idle_latency_us,
    };
    let report = bdev::run(&options).map_err(failed)?;
    show(cli.output, &report, |r| {
        let errors = if r.errors == 0 {
            String::new()
        } else {
            format!("\n{} I/Os FAILED", r.errors)
        };
        format!(
            "{:.0} IOPS, {:.1} MiB/s\nlatency {}\n{:.2} s of processor time in {:.2} s{errors}",
            r.iops,
            r.mib_per_s,
            latency(&r.latency_us),
            r.cpu_seconds,
            r.seconds
        )
    })
}

fn nvme(cli: &Cli, options: &BenchNvme) -> Result<(), CliError> {
    let options = nvme::Options {
        queue_depth: options.queue_depth,
        io_size: u32::try_from(options.io_size).unwrap_or(u32::MAX),
        seconds: options.seconds,
    };
    let report = nvme::run(&options).map_err(failed)?;
    show(cli.output, &report, |r| {
        format!(
            "{:.1} ns per I/O (submit {:.1}, complete {:.1}; best tenth of the rounds {:.1})\nattach with 8 queue pairs {:.2} ms",
            r.overhead_ns, r.submit_ns, r.complete_ns, r.best_tenth_ns, r.attach_ms
        )
    })
}

fn sched(cli: &Cli, options: &BenchSched) -> Result<(), CliError> {
    let report = sched::run(options.seconds, options.load_percent).map_err(failed)?;
    show(cli.output, &report, |r| {
        let case = |name: &str, case: &sched::Case| {
            format!(
                "{name} {:.0} updates/s, {:.0} gc/s, {:.0} scrub/s, {}\n",
                case.updates_per_s,
                case.gc_per_s,
                case.scrub_per_s,
                latency(&case.latency_us)
            )
        };
        format!(
            "{}{}{}ratio of p99.9 {:.2} at {} % load",
            case("alone      ", &r.alone),
            case("scheduled  ", &r.scheduled),
            case("unscheduled", &r.unscheduled),
            r.ratio_p999,
            r.load_percent
        )
    })
}

fn latency(l: &Latency) -> String {
    format!(
        "mean {} p50 {} p99 {} p99.9 {} p99.99 {} us",
        l.mean, l.p50, l.p99, l.p999, l.p9999
    )
}

fn failed(error: anyhow::Error) -> CliError {
    CliError::new(Exit::Failed, format!("{error:#}"))
}
