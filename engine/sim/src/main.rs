//! `keel-sim`: runs seeds, replays one, and measures a large cluster.

#![allow(
    clippy::print_stdout,
    reason = "a command-line tool prints its results"
)]

use std::process::ExitCode;
use std::time::Instant;

use engine_sim::{Report, Scenario, run};

const USAGE: &str = "\
Runs clusters of incast variables on virtual time.

  keel-sim --seed N [--trace]        one run; --trace prints every message
  keel-sim --seeds FIRST..LAST       these runs; stops at the first broken rule
  keel-sim --scale RANKS UPDATES     eager updates over a large cluster, timed

A broken rule ends with exit code 1 and the command that replays it.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--seed", seed] => seeds(number(seed)..number(seed) + 1, false),
        ["--seed", seed, "--trace"] => seeds(number(seed)..number(seed) + 1, true),
        ["--seeds", range] => match range.split_once("..") {
            Some((first, last)) => seeds(number(first)..number(last), false),
            None => usage(),
        },
        ["--scale", ranks, updates] => scale(number(ranks) as u32, number(updates)),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    println!("{USAGE}");
    ExitCode::from(2)
}

/// What is no number is 0: the run says which seed it is.
fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

fn seeds(range: std::ops::Range<u64>, trace: bool) -> ExitCode {
    let begun = Instant::now();
    let mut total = Report::default();
    let count = range.end - range.start;
    for seed in range {
        let scenario = Scenario::of(seed);
        if trace {
            println!("{scenario:#?}");
        }
        match run(&scenario, trace) {
            Ok(report) => {
                total.succeeded += report.succeeded;
                total.failed += report.failed;
                total.virtual_ns += report.virtual_ns;
            }
            Err(violation) => {
                println!("{violation}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "{count} runs, {} operations succeeded, {} failed, no rule broken; {} s of virtual time in {:.1} s",
        total.succeeded,
        total.failed,
        total.virtual_ns / 1_000_000_000,
        begun.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}

fn scale(ranks: u32, updates: u64) -> ExitCode {
    let begun = Instant::now();
    match engine_sim::scale(ranks, updates) {
        Ok(report) => {
            println!(
                "{ranks} ranks, {} eager updates, {} messages down, {} answers, {:.3} s of virtual time in {:.1} s",
                report.succeeded,
                report.counts.sync,
                report.counts.answers,
                report.virtual_ns as f64 / 1e9,
                begun.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("{what}");
            ExitCode::FAILURE
        }
    }
}
