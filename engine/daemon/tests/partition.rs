//! Five engines with certificates in network namespaces of their own, and wires between them that are cut without a word.

#![allow(missing_docs, reason = "a test")]

mod harness;

use drpc_wire::keel;
use harness::{Cluster, Network, eventually};

const RANKS: u8 = 5;

fn start(network: &Network) -> Cluster {
    let mut cluster = Cluster::prepare(RANKS, &["mgmt", "obj"]);
    cluster.addresses = (0..RANKS).map(|rank| network.address(rank)).collect();
    for (rank, tls) in cluster.certify().into_iter().enumerate() {
        let config = &mut cluster.configs[rank];
        config.listen = network.address(rank as u8);
        config.netns = Some(network.space(rank as u8));
        config.more = tls + &Cluster::told();
    }
    cluster.start_all();
    cluster
}

/// All that run see this of all members of the group.
#[track_caller]
fn wait_alive(cluster: &Cluster, ranks: &[usize]) {
    for rank in ranks {
        let states: Vec<&str> = ranks
            .iter()
            .map(|other| if other == rank { "self" } else { "alive" })
            .collect();
        cluster.wait_seen(*rank, &states);
    }
}

/// The facts of `of` at `rank`, once all of them are known there.
#[track_caller]
fn facts(cluster: &Cluster, rank: usize, of: &[usize]) -> Vec<String> {
    eventually(&format!("rank {rank} knows {of:?}"), || {
        let status = cluster.status(rank);
        let uuid = |rank: &usize| {
            let is_it = |member: &&keel::GroupMember| member.rank as usize == *rank;
            Some(status.members.iter().find(is_it)?.facts.clone()?.uuid)
        };
        of.iter().map(uuid).collect()
    })
}

#[track_caller]
fn wait_led(cluster: &Cluster, rank: usize, version: u32, leader: u32) {
    eventually(&format!("rank {rank} in version {version}"), || {
        let status = cluster.status(rank);
        ((status.version, status.leader) == (version, Some(leader))).then_some(())
    });
}

#[test]
fn five_engines_live_through_cut_wires_and_a_lost_leader() {
    let network = match Network::new(RANKS) {
        Ok(network) => network,
        Err(why) => {
            harness::skipped(&why);
            return;
        }
    };
    let mut cluster = start(&network);
    let all = [0, 1, 2, 3, 4];
    assert_eq!(cluster.tell(2, 1, &all), 0);
    wait_alive(&cluster, &all);
    let uuids = facts(&cluster, 4, &all);

    // A member is cut off: its connections are half open, and nobody is told. Both sides notice within their time.
    network.cut(4);
    cluster.wait_seen(0, &["self", "alive", "alive", "alive", "silent"]);
    cluster.wait_seen(4, &["silent", "silent", "silent", "silent", "self"]);
    // It comes back as it went: the same life, the same version.
    network.mend(4);
    wait_alive(&cluster, &all);
    assert_eq!(cluster.status(0).members[4].incarnation, 1);

    // The group goes on without it. It hears of that when it is back: members with different versions do not speak.
    network.cut(4);
    assert_eq!(cluster.tell(1, 2, &[0, 1, 2, 3]), 0);
    wait_alive(&cluster, &[0, 1, 2, 3]);
    assert_eq!(cluster.status(4).version, 1);
    network.mend(4);
    wait_led(&cluster, 4, 2, 0);
    assert_eq!(cluster.tell(0, 3, &all), 0);
    wait_alive(&cluster, &all);

    // The leader is cut off with all that it stamped. The others get another one, in a greater term, and say again what they are; the old
    // one goes on alone until it hears of that.
    let before = cluster.status(3).term;
    network.cut(0);
    assert_eq!(cluster.tell(3, 4, &[1, 2, 3, 4]), 0);
    for rank in 1..5 {
        wait_led(&cluster, rank, 4, 1);
        assert_eq!(facts(&cluster, rank, &[1, 2, 3, 4]), uuids[1..]);
    }
    assert!(cluster.status(3).term > before);
    assert_eq!(cluster.status(0).leader, Some(0));
    // And once more: the new one dies, while the first is still away.
    cluster.kill(1);
    assert_eq!(cluster.tell(2, 5, &[2, 3, 4]), 0);
    for rank in 2..5 {
        wait_led(&cluster, rank, 5, 2);
        assert_eq!(facts(&cluster, rank, &[2, 3, 4]), uuids[2..]);
    }
    network.mend(0);
    wait_led(&cluster, 0, 5, 2);
    cluster.engines[1] = Some(cluster.configs[1].start());
    assert_eq!(cluster.tell(4, 6, &all), 0);
    wait_alive(&cluster, &all);
    for rank in all {
        assert_eq!(facts(&cluster, rank, &all), uuids);
    }
    cluster.stop();
}
