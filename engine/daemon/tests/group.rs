//! Several engines form one group.

#![allow(missing_docs, reason = "a test")]

mod harness;

use daos_errno::Der;
use drpc_wire::{keel, methods, mgmt, modules};
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
    cluster.stop();
}

/// Waits until `rank` knows what these members say of themselves, and gives their uuids.
#[track_caller]
fn facts(cluster: &Cluster, rank: usize, members: &[usize]) -> Vec<String> {
    eventually(&format!("rank {rank} knows {members:?}"), || {
        let status = cluster.status(rank);
        let uuid = |rank: &usize| {
            let is_it = |member: &&keel::GroupMember| member.rank as usize == *rank;
            let member = status.members.iter().find(is_it)?;
            Some(member.facts.clone()?.uuid)
        };
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
        (true, Some(0), term(1, 1), &[3, 0][..])
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
            .all(|rank| variables(&cluster, *rank).term == term(1, 2))
            .then_some(())
    });
    let of_term = |entry: &keel::IvEntry| entry.term;
    eventually("every variable of the new term at the root", || {
        variables(&cluster, 0)
            .entries
            .iter()
            .map(of_term)
            .eq([term(1, 2); 4])
            .then_some(())
    });
    cluster.stop();
}

/// Of a list: the version, and the leader's life in it.
fn term(version: u64, life: u64) -> u64 {
    version << 32 | life
}

fn dead(cluster: &Cluster, rank: usize, map_version: u32) -> (i32, Vec<u32>) {
    let asked = mgmt::GetGroupStatusReq { map_version };
    let answer: mgmt::GetGroupStatusResp =
        cluster
            .engine(rank)
            .ask(modules::MGMT, methods::GROUP_STATUS_GET, &asked);
    (answer.status, answer.dead_ranks)
}

/// Version, leader and its term, as `rank` knows them.
fn led(cluster: &Cluster, rank: usize) -> (u32, Option<u32>, u64) {
    let status = cluster.status(rank);
    (status.version, status.leader, status.term)
}

#[test]
fn a_control_plane_changes_a_running_group_by_telling_one_of_it() {
    let mut cluster = Cluster::start_told(4, &["mgmt", "obj"]);
    let status = cluster.status(0);
    assert_eq!(
        (status.source.as_str(), status.version, status.leader),
        ("control", 0, None)
    );
    assert_eq!(status.note, "waiting for GROUP_UPDATE");

    // Two of four. Rank 1 is told by rank 0, and both share their facts.
    assert_eq!(cluster.tell(0, 3, &[0, 1]), 0);
    cluster.wait_seen(0, &["self", "alive"]);
    cluster.wait_seen(1, &["alive", "self"]);
    assert_eq!(led(&cluster, 1), (3, Some(0), term(3, 1)));
    let uuids = facts(&cluster, 1, &[0, 1]);
    assert_eq!(cluster.status(2).version, 0, "nobody has told it");
    assert_eq!(variables(&cluster, 1).group, 3);

    // What is not newer, or no list at all.
    assert_eq!(cluster.tell(1, 3, &[0, 1]), 0, "the same once more");
    assert_eq!(cluster.tell(1, 3, &[0]), Der::GRPVER.neg());
    assert_eq!(cluster.tell(1, 2, &[0, 1, 2]), Der::GRPVER.neg());
    assert_eq!(cluster.tell(1, 0, &[0, 1]), Der::INVAL.neg());
    assert_eq!(cluster.tell(1, 9, &[]), Der::INVAL.neg());
    assert_eq!(cluster.tell(1, 9, &[1, 1]), Der::INVAL.neg());
    assert_eq!(led(&cluster, 1).0, 3);

    // Two join; a version may be left out. The one that is told is a newcomer itself.
    assert_eq!(cluster.tell(3, 7, &[0, 1, 2, 3]), 0);
    for rank in 0..4 {
        let mut states = vec!["alive"; 4];
        states[rank] = "self";
        cluster.wait_seen(rank, &states);
        eventually("the leader of version 7", || {
            (led(&cluster, rank) == (7, Some(0), term(7, 1))).then_some(())
        });
        assert_eq!(facts(&cluster, rank, &[0, 1, 2, 3])[..2], uuids[..]);
    }
    assert_eq!(dead(&cluster, 0, 0), (0, vec![]));
    assert_eq!(dead(&cluster, 0, 6), (Der::GRPVER.neg(), vec![]));

    // One dies, and comes back with nothing in its hands: the others tell it.
    cluster.kill(2);
    eventually("rank 2 is dead", || {
        (dead(&cluster, 0, 7) == (0, vec![2])).then_some(())
    });
    cluster.engine(0).wait_log("swim_rank_dead");
    cluster.engines[2] = Some(cluster.configs[2].start());
    cluster.wait_seen(2, &["alive", "alive", "self", "alive"]);
    cluster.wait_seen(0, &["self", "alive", "alive", "alive"]);
    assert_eq!(cluster.status(0).members[2].incarnation, 2);

    // The leader goes: the next rank leads in a greater term, and the one that left hears of it.
    assert_eq!(cluster.tell(2, 8, &[1, 2, 3]), 0);
    for rank in 0..4 {
        eventually("version 8", || {
            (led(&cluster, rank) == (8, Some(1), term(8, 1))).then_some(())
        });
    }
    facts(&cluster, 3, &[1, 2, 3]);
    let space = variables(&cluster, 3);
    assert_eq!((space.group, space.leader), (8, Some(1)));
    cluster.stop();
}

#[test]
fn only_a_control_plane_s_group_is_told() {
    let mut cluster = Cluster::start(2, &["mgmt", "obj"]);
    assert_eq!(cluster.tell(0, 2, &[0]), Der::NOTSUPPORTED.neg());
    assert_eq!(cluster.status(0).version, 1);
    assert_eq!(dead(&cluster, 0, 1), (0, vec![]));
    cluster.stop();
}

#[test]
fn an_engine_without_members_is_alone() {
    let engine = Config::new(1, Kind::Malloc).start();
    let status: keel::GroupStatus = engine.ask(modules::KEEL, methods::GROUP_STATUS, &());
    assert_eq!((status.version, status.members.len()), (0, 0));
    engine.terminate().expect(0, "stopped");
}
