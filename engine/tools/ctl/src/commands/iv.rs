//! `keel iv list|show|trace|watch`.

use std::collections::BTreeMap;
use std::time::Duration;

use drpc_wire::{keel, methods};

use crate::cli::{Cli, Format, Iv};
use crate::endpoint::Endpoint;
use crate::error::{CliError, Exit};
use crate::output::{show, table, write_out};

/// Variables of each namespace that are watched.
const WATCHED: u32 = 10_000;

pub(crate) fn run(cli: &Cli, command: &Iv) -> Result<(), CliError> {
    match command {
        Iv::List => show(cli.output, &ask(cli, 0)?, list_text),
        Iv::Show { name, most } => variables(cli, name.as_deref(), *most),
        Iv::Trace {
            name,
            class,
            key,
            most,
        } => {
            let request = keel::IvTraceReq {
                space: name.clone(),
                class: class.clone(),
                key: key.clone(),
                most: *most,
            };
            trace(cli, &request)
        }
        Iv::Watch { interval_ms, count } => watch(
            cli,
            Duration::from_millis(*interval_ms),
            count.unwrap_or(u64::MAX),
        ),
    }
}

fn ask(cli: &Cli, most: u32) -> Result<keel::IvList, CliError> {
    Endpoint::connect(cli)?.keel(methods::IV_LIST, &keel::IvListReq { most })
}

