//! `cargo xtask run`: from an empty machine to real files stored in an engine, read back after a restart, and compared.
//!
//! Everything goes through what a user has: the built `keel-engine` and `keel`, on config/examples/dev.toml.

mod engine;
mod files;
mod report;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use self::engine::Engine;
use self::files::{Files, Item};
use self::report::Report;
use crate::cargo::{self, Profile};

const CONFIG: &str = "config/examples/dev.toml";
const POOL: &str = "demo";
const CONT: &str = "files";

/// How to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Stop after the demonstration; success means that every byte matched.
    #[arg(long)]
    once: bool,
    /// MiB of incompressible files to generate beside the project's own sources.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1024))]
    mib: u64,
}

pub(crate) fn command(root: &Path, args: &Args) -> Result<ExitCode> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let programs = build(root)?;
    let stop = || ensure_running(&interrupted);
    let mut report = Report::default();

    let mut engine = Engine::start(root, &programs, CONFIG)?;
    report.started(&engine)?;
    let files = Files::collect(root, args.mib)?;
    make_room(&engine, args.mib)?;
    stop()?;
    let stored = put_all(&engine, &files, &stop)?;
    report.stored(&files, stored);

    println!("restarting the engine: what is read back comes from the devices, not from memory");
    engine.stop()?;
    engine = Engine::start(root, &programs, CONFIG)?;
    report.started(&engine)?;
    stop()?;
    let (read, wrong) = get_all(&engine, &files, &stop)?;
    report.read(&files, read, &wrong);
    report.device_counters(&engine)?;
    println!("\n{report}");

    if args.once {
        engine.stop()?;
    } else {
        println!(
            "\nserving until Ctrl-C; try in another terminal:\n  {} engine status\n  {} obj ls {POOL} {CONT}",
            programs.keel.display(),
            programs.keel.display()
        );
        engine.wait_for_end(&interrupted)?;
    }
    Ok(if wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn ensure_running(interrupted: &AtomicBool) -> Result<()> {
    ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

/// The built programs.
pub(crate) struct Programs {
    pub(crate) engine: PathBuf,
    pub(crate) keel: PathBuf,
}

fn build(root: &Path) -> Result<Programs> {
    println!("building (the first time takes some minutes)");
    let packages = ["engine", "engine_ctl", "hello", "iv_demo", "mgmt", "obj"];
    let programs = cargo::build(root, &packages, Profile::Release, |_| ())?;
    let keel = programs.join("keel");
    Ok(Programs {
        engine: programs.join("keel-engine"),
        // As people type it.
        keel: keel.strip_prefix(root).map_or(keel.clone(), PathBuf::from),
    })
}

/// A pool of the demonstration's own; what a user stored elsewhere stays.
fn make_room(engine: &Engine, mib: u64) -> Result<()> {
    let pools = engine.keel_json(&["pool", "list"])?;
    let exists = pools
        .as_array()
        .is_some_and(|pools| pools.iter().any(|pool| pool["label"] == POOL));
    if exists {
        engine.keel(&["pool", "destroy", POOL, "--force"])?;
    }
    // Placement by hash is uneven over few files; the rest of the devices is the user's.
    let size = format!("{}MiB", mib * 3 / 2 + 128);
    engine.keel(&["pool", "create", POOL, "--size", &size])?;
    engine.keel(&["cont", "create", POOL, CONT])
}

fn bar(files: &Files, verb: &'static str) -> Result<ProgressBar> {
    let bar = ProgressBar::new(files.bytes);
    bar.set_style(ProgressStyle::with_template(
        "{msg:6} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}",
    )?);
    bar.set_message(verb);
    Ok(bar)
}

fn put_all(engine: &Engine, files: &Files, stop: &dyn Fn() -> Result<()>) -> Result<Duration> {
    let started = Instant::now();
    let bar = bar(files, "store")?;
    for item in &files.items {
        stop()?;
        engine.keel(&[
            "obj",
            "put",
            POOL,
            CONT,
            &item.name,
            &item.path.to_string_lossy(),
        ])?;
        bar.inc(item.size);
    }
    bar.finish();
    Ok(started.elapsed())
}

/// Reads every object into a file of its own and compares it with the original's checksum, taken before it was stored.
fn get_all(
    engine: &Engine,
    files: &Files,
    stop: &dyn Fn() -> Result<()>,
) -> Result<(Duration, Vec<String>)> {
    let bar = bar(files, "read")?;
    let copy = files.scratch.join("copy");
    let (mut spent, mut wrong) = (Duration::ZERO, Vec::new());
    for item in &files.items {
        stop()?;
        let started = Instant::now();
        engine.keel(&[
            "obj",
            "get",
            POOL,
            CONT,
            &item.name,
            &copy.to_string_lossy(),
        ])?;
        spent += started.elapsed();
        if let Err(error) = compare(item, &copy) {
            wrong.push(format!("{}: {error}", item.name));
        }
        bar.inc(item.size);
    }
    bar.finish();
    Ok((spent, wrong))
}

fn compare(item: &Item, copy: &Path) -> Result<()> {
    let (size, crc) = files::checksum(copy)?;
    if (size, crc) != (item.size, item.crc) {
        bail!(
            "stored {} bytes with checksum {:08x}, read {size} bytes with checksum {crc:08x}",
            item.size,
            item.crc
        );
    }
    Ok(())
}
