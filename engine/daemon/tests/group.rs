//! Several engines form one group.

#![allow(missing_docs, reason = "a test")]

mod harness;

use drpc_wire::{keel, methods, modules};
use harness::{Cluster, Config, Kind};

#[test]
fn members_see_who_is_there_who_is_gone_and_who_has_another_list() {
    let mut cluster = Cluster::start(3, &["mgmt", "obj"]);
    cluster.wait_seen(0, &["self", "alive", "alive"]);
    cluster.wait_seen(2, &["alive", "alive", "self"]);
    let status = cluster.status(1);
    assert_eq!((status.version, status.rank, status.incarnation), (1, 1, 1));

    cluster.kill(2);
    cluster.wait_seen(0, &["self", "alive", "silent"]);
    cluster.wait_seen(1, &["alive", "self", "silent"]);
    assert!(!cluster.status(0).members[2].failure.is_empty());

    cluster.revive(2, 1);
    cluster.wait_seen(0, &["self", "alive", "alive"]);
    assert_eq!(cluster.status(0).members[2].incarnation, 2);

    cluster.kill(1);
    cluster.revive(1, 2);
    cluster.wait_seen(0, &["self", "other version", "alive"]);
    cluster.wait_seen(1, &["other version", "self", "other version"]);
    for engine in cluster.engines.drain(..).flatten() {
        engine.terminate().expect(0, "stopped");
    }
}

#[test]
fn an_engine_without_members_is_alone() {
    let engine = Config::new(1, Kind::Malloc).start();
    let status: keel::GroupStatus = engine.ask(modules::KEEL, methods::GROUP_STATUS, &());
    assert_eq!((status.version, status.members.len()), (0, 0));
    engine.terminate().expect(0, "stopped");
}
