//! A member that stands still: its kernel takes what is sent, and nobody hears that it does not run.

#![allow(missing_docs, reason = "a test")]

mod harness;

use drpc_wire::{keel, methods, modules};
use harness::Cluster;
use rustix::process::Signal;

fn check(cluster: &Cluster, limit_ms: u32) -> Vec<(bool, String)> {
    let asked = keel::GroupCheckReq { limit_ms };
    let check: keel::GroupCheck =
        cluster
            .engine(0)
            .ask(modules::KEEL, methods::GROUP_CHECK, &asked);
    let said = check.members.into_iter();
    said.map(|member| (member.answer.is_some(), member.failure))
        .collect()
}

#[test]
fn a_member_that_stands_still_is_noticed_and_goes_on_as_the_one_it_was() {
    let mut cluster = Cluster::start(3, &["mgmt", "obj"]);
    cluster.wait_seen(0, &["self", "alive", "alive"]);
    cluster.wait_seen(1, &["alive", "self", "alive"]);
    let life = cluster.status(0).members[2].incarnation;
    for _ in 0..2 {
        cluster.engine(2).signal(Signal::STOP);
        for (rank, states) in [
            (0, ["self", "alive", "silent"]),
            (1, ["alive", "self", "silent"]),
        ] {
            cluster.wait_seen(rank, &states);
        }
        // Who asks all of them gets the others' answers in its time, and is told who is missing.
        let said = check(&cluster, 1_000);
        assert_eq!(said[..2], [(true, String::new()), (true, String::new())]);
        assert!(!said[2].0 && said[2].1.contains("TIMEDOUT"), "{said:?}");

        cluster.engine(2).signal(Signal::CONT);
        cluster.wait_seen(0, &["self", "alive", "alive"]);
        cluster.wait_seen(2, &["alive", "alive", "self"]);
        assert!(
            check(&cluster, 20_000)
                .iter()
                .all(|(answered, _)| *answered)
        );
        assert_eq!(cluster.status(0).members[2].incarnation, life);
    }
    cluster.stop();
}
