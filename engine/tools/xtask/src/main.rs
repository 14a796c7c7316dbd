//! `cargo xtask`: what a developer runs. Prints, so that is what it may do.
//!
//! | command | module |
//! |---|---|
//! | `bench` | `bench`: native, libspdk and bdevperf in turns; `vm`: drivers beside each other in a VM |
//! | `check` | `check`: rules on the source tree itself, in a second or two |
//! | `run` | `run`: builds all, starts an engine, stores and re-reads real files, serves |
//! | `test` | `test`: everything that CI runs, stage by stage |
//! | `vm` | `vm`: builds all and starts `keel-vm`, which has VMs and the tests in them |
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks to its user"
)]

mod bench;
mod cargo;
mod check;
mod facts;
mod finding;
mod run;
mod source_tree;
mod test;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Keel's developer commands",
    disable_version_flag = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measurements beside peers
    Bench(bench::Args),
    /// Static checks: layers, tidiness, the unsafe inventory, the configuration schema
    Check(check::Args),
    /// Build, start an engine on file devices, store real files, restart, read back and compare; then serve until Ctrl-C
    Run(run::Args),
    /// Everything that CI runs; all stages, then one table
    Test(test::Args),
    /// A root shell in a VM with emulated NVMe, or `exec`, `list`, `run TEST` (`cargo xtask vm help`)
    #[command(disable_help_flag = true)]
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Bench(args) => bench::command(&root(), &args),
        Command::Check(args) => check::command(&root(), &args),
        Command::Run(args) => run::command(&root(), &args),
        Command::Test(args) => test::command(&root(), &args),
        Command::Vm(args) => vm::command(&root(), &args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

/// The top of the source tree: cargo says where this crate is, three levels below it.
fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = manifest.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    here.ancestors()
        .nth(3)
        .map_or_else(|| PathBuf::from("."), PathBuf::from)
}
