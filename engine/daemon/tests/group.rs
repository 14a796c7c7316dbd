//! Several engines form one group.

#![allow(missing_docs, reason = "a test")]

mod harness;

use drpc_wire::{keel, methods, modules};
use harness::{Cluster, Config, Kind, eventually};

#[test]
fn members_see_who_is_there_who_is_gone_and_who_has_another_list() {
    let mut cluster = Cluster::start(3, &["mgmt", "obj"]);
    cluster.wait_seen(0, &["self", "alive", "alive"]);
    cluster.wait_seen(1, &["alive", "self", "alive"]);
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

/// Waits until `rank` knows what these members say of themselves, and gives their uuids.
#[track_caller]
fn facts(cluster: &Cluster, rank: usize, members: &[usize]) -> Vec<String> {
    eventually(&format!("rank {rank} knows {members:?}"), || {
        let status = cluster.status(rank);
        let uuid = |member: &usize| Some(status.members[*member].facts.clone()?.uuid);
        members.iter().map(uuid).collect()
    })
}

fn variables(cluster: &Cluster, rank: usize) -> keel::IvSpace {
    let asked = keel::IvListReq { most: 100 };
    let list: keel::IvList = cluster
        .engine(rank)
        .ask(modules::KEEL, methods::IV_LIST, &asked);
    list.spaces
        .into_iter()
        .find(|space| space.name == "keel")
        .unwrap()
}

#[test]
fn four_engines_share_what_each_says_of_itself_and_live_through_the_death_of_two() {
    let mut cluster = Cluster::start(4, &["mgmt", "obj"]);
    let all = [0, 1, 2, 3];
    let uuids = facts(&cluster, 0, &all);
    for rank in all {
        assert_eq!(facts(&cluster, rank, &all), uuids, "rank {rank}");
    }
    let seen = variables(&cluster, 3);
    assert_eq!(
        (seen.shared, seen.leader, seen.term, &seen.path[..]),
        (true, Some(0), 1, &[3, 0][..])
    );
    assert_eq!((seen.count, seen.entries[0].class.as_str()), (4, "member"));

    cluster.wait_seen(0, &["self", "alive", "alive", "alive"]);
    cluster.wait_seen(3, &["alive", "alive", "alive", "self"]);
    // A member dies and comes back with another identity: all learn it, for its update has a newer version.
    cluster.kill(2);
    cluster.wait_seen(0, &["self", "alive", "silent", "alive"]);
    assert_eq!(facts(&cluster, 1, &[0, 1, 3]).len(), 3);
    std::fs::remove_file(cluster.configs[2].storage().join("engine.uuid")).unwrap();
    cluster.revive(2, 1);
    let changed = || {
        let now = facts(&cluster, 3, &all);
        (now[2] != uuids[2]).then_some(now)
    };
    let uuids = eventually("rank 3 hears of rank 2's new identity", changed);

    // The root dies with all that it knew, and leads in a new term: everybody says it again.
    cluster.kill(0);
    cluster.wait_seen(3, &["silent", "alive", "alive", "self"]);
    cluster.revive(0, 1);
    for rank in all {
        assert_eq!(facts(&cluster, rank, &all), uuids, "rank {rank}");
    }
    eventually("the new term everywhere", || {
        all.iter()
            .all(|rank| variables(&cluster, *rank).term == 2)
            .then_some(())
    });
    let term = |entry: &keel::IvEntry| entry.term;
    eventually("every variable of the new term at the root", || {
        variables(&cluster, 0)
            .entries
            .iter()
            .map(term)
            .eq([2; 4])
            .then_some(())
    });
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
