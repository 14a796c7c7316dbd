//! `keel tasks`.

use drpc_wire::{keel, methods};

use crate::cli::Cli;
use crate::endpoint::Endpoint;
use crate::error::CliError;
use crate::output::{show, table};

pub(crate) fn run(cli: &Cli, with_pollers: bool) -> Result<(), CliError> {
    let list: keel::Tasks = Endpoint::connect(cli)?.keel(methods::TASKS, &())?;
    show(cli.output, &list, |list| {
        let row = |t: &keel::Task| {
            vec![
                t.xstream.clone(),
                t.name.clone(),
                t.module.clone(),
                t.state.clone(),
                format!("{} ms", t.age_ms),
                t.polls.to_string(),
                stack(t),
                trace(t),
                t.started_at.clone(),
            ]
        };
        let head = [
            "XSTREAM",
            "TASK",
            "MODULE",
            "STATE",
            "AGE",
            "POLLS",
            "STACK",
            "TRACE",
            "STARTED AT",
        ];
        let tasks = table(&head, &list.tasks.iter().map(row).collect::<Vec<_>>());
        if with_pollers {
            format!("{tasks}\n{}", pollers(list))
        } else {
            tasks
        }
    })
}

/// The deepest use and the size; nothing for one that has no stack of its own.
fn stack(task: &keel::Task) -> String {
    match task.stack_bytes {
        0 => String::new(),
        bytes => format!("{} of {} KiB", task.stack_deepest_bytes >> 10, bytes >> 10),
    }
}

/// The request that it works for, as logs name it.
fn trace(task: &keel::Task) -> String {
    match task.trace {
        0 => String::new(),
        trace => format!("{trace:016x}"),
    }
}

fn pollers(list: &keel::Tasks) -> String {
    let row = |p: &keel::Poller| {
        let period = match p.period_ns {
            0 => "every turn".to_owned(),
            ns => format!("{} us", ns / 1000),
        };
        vec![
            p.xstream.clone(),
            p.name.clone(),
            p.module.clone(),
            if p.paused {
                "paused".to_owned()
            } else {
                period
            },
            p.calls.to_string(),
            p.busy.to_string(),
        ]
    };
    table(
        &["XSTREAM", "POLLER", "MODULE", "PERIOD", "CALLS", "BUSY"],
        &list.pollers.iter().map(row).collect::<Vec<_>>(),
    )
}