fn list_text(list: &keel::IvList) -> String {
    let row = |space: &keel::IvSpace| {
        let path: Vec<String> = space.path.iter().map(u32::to_string).collect();
        vec![
            space.name.clone(),
            if space.shared { "group" } else { "engine" }.to_owned(),
            format!("version {}", space.group),
            space
                .leader
                .map_or("unknown".to_owned(), |rank| format!("rank {rank}")),
            format!("term {}", space.term),
            path.join(" > "),
            space.count.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = list.spaces.iter().map(row).collect();
    let head = [
        "NAMESPACE",
        "SHARED BY",
        "GROUP",
        "ROOT",
        "TERM",
        "WAY TO IT",
        "VARIABLES",
    ];
    table(&head, &rows)
}

fn variables(cli: &Cli, name: Option<&str>, most: u32) -> Result<(), CliError> {
    let mut list = ask(cli, most)?;
    if let Some(name) = name {
        list.spaces.retain(|space| space.name == name);
        if list.spaces.is_empty() {
            let text = format!("this engine has no namespace {name}");
            return Err(CliError::new(Exit::NoInput, text).cure("`keel iv list` names them"));
        }
    }
    show(cli.output, &list, show_text)
}

fn show_text(list: &keel::IvList) -> String {
    let of_space = |space: &keel::IvSpace| -> Vec<Vec<String>> {
        let row = |entry: &keel::IvEntry| {
            let mut row = vec![space.name.clone()];
            row.extend(cells(entry));
            row.extend(past_cells(entry.past.as_ref()));
            row
        };
        space.entries.iter().map(row).collect()
    };
    let rows: Vec<Vec<String>> = list.spaces.iter().flat_map(of_space).collect();
    table(
        &[
            "NAMESPACE",
            "CLASS",
            "KEY",
            "TERM",
            "VERSION",
            "BYTES",
            "STATE",
            "AGE",
            "RETRIES",
            "LAST ERROR",
        ],
        &rows,
    )
}

fn trace(cli: &Cli, request: &keel::IvTraceReq) -> Result<(), CliError> {
    let trace: keel::IvTrace = Endpoint::connect(cli)?.keel(methods::IV_TRACE, request)?;
    if !trace.error.is_empty() {
        let error = CliError::new(Exit::NoInput, trace.error);
        return Err(error.cure("`keel iv show` names all of it"));
    }
    show(cli.output, &trace, trace_text)
}

fn trace_text(trace: &keel::IvTrace) -> String {
    let row = |seen: &keel::IvTraceRank| {
        let mut row = vec![seen.rank.to_string()];
        if !seen.failure.is_empty() {
            row.push(format!("no answer: {}", seen.failure));
            return row;
        }
        let path: Vec<String> = seen.path.iter().map(u32::to_string).collect();
        row.push(match path.len() {
            0 => "none".to_owned(),
            _ => path.join(" > "),
        });
        match &seen.entry {
            Some(entry) => row.extend(cells(entry).drain(2..6)),
            None => row.extend(["-", "-", "-", "nothing known"].map(str::to_owned)),
        }
        row.extend(past_cells(seen.past.as_ref()));
        row
    };
    let rows: Vec<Vec<String>> = trace.ranks.iter().map(row).collect();
    let head = [
        "RANK",
        "WAY TO THE ROOT",
        "TERM",
        "VERSION",
        "BYTES",
        "STATE",
        "AGE",
        "RETRIES",
        "LAST ERROR",
    ];
    table(&head, &rows)
}

fn past_cells(past: Option<&keel::IvPast>) -> [String; 3] {
    let past = past.cloned().unwrap_or_default();
    let error = match (past.error.as_str(), past.error_asked) {
        ("", _) => "-".to_owned(),
        (error, None) => format!("{error}, {} ms ago", past.error_ms),
        (error, Some(rank)) => format!("{error} by way of rank {rank}, {} ms ago", past.error_ms),
    };
    let age = past.age_ms.map_or("-".to_owned(), |ms| format!("{ms} ms"));
    [age, past.retries.to_string(), error]
}

fn cells(entry: &keel::IvEntry) -> Vec<String> {
    let state = match (entry.valid, entry.fresh_ms) {
        (true, None) => "valid".to_owned(),
        (true, Some(ms)) => format!("valid for {ms} ms"),
        (false, _) if entry.bytes.is_some() => "stale".to_owned(),
        (false, _) => "no value".to_owned(),
    };
    vec![
        entry.class.clone(),
        entry.key.clone(),
        entry.term.to_string(),
        entry.sequence.to_string(),
        entry
            .bytes
            .map_or("-".to_owned(), |bytes| bytes.to_string()),
        state,
    ]
}

/// What is compared from look to look: version, value, validity.
type State = (u64, u64, Option<u64>, bool);

fn watch(cli: &Cli, interval: Duration, count: u64) -> Result<(), CliError> {
    let mut seen: BTreeMap<(String, String, String), State> = BTreeMap::new();
    let mut printed = 0;
    loop {
        for space in ask(cli, WATCHED)?.spaces {
            for entry in &space.entries {
                let name = (space.name.clone(), entry.class.clone(), entry.key.clone());
                let state = (entry.term, entry.sequence, entry.bytes, entry.valid);
                if seen.insert(name, state) == Some(state) {
                    continue;
                }
                line(cli, &space.name, entry)?;
                printed += 1;
                if printed >= count {
                    return Ok(());
                }
            }
        }
        std::thread::sleep(interval);
    }
}

fn line(cli: &Cli, space: &str, entry: &keel::IvEntry) -> Result<(), CliError> {
    let line = match cli.output {
        Format::Text => format!("{space}  {}\n", cells(entry).join("  ")),
        Format::Json => {
            let value = serde_json::json!({ "namespace": space, "variable": entry });
            format!("{value}\n")
        }
    };
    write_out(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: Option<u64>, valid: bool, fresh_ms: Option<u64>) -> keel::IvEntry {
        keel::IvEntry {
            class: "member".to_owned(),
            key: "00000001".to_owned(),
            term: 2,
            sequence: 7,
            bytes,
            valid,
            fresh_ms,
            past: None,
        }
    }

    #[test]
    fn tables_say_where_the_root_is_and_what_may_be_served() {
        let states = [
            entry(Some(9), true, None),
            entry(Some(9), true, Some(1500)),
            entry(Some(9), false, None),
            entry(None, false, None),
        ];
        let states = states.map(|entry| cells(&entry)[5].clone());
        assert_eq!(states, ["valid", "valid for 1500 ms", "stale", "no value"]);
        let space = keel::IvSpace {
            name: "keel".to_owned(),
            shared: true,
            group: 1,
            leader: Some(0),
            term: 2,
            path: vec![5, 4, 0],
            count: 3,
            entries: Vec::new(),
        };
        let text = list_text(&keel::IvList {
            spaces: vec![space],
        });
        let line = text.lines().last().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            words.join(" "),
            "keel group version 1 rank 0 term 2 5 > 4 > 0 3"
        );
    }

    #[test]
    fn a_trace_says_what_each_rank_knows_and_why_one_does_not() {
        let past = keel::IvPast {
            age_ms: Some(1200),
            operations: 5,
            failures: 1,
            retries: 3,
            error: "DER_UNREACH(-1006)".to_owned(),
            error_asked: Some(4),
            error_ms: 80,
        };
        let seen = [
            keel::IvTraceRank {
                rank: 5,
                path: vec![5, 4, 0],
                entry: Some(entry(Some(9), true, Some(1500))),
                past: Some(past),
                ..keel::IvTraceRank::default()
            },
            keel::IvTraceRank {
                rank: 6,
                failure: "DER_TIMEDOUT(-1011)".to_owned(),
                ..keel::IvTraceRank::default()
            },
        ];
        let text = trace_text(&keel::IvTrace {
            error: String::new(),
            ranks: seen.to_vec(),
        });
        let lines = text.lines().skip(1).map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.join(" ")
        });
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [
                "5 5 > 4 > 0 2 7 9 valid for 1500 ms 1200 ms 3 DER_UNREACH(-1006) by way of rank 4, 80 ms ago",
                "6 no answer: DER_TIMEDOUT(-1011)",
            ]
        );
    }
}
