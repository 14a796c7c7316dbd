//! Every way of the driver that was ever found, again; and a bounded number of new inputs made of them.
#![allow(missing_docs, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nvme_fuzz::{Rng, mutate, run};

/// Of one run of the tests. `examples/fuzz.rs` goes on for as long as one likes.
const MUTATIONS: usize = 10_000;
const SEED: u64 = 20_261_126;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut all: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn each_input_of_the_corpus_goes_the_way_that_it_is_named_after() {
    for (way, bytes) in corpus() {
        let outcome = run(&bytes);
        assert!(
            outcome.has(&way),
            "{way}: {:?}: if that is right, remove it, and let `cargo run -p nvme_fuzz --example fuzz` look for another",
            outcome.ways().collect::<Vec<_>>()
        );
        assert_eq!(
            run(&bytes),
            outcome,
            "{way}: the same bytes, another outcome"
        );
    }
}

#[test]
fn the_corpus_goes_every_way_that_matters() {
    let ways: Vec<String> = corpus().into_iter().map(|(way, _)| way).collect();
    let wanted = [
        "attach-gone",
        "attach-fatal",
        "attach-rdy-never-",
        "attach-refused-identify-controller",
        "attach-refused-create-completion-queue",
        "attach-late-",
        "attach-unsupported-",
        "namespace-refused-",
        "no-namespace",
        "io-done",
        "io-status-0",
        "io-status-2",
        "io-timed-out",
        "io-removed",
        "io-given-up",
        "reset-done",
        "reset-nonsense",
        "reset-fatal",
        "reset-timedout",
        "reset-admintimeout",
        "event-error",
        "event-notice",
        "smart-read",
        "end-in-order",
        "end-gone",
        "end-rdy-never-",
    ];
    let taken = |start: &&str| ways.iter().any(|way| way.starts_with(*start));
    let missing: Vec<&str> = wanted.into_iter().filter(|way| !taken(way)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn mutations_of_the_corpus_are_survived() {
    let inputs: Vec<Vec<u8>> = corpus().into_iter().map(|(_, bytes)| bytes).collect();
    let (mut rng, mut seen) = (Rng::new(SEED), BTreeSet::new());
    for _ in 0..MUTATIONS {
        let (one, other) = (rng.below(inputs.len()), rng.below(inputs.len()));
        let bytes = mutate(&mut rng, &inputs[one], &inputs[other]);
        seen.extend(run(&bytes).ways().map(str::to_owned));
    }
    // They do not end at the first register.
    assert!(seen.len() > 40, "{seen:?}");
}
