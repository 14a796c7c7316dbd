//! Membership from a real etcd: engines join, die, come back; etcd goes, is slow, is compacted, comes back from a backup.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::time::Duration;

use engine_cert::{Authority, Request, Validity, write_pair};
use harness::{Cluster, EtcdServer, eventually, skipped};

macro_rules! etcd_or_skip {
    () => {
        match EtcdServer::start() {
            Ok(etcd) => etcd,
            Err(why) => return skipped(&why),
        }
    };
}

/// As the configurations have it.
const LEASE: Duration = Duration::from_secs(2);

fn cluster(etcd: &EtcdServer, ranks: u8) -> Cluster {
    let mut cluster = Cluster::prepare(ranks, &["mgmt", "obj"]);
    for config in &mut cluster.configs {
        config.engine_keys = String::new();
        config.more = Cluster::in_etcd(etcd);
    }
    cluster
}

/// Waits until all of `ranks` see each other, led by one; version, leader, term.
#[track_caller]
fn wait_group(cluster: &Cluster, ranks: &[usize]) -> (u32, u32, u64) {
    eventually(&format!("a group of {ranks:?}"), || {
        let mut known = Vec::new();
        for at in ranks {
            let status = cluster.status(*at);
            let seen = status.members.iter();
            let states = seen.map(|member| (member.rank as usize, member.state.as_str()));
            let wanted = ranks
                .iter()
                .map(|rank| (*rank, if rank == at { "self" } else { "alive" }));
            if !states.eq(wanted) {
                return None;
            }
            known.push((status.version, status.leader?, status.term));
        }
        known.dedup();
        (known.len() == 1).then(|| known[0])
    })
}

/// Engines one after the other, so that their ranks are their numbers.
fn start(cluster: &mut Cluster, ranks: &[usize]) {
    for rank in ranks {
        cluster.engines[*rank] = Some(cluster.configs[*rank].start());
    }
}

#[test]
fn engines_join_lead_die_and_come_back() {
    let etcd = etcd_or_skip!();
    let mut cluster = cluster(&etcd, 3);
    start(&mut cluster, &[0, 1, 2]);
    let (version, leader, term) = wait_group(&cluster, &[0, 1, 2]);
    assert_eq!(leader, 0, "who came first");
    assert_eq!(cluster.status(2).source, "etcd");

    // The leader dies. The others put it out when its lease ends, and the next oldest leads in a greater term.
    cluster.kill(0);
    let (after, leader, later) = wait_group(&cluster, &[1, 2]);
    assert_eq!(leader, 1);
    assert!(after > version && later > term);
    // It comes back with its rank, in another life, and does not lead.
    start(&mut cluster, &[0]);
    let (_, leader, still) = wait_group(&cluster, &[0, 1, 2]);
    assert_eq!((leader, still), (1, later));
    assert_eq!(cluster.status(1).members[0].incarnation, 2);

    // One that is stopped says so.
    cluster.engines[1]
        .take()
        .unwrap()
        .terminate()
        .expect(0, "stopped");
    let (_, leader, _) = wait_group(&cluster, &[0, 2]);
    assert_eq!(leader, 2);
    start(&mut cluster, &[1]);
    wait_group(&cluster, &[0, 1, 2]);
    cluster.stop();
}

#[track_caller]
fn wait_note(cluster: &Cluster, rank: usize, said: &str) {
    eventually(&format!("rank {rank} notes `{said}`"), || {
        let note = cluster.status(rank).note;
        (note.contains(said) && (said.is_empty() == note.is_empty())).then_some(())
    });
}

