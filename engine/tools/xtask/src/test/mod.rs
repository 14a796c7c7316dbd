//! `cargo xtask test`: everything that CI runs. All stages run, whatever fails; then one table and one closing line.

mod counts;
mod etcd;
mod stage;
mod table;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use stage::{Outcome, Stage};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only these stages (see --list)
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave out these stages: `--skip vm` where QEMU cannot be had
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    skip: Vec<String>,
    /// Name the stages and what each one runs
    #[arg(long)]
    list: bool,
    /// `libspdk`: only what runs over C SPDK, which SPDK_DIR or pkg-config names; says so where there is none
    #[arg(long, value_enum, default_value_t = Provider::Native)]
    provider: Provider,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Provider {
    Native,
    Libspdk,
}

pub(crate) fn command(root: &Path, args: &Args) -> Result<ExitCode> {
    let stages = match args.provider {
        Provider::Native => stage::all(root),
        Provider::Libspdk => stage::over_spdk(),
    };
    if args.list {
        stages
            .iter()
            .for_each(|stage| println!("{:<10} {}", stage.name, stage.shown()));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = args
        .only
        .iter()
        .chain(&args.skip)
        .find(|name| !stages.iter().any(|stage| stage.name == **name))
    {
        let known: Vec<&str> = stages.iter().map(|stage| stage.name).collect();
        anyhow::bail!(
            "there is no stage `{unknown}`; there are {}",
            known.join(", ")
        );
    }
    let names = |list: &[String], stage: &Stage| list.iter().any(|name| name == stage.name);
    let chosen = |stage: &&Stage| {
        (args.only.is_empty() || names(&args.only, stage)) && !names(&args.skip, stage)
    };
    let mut rows = Vec::new();
    for stage in stages.iter().filter(chosen) {
        println!("\n== {}: {}", stage.name, stage.shown());
        let begun = Instant::now();
        let outcome = stage.run(root).unwrap_or_else(|error| {
            println!("{error:#}");
            Outcome::failed()
        });
        rows.push(table::Row {
            stage: stage.name,
            outcome,
            took: begun.elapsed(),
        });
    }
    print!("{}", table::render(&rows));
    let failed = rows.iter().any(|row| row.outcome.has_failed());
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
