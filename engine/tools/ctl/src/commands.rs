//! One file per noun of the command line.

mod bench;
mod bench_control;
pub(crate) mod cert;
mod config;
mod cont;
mod devices;
mod drpc;
mod engine;
mod group;
mod iv;
mod log;
mod metrics;
mod modules;
mod node;
mod obj;
mod pool;
mod slow;
mod tasks;
mod topology;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::error::CliError;

/// Runs what the command line asks for. Only `node doctor` ends well with another code than 0.
pub(crate) fn run(cli: &Cli) -> Result<ExitCode, CliError> {
    match &cli.command {
        Command::Node(command) => return node::run(cli, command),
        Command::Engine(command) => engine::run(cli, command),
        Command::Modules => modules::run(cli),
        Command::Devices(command) => devices::run(cli, command),
        Command::Tasks { pollers } => tasks::run(cli, *pollers),
        Command::Slow { trace } => slow::run(cli, *trace),
        Command::Metrics => metrics::run(cli),
        Command::Log(command) => log::run(cli, command),
        Command::Group(command) => group::run(cli, command),
        Command::Iv(command) => iv::run(cli, command),
        Command::Pool(command) => pool::run(cli, command),
        Command::Cont(command) => cont::run(cli, command),
        Command::Obj(command) => obj::run(cli, command),
        Command::Drpc(command) => drpc::run(cli, command),
        Command::Config(command) => config::run(cli, command),
        Command::Cert(command) => cert::run(cli, command),
        Command::Bench(command) => bench::run(cli, command),
    }?;
    Ok(ExitCode::SUCCESS)
}