#[test]
fn etcd_goes_away_and_is_compacted_meanwhile() {
    let mut etcd = etcd_or_skip!();
    let mut cluster = cluster(&etcd, 2);
    start(&mut cluster, &[0, 1]);
    let before = wait_group(&cluster, &[0, 1]);

    // It stands still, and its connections with it: the map is kept, and the leader steps down before its lease could have ended.
    etcd.freeze();
    eventually("the leader steps down", || {
        cluster.status(0).leader.is_none().then_some(())
    });
    wait_note(&cluster, 1, "etcd is not reached");
    let status = cluster.status(1);
    assert_eq!((status.version, status.members.len()), (before.0, 2));
    cluster.engine(0).wait_log("group_source_lost");
    etcd.thaw();
    // Whether or not their leases ended meanwhile: it is one group again.
    let after = wait_group(&cluster, &[0, 1]);
    assert!(after.0 >= before.0 && after.2 >= before.2);
    wait_note(&cluster, 1, "");

    // It cannot be reached, and what was to be watched is compacted away when it is back.
    etcd.wire().cut();
    wait_note(&cluster, 1, "etcd is not reached");
    etcd.compact();
    etcd.wire().mend();
    let last = wait_group(&cluster, &[0, 1]);
    assert!(last.0 >= after.0);
    wait_note(&cluster, 0, "");
    wait_note(&cluster, 1, "");

    // It dies and is started again.
    etcd.stop();
    wait_note(&cluster, 0, "etcd is not reached");
    etcd.run();
    wait_group(&cluster, &[0, 1]);
    wait_note(&cluster, 0, "");
    cluster.stop();
}

#[test]
fn a_slow_etcd_delays_changes_and_one_that_is_too_slow_counts_as_gone() {
    let etcd = etcd_or_skip!();
    let mut cluster = cluster(&etcd, 3);
    start(&mut cluster, &[0, 1]);
    let before = wait_group(&cluster, &[0, 1]);
    // Three questions fit into a lease.
    etcd.wire().stretch(LEASE / 20);
    start(&mut cluster, &[2]);
    let after = wait_group(&cluster, &[0, 1, 2]);
    assert_eq!(
        (after.1, after.2),
        (before.1, before.2),
        "nobody was put out"
    );
    assert_eq!(cluster.status(0).note, "");
    // None does.
    etcd.wire().stretch(LEASE * 2);
    eventually("the leader steps down", || {
        cluster.status(0).leader.is_none().then_some(())
    });
    wait_note(&cluster, 2, "no answer within");
    etcd.wire().stretch(Duration::ZERO);
    wait_group(&cluster, &[0, 1, 2]);
    for rank in 0..3 {
        wait_note(&cluster, rank, "");
    }
    cluster.stop();
}

#[test]
fn an_etcd_from_a_backup_is_not_believed_until_it_is_ahead_again() {
    let mut etcd = etcd_or_skip!();
    let mut cluster = cluster(&etcd, 2);
    start(&mut cluster, &[0]);
    wait_group(&cluster, &[0]);
    etcd.stop();
    let backup = etcd.backup();
    etcd.run();
    // What is restored goes on by itself for a while: leases end.
    for _ in 0..200 {
        etcd.write();
    }
    start(&mut cluster, &[1]);
    let before = wait_group(&cluster, &[0, 1]);
    let seen = etcd.write();
    etcd.stop();
    etcd.restore(&backup);
    etcd.run();
    for rank in [0, 1] {
        wait_note(&cluster, rank, "gone back");
        let status = cluster.status(rank);
        assert_eq!(
            (status.version, status.members.len()),
            (before.0, 2),
            "kept"
        );
    }
    eventually("the leader steps down", || {
        cluster.status(0).leader.is_none().then_some(())
    });
    // Also by an engine that starts anew: its file has kept it.
    cluster.kill(1);
    start(&mut cluster, &[1]);
    wait_note(&cluster, 1, "gone back");
    assert_eq!(cluster.status(1).version, 0, "it takes nothing from there");
    assert!(!cluster.engine(1).log().contains("has joined the group"));

    // Its revision passes what was seen. What it still holds of the group is older, and is written anew.
    while etcd.write() <= seen {}
    let after = wait_group(&cluster, &[0, 1]);
    assert!(
        after.0 > before.0 && after.2 > before.2,
        "{before:?} {after:?}"
    );
    for rank in [0, 1] {
        wait_note(&cluster, rank, "");
    }
    cluster.stop();
}

