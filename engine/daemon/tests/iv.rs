//! Modules of several engines share incast variables: `modules/iv_demo`, each engine a process.

#![allow(missing_docs, reason = "a test")]

mod harness;

use drpc_wire::{Status, keel, methods, modules};
use harness::demo::{FORGET, LOOK, READ, WRITE, asked, ok};
use harness::{Cluster, Config, Kind, eventually};

#[test]
fn a_note_written_on_one_engine_is_in_the_caches_of_all() {
    let mut cluster = Cluster::start(3, &["mgmt", "obj", "iv_demo"]);
    // Every engine knows the root.
    for rank in 0..3 {
        cluster.wait_seen(rank, &states(rank));
    }
    let engine = |rank| cluster.engine(rank);
    let unset = asked(engine(1), READ, "motto");
    assert_eq!(unset.0, Status::Failure, "nobody has written it");
    engine(1).wait_log("DER_NONEXIST");
    let first = ok(engine(2), WRITE, "motto=onward");
    for rank in 0..3 {
        assert_eq!(ok(engine(rank), READ, "Motto"), "1: onward", "rank {rank}");
        assert_eq!(ok(engine(rank), LOOK, "motto"), "onward", "rank {rank}");
    }
    // Eager: when it returns, each target's own cache has it.
    let second = ok(engine(1), WRITE, "motto=upward");
    assert_ne!(first, second);
    for rank in 0..3 {
        assert_eq!(ok(engine(rank), LOOK, "motto"), "upward", "rank {rank}");
    }
    // Longer than what travels inside a message.
    let long = "x".repeat(100_000);
    ok(engine(2), WRITE, &format!("long={long}"));
    assert_eq!(ok(engine(1), READ, "long"), format!("3: {long}"));

    assert_eq!(
        asked(engine(2), WRITE, "motto=").0,
        Status::Failure,
        "the class refuses it"
    );
    engine(2).wait_log("DER_INVAL");
    ok(engine(0), FORGET, "motto");
    for rank in 0..3 {
        assert_eq!(ok(engine(rank), LOOK, "motto"), "-", "rank {rank}");
    }
    // What was forgotten is the root's class to tell, which keeps nothing of its own.
    assert_eq!(asked(engine(2), READ, "motto").0, Status::Failure);
    for engine in cluster.engines.drain(..).flatten() {
        engine.terminate().expect(0, "stopped");
    }
}

fn states(me: usize) -> Vec<&'static str> {
    (0..3)
        .map(|rank| if rank == me { "self" } else { "alive" })
        .collect()
}

fn term(version: &str) -> u64 {
    let (term, _) = version.split_once('.').expect("TERM.SEQUENCE");
    term.parse().expect("a number")
}

#[test]
fn writing_goes_on_when_a_member_dies_and_when_the_root_comes_back() {
    let mut cluster = Cluster::start(3, &["mgmt", "obj", "iv_demo"]);
    for rank in 0..3 {
        cluster.wait_seen(rank, &states(rank));
    }
    let before = term(&ok(cluster.engine(1), WRITE, "state=before"));
    cluster.kill(2);
    // An eager write cannot reach a rank that is gone: it says so, and those that have it keep it.
    assert_eq!(
        asked(cluster.engine(1), WRITE, "state=without").0,
        Status::Failure
    );
    assert_eq!(ok(cluster.engine(1), READ, "state"), "2: without");
    cluster.revive(2, 1);
    cluster.kill(0);
    cluster.revive(0, 1);
    // The root has lost its memory, and leads in a new term.
    eventually("a write in the new term", || {
        let (status, version) = asked(cluster.engine(1), WRITE, "state=after");
        (status == Status::Success && term(&version) > before).then_some(())
    });
    for rank in 0..3 {
        let read = ok(cluster.engine(rank), READ, "state");
        assert!(read.ends_with(": after"), "rank {rank}: {read}");
    }
    for engine in cluster.engines.drain(..).flatten() {
        engine.terminate().expect(0, "stopped");
    }
}

#[test]
fn a_single_engine_needs_no_group() {
    let mut config = Config::new(2, Kind::Malloc);
    config.modules = ["mgmt", "obj", "iv_demo"].map(str::to_owned).to_vec();
    let engine = config.start();
    ok(&engine, WRITE, "motto=alone");
    assert_eq!(ok(&engine, LOOK, "motto"), "-\n-", "nobody has read it");
    assert_eq!(ok(&engine, READ, "motto"), "1: alone");
    assert_eq!(ok(&engine, LOOK, "motto"), "alone\n-");
    let asked = keel::IvListReq { most: 10 };
    let list: keel::IvList = engine.ask(modules::KEEL, methods::IV_LIST, &asked);
    let classes: Vec<_> = list.spaces.iter().flat_map(|s| &s.entries).collect();
    assert!(
        classes.iter().any(|entry| entry.class == "note"),
        "{list:?}"
    );
    engine.terminate().expect(0, "stopped");
}
