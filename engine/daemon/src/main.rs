//! `keel-engine`: the daemon.

use std::process::ExitCode;

use clap::Parser;

mod boot;
mod cli;
mod control;
mod cores;
mod device_book;
mod device_health;
mod device_return;
mod device_watch;
mod devices;
mod dma_memory;
mod error;
mod events;
mod group;
mod host_check;
mod hosted;
mod identity;
mod iv;
#[cfg(feature = "libspdk")]
mod libspdk;
#[cfg(not(feature = "libspdk"))]
mod no_libspdk;
mod phases;
mod ras;
mod report;
mod roll_call;
mod security;
mod slow;
mod ssds;
mod state;
mod stop;
mod watch;
mod wiring;

#[cfg(not(feature = "libspdk"))]
use no_libspdk as libspdk;

/// What could not be logged, because logging is not up or not at all.
#[expect(
    clippy::print_stderr,
    reason = "a daemon that does not start says so on the standard error"
)]
fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let mut booted = match boot::boot(&cli) {
        Ok(booted) => booted,
        Err(error) => {
            eprintln!("keel-engine: {}", error.what);
            return error.exit.into();
        }
    };
    booted.wait();
    booted.stop()
}
