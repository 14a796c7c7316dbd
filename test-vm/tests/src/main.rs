//! `keel-vm`: runs the VM tests by name, or gives a person a VM. `cargo xtask vm` builds everything and starts it.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks to its user"
)]

mod bench;
mod engine;
mod guide;
mod rig;
mod runner;
mod shell;
mod tests;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use test_vm::{Lab, Profile, Unavailable};

/// Exit code of a test run on a machine that can have no VM (automake's for skipped tests); `cargo xtask test` knows it.
const SKIPPED: u8 = 77;

#[derive(Parser)]
#[command(
    name = "cargo xtask vm",
    bin_name = "cargo xtask vm",
    about = "VMs with emulated NVMe: a shell, a command, or tests",
    disable_version_flag = true,
    after_help = "Without a command: a root shell in a VM with one SSD. KEEL_VM_ACCEL=kvm|tcg|auto chooses what executes the guest."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// A root shell in a VM with prepared devices (the default)
    Shell {
        /// Which machine; `list` names them
        #[arg(long, default_value = "one_nvme")]
        profile: String,
    },
    /// Run a shell script in a fresh VM; its exit code is ours
    Exec {
        /// Which machine; `list` names them
        #[arg(long, default_value = "one_nvme")]
        profile: String,
        /// Programs of this machine that the guest gets in /bin, with their libraries
        #[arg(long, value_name = "PATH")]
        with: Vec<PathBuf>,
        /// The script, as one argument or several words
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        script: Vec<String>,
    },
    /// Name the tests and the profiles
    List,
    /// Run tests: those whose names contain one of the words, or all
    Run {
        /// Parts of names
        names: Vec<String>,
    },
    /// Measure the NVMe drivers beside each other: `cargo xtask bench vm` builds optimised programs for it
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let command = Cli::parse().command.unwrap_or(Command::Shell {
        profile: "one_nvme".into(),
    });
    let is_run = matches!(command, Command::Run { .. });
    let result = match command {
        Command::Shell { profile } => shell::shell(&profile),
        Command::Exec {
            profile,
            with,
            script,
        } => shell::exec(&profile, &with, &script.join(" ")),
        Command::List => list(),
        Command::Run { names } => runner::run(&names),
        Command::Bench(options) => bench::run(&options),
    };
    result.unwrap_or_else(|error| {
        if let (true, Some(why)) = (is_run, error.downcast_ref::<Unavailable>()) {
            println!("skipped: {why}");
            return ExitCode::from(SKIPPED);
        }
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

fn list() -> Result<ExitCode> {
    let mut text = String::from("tests:\n");
    for test in tests::ALL.iter().chain(tests::OVER_SPDK) {
        let _ = writeln!(
            text,
            "  {:<28} {:<14} {}",
            test.name, test.profile, test.about
        );
    }
    text += "profiles (test-vm/profiles):\n";
    for name in Profile::names()? {
        let _ = writeln!(text, "  {name:<28} {}", Profile::named(&name)?.about);
    }
    // Whoever reads only the beginning closes the pipe.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// The lab, with the programs that stand beside this one.
fn lab(extra: &[PathBuf]) -> Result<Lab> {
    let this = std::env::current_exe()?;
    let folder = this.parent().context("a program is in a folder")?;
    Lab::open(folder, extra)
}
