//! The daemon's command line: which file, and overrides of its keys.

use std::path::PathBuf;

use clap::Parser;

/// The Keel storage engine. Runs in the foreground until SIGTERM or SIGINT; systemd looks after it.
#[derive(Parser)]
#[command(name = "keel-engine", version, max_term_width = 120, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Override a key of the file; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
}

const AFTER_HELP: &str = "\
Examples:
  keel-engine --config /etc/keel/engine.toml
  keel-engine --config dev.toml --set engine.targets=2 --set telemetry.log_mask=DEBUG
  keel config check --config dev.toml      everything wrong with a file, without starting

Exit codes: 0 stopped in good order; 2 wrong usage; 70 internal error or not everything stopped in time; 71 the operating system
refused something; 73 a device, socket or directory cannot be used; 78 configuration or module wrong.";
