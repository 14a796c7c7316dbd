//! `keel tasks`.

use drpc_wire::{keel, methods};

use crate::cli::Cli;
use crate::endpoint::Endpoint;
use crate::error::CliError;
use crate::output::{show, table};

pub(crate) fn run(cli: &Cli) -> Result<(), CliError> {
    let list: keel::Tasks = Endpoint::connect(cli)?.keel(methods::TASKS, &())?;
    show(cli.output, &list, |list| {
        let row = |t: &keel::Task| {
            vec![
                t.xstream.clone(),
                t.name.clone(),
                t.module.clone(),
                t.state.clone(),
                format!("{} ms", t.age_ms),
            ]
        };
        table(
            &["XSTREAM", "TASK", "MODULE", "STATE", "AGE"],
            &list.tasks.iter().map(row).collect::<Vec<_>>(),
        )
    })
}
