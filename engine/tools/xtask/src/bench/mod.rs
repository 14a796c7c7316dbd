//! `cargo xtask bench`: measurements beside peers. Those on this machine alone are `keel bench`.

mod spdk;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use crate::vm;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(crate) struct Args {
    /// Block devices: the native provider, the libspdk provider and plain bdevperf in turns. DIR is a built SPDK 26.x source tree
    #[arg(long, value_name = "DIR")]
    peer_spdk: Option<PathBuf>,
    /// How often each runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each runs, in seconds
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    #[command(subcommand)]
    which: Option<vm::Bench>,
}

pub(crate) fn command(root: &Path, args: &Args) -> Result<ExitCode> {
    match (&args.which, &args.peer_spdk) {
        (Some(which), _) => vm::bench(root, which),
        (None, Some(dir)) => spdk::run(root, dir, args.rounds, args.seconds),
        // clap has shown the help.
        (None, None) => Ok(ExitCode::from(2)),
    }
}
