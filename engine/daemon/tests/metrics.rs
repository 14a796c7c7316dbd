//! The documented metrics are the exported ones.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use drpc_wire::{keel, methods, modules};
use harness::{Config, Kind};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names in the first column of the page's tables.
fn documented() -> BTreeSet<String> {
    let page = top().join("docs/operating/metrics.md");
    let text = std::fs::read_to_string(page).expect("the page");
    text.lines()
        .filter_map(|line| line.strip_prefix("| `keel_"))
        .filter_map(|rest| Some(format!("keel_{}", rest.split_once('`')?.0)))
        .collect()
}

/// Everything in the sources that looks like a name of ours.
fn in_sources(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            in_sources(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            let found = text
                .split('"')
                .filter(|piece| piece.starts_with("keel_"))
                .filter(|piece| piece.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()));
            names.extend(found.map(str::to_owned));
        }
    }
}

#[test]
fn the_documented_metrics_are_the_exported_ones() {
    let engine = Config::new(2, Kind::Malloc).start();
    let metrics: keel::Metrics = engine.ask(modules::KEEL, methods::METRICS, &());
    let exported: BTreeSet<String> = metrics
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|rest| rest.split(' ').next())
        .map(str::to_owned)
        .collect();
    let documented = documented();
    let missing: Vec<_> = exported.difference(&documented).collect();
    assert!(
        missing.is_empty(),
        "exported, and not in docs/operating/metrics.md: {missing:?}"
    );
    // What is counted only when it happens is in the sources; modules' names are put together from two parts.
    let mut known = exported;
    for folder in ["engine", "spdk-bindings", "modules"] {
        in_sources(&top().join(folder), &mut known);
    }
    let stale: Vec<_> = documented.difference(&known).collect();
    assert!(
        stale.is_empty(),
        "in docs/operating/metrics.md, and nowhere in the sources: {stale:?}"
    );
    engine.terminate().expect(0, "stopped");
}