#[test]
fn what_people_do_to_the_keys_is_repaired() {
    let etcd = etcd_or_skip!();
    let mut cluster = cluster(&etcd, 2);
    start(&mut cluster, &[0, 1]);
    let before = wait_group(&cluster, &[0, 1]);
    let system = cluster.status(0).system;
    etcd.delete(&format!("/keel/{system}/group"));
    let (repaired, leader, term) = eventually("a greater version", || {
        let group = wait_group(&cluster, &[0, 1]);
        (group.0 > before.0).then_some(group)
    });
    assert!(
        term > before.2,
        "a list that is gone may have had another leader"
    );
    // Whose key goes was put out, and comes back in another life: the next one leads.
    let life = cluster.status(leader as usize).incarnation;
    etcd.delete(&format!("/keel/{system}/members/{leader:05}"));
    let (after, next, later) = eventually("another leader", || {
        let group = wait_group(&cluster, &[0, 1]);
        (group.1 != leader).then_some(group)
    });
    assert!(after > repaired && later > term);
    let reborn = &cluster.status(next as usize).members[leader as usize];
    assert!(reborn.incarnation > life, "{reborn:?}");
    cluster.stop();
}

#[test]
fn ranks_belong_to_engines_for_life() {
    let etcd = etcd_or_skip!();
    let mut cluster = cluster(&etcd, 2);
    start(&mut cluster, &[0]);
    wait_group(&cluster, &[0]);
    cluster.configs[1].engine_keys = "rank = 0".to_owned();
    let exited = cluster.configs[1].fails();
    assert!(
        exited.log.contains("rank 0 belongs to engine") && exited.log.contains("cure: "),
        "{}",
        exited.log
    );
    cluster.configs[1].engine_keys = "rank = 5".to_owned();
    start(&mut cluster, &[1]);
    eventually("a group of ranks 0 and 5", || {
        let members = cluster.status(0).members;
        let ranks = members.iter().map(|member| member.rank);
        ranks.eq([0, 5]).then_some(())
    });
    cluster.kill(1);
    cluster.configs[1].engine_keys = "rank = 1".to_owned();
    let exited = cluster.configs[1].fails();
    assert!(
        exited
            .log
            .contains("this engine is rank 5 in etcd, and `engine.rank` is 1. cure:"),
        "{}",
        exited.log
    );
    cluster.stop();
}

#[test]
fn an_etcd_with_certificates_is_shown_ours_and_a_renewed_one_needs_no_restart() {
    let mut etcd = match EtcdServer::start_with_tls() {
        Ok(etcd) => etcd,
        Err(why) => return skipped(&why),
    };
    let mut cluster = cluster(&etcd, 2);
    for (rank, config) in cluster.configs.iter_mut().enumerate() {
        let pair = etcd.issue(&format!("rank{rank}"), false);
        config.more += &format!(
            "ca = {:?}\ncertificate = {:?}\nkey = {:?}\n",
            etcd.ca(),
            pair.certificate,
            pair.key
        );
    }
    start(&mut cluster, &[0, 1]);
    wait_group(&cluster, &[0, 1]);
    // Certificates of somebody else: etcd does not take it.
    let stranger = Authority::create("stranger", Validity::days(1)).unwrap();
    let asked = Request {
        name: "rank1".to_owned(),
        addresses: Vec::new(),
        engine: false,
        validity: Validity::days(1),
    };
    let files = etcd.issue("rank1", false);
    write_pair(&files, &stranger.issue(&asked).unwrap(), true).unwrap();
    etcd.stop();
    etcd.run();
    wait_note(&cluster, 1, "etcd is not reached");
    eventually("rank 0 goes on without it", || {
        let members = cluster.status(0).members;
        (members.len() == 1).then_some(())
    });
    etcd.issue("rank1", false);
    wait_group(&cluster, &[0, 1]);
    wait_note(&cluster, 1, "");
    // A file that is not there is named at once when an engine starts.
    cluster.kill(1);
    std::fs::remove_file(&files.key).unwrap();
    let exited = cluster.configs[1].fails();
    let named = files.key.display().to_string();
    assert!(
        exited.log.contains(&named) && exited.log.contains("cure: "),
        "{}",
        exited.log
    );
    cluster.stop();
}
