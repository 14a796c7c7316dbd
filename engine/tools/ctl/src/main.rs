//! `keel`: the operator's command line.

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod commands;
mod endpoint;
mod error;
mod output;
mod progress;
mod store;

use cli::{Cli, Format};
use error::CliError;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match commands::run(&cli) {
        Ok(code) => code,
        Err(error) => {
            report(&cli, &error);
            ExitCode::from(error.exit as u8)
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a command's failure goes to the standard error"
)]
fn report(cli: &Cli, error: &CliError) {
    if cli.output == Format::Json {
        let value = serde_json::json!({ "error": error.what, "cure": error.cure, "exit_code": error.exit as u8 });
        eprintln!("{value}");
        return;
    }
    eprintln!("keel: {}", error.what);
    if let Some(cure) = &error.cure {
        eprintln!("  cure: {cure}");
    }
}
