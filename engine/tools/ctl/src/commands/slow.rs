//! `keel slow`.

use drpc_wire::{keel, methods};

use crate::cli::Cli;
use crate::endpoint::Endpoint;
use crate::error::CliError;
use crate::output::{show, table};

pub(crate) fn run(cli: &Cli, trace: Option<u64>) -> Result<(), CliError> {
    let mut list: keel::SlowList = Endpoint::connect(cli)?.keel(methods::SLOW, &())?;
    list.records
        .retain(|record| trace.is_none_or(|wanted| record.trace == wanted));
    show(cli.output, &list, text)
}

fn text(list: &keel::SlowList) -> String {
    let row = |record: &keel::SlowRecord| {
        vec![
            format!("{:.1} s", record.age_ms as f64 / 1e3),
            record.kind.clone(),
            record.what.clone(),
            record.place.clone(),
            format!("{:.3} ms", record.took_us as f64 / 1e3),
            record.status.to_string(),
            match record.trace {
                0 => String::new(),
                trace => format!("{trace:016x}"),
            },
        ]
    };
    let head = ["AGO", "KIND", "WHAT", "WHERE", "TOOK", "STATUS", "TRACE"];
    let records = table(&head, &list.records.iter().map(row).collect::<Vec<_>>());
    match list.forgotten {
        0 => records,
        older => format!("{records}\n{older} older ones are forgotten"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_its_io_show_one_number() {
        let record = |kind: &str, what: &str, place: &str, took_us| keel::SlowRecord {
            kind: kind.to_owned(),
            what: what.to_owned(),
            place: place.to_owned(),
            took_us,
            age_ms: 2_300,
            trace: 0x1_0000_0000_002a,
            status: 0,
        };
        let list = keel::SlowList {
            records: vec![
                record("io", "write of 8 blocks at 44", "device ssd0", 1_200_000),
                record(
                    "request",
                    "obj_update",
                    "tag 1 from 10.0.0.7:4711",
                    1_201_500,
                ),
            ],
            forgotten: 3,
        };
        let expected = "\
AGO    KIND     WHAT                     WHERE                     TOOK         STATUS  TRACE
2.3 s  io       write of 8 blocks at 44  device ssd0               1200.000 ms       0  000100000000002a
2.3 s  request  obj_update               tag 1 from 10.0.0.7:4711  1201.500 ms       0  000100000000002a

3 older ones are forgotten";
        assert_eq!(text(&list), expected);
    }
}
