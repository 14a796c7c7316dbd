//! Engines whose group is in etcd share variables while those who lead it are killed: during an eager update, during a fetch, twice, under load.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use drpc_wire::Status;
use harness::demo::{LOOK, READ, WRITE, asked, ok};
use harness::{Cluster, Engine, EtcdServer, eventually, skipped};
use rustix::process::Signal;

fn version(text: &str) -> (u64, u64) {
    let (term, sequence) = text.split_once('.').expect("TERM.SEQUENCE");
    (term.parse().unwrap(), sequence.parse().unwrap())
}

fn cluster(ranks: u8) -> Option<(EtcdServer, Cluster)> {
    let etcd = match EtcdServer::start() {
        Ok(etcd) => etcd,
        Err(why) => {
            skipped(&why);
            return None;
        }
    };
    let mut cluster = Cluster::prepare(ranks, &["mgmt", "obj", "iv_demo"]);
    for config in &mut cluster.configs {
        config.more = Cluster::in_etcd(&etcd);
    }
    // One after the other: who came first leads.
    for rank in 0..usize::from(ranks) {
        cluster.engines[rank] = Some(cluster.configs[rank].start());
    }
    let all: Vec<usize> = (0..ranks.into()).collect();
    wait_led(&cluster, &all, 0);
    Some((etcd, cluster))
}

/// Waits until all of `ranks` see each other, led by this one; the term.
#[track_caller]
fn wait_led(cluster: &Cluster, ranks: &[usize], leader: u32) -> u64 {
    eventually(&format!("{ranks:?} are led by {leader}"), || {
        let mut terms = Vec::new();
        for at in ranks {
            let status = cluster.status(*at);
            let members = status.members.iter();
            let seen = members.map(|member| (member.rank as usize, member.state.as_str()));
            let state = |rank: &usize| (*rank, if rank == at { "self" } else { "alive" });
            if status.leader != Some(leader) || !seen.eq(ranks.iter().map(state)) {
                return None;
            }
            terms.push(status.term);
        }
        terms.dedup();
        (terms.len() == 1).then(|| terms[0])
    })
}

#[test]
fn the_leader_dies_during_an_eager_update_and_the_next_one_finishes_it() {
    let Some((_etcd, mut cluster)) = cluster(3) else {
        return;
    };
    let before = version(&ok(cluster.engine(1), WRITE, "state=before"));
    assert_eq!(ok(cluster.engine(0), READ, "state"), "1: before");
    // A member that does not answer holds the update up, on its way from the leader.
    cluster.engine(2).signal(Signal::STOP);
    let engine = cluster.engines[1].take().unwrap();
    let (status, text) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| asked(&engine, WRITE, "state=after"));
        eventually("the leader has it", || {
            (ok(cluster.engine(0), LOOK, "state") == "after").then_some(())
        });
        assert!(!writer.is_finished(), "eager");
        cluster.kill(0);
        cluster.engine(2).signal(Signal::CONT);
        writer.join().unwrap()
    });
    cluster.engines[1] = Some(engine);
    assert_eq!(status, Status::Success, "{}", cluster.engine(1).log());
    let after = version(&text);
    assert!(after.0 > before.0, "in the next leader's term: {after:?}");
    let leader = cluster.status(1).leader.unwrap();
    wait_led(&cluster, &[1, 2], leader);
    for rank in [1, 2] {
        let read = ok(cluster.engine(rank), READ, "state");
        assert!(read.ends_with(": after"), "rank {rank}: {read}");
    }
    // The one that died has forgotten all, and hears of it.
    cluster.engines[0] = Some(cluster.configs[0].start());
    wait_led(&cluster, &[0, 1, 2], leader);
    let read = ok(cluster.engine(0), READ, "state");
    assert!(read.ends_with(": after"), "{read}");
    cluster.stop();
}

#[test]
fn the_leader_dies_during_a_fetch_and_the_next_one_answers() {
    let Some((_etcd, mut cluster)) = cluster(3) else {
        return;
    };
    // Lazy or not, rank 1 has what it wrote; rank 2 asks.
    ok(cluster.engine(1), WRITE, "known=yes");
    for (name, expected) in [("known", Status::Success), ("never", Status::Failure)] {
        let leader = cluster.status(2).leader.unwrap() as usize;
        let asker = 2;
        assert_ne!(leader, asker);
        // The leader does not answer, then it is gone.
        cluster.engine(leader).signal(Signal::STOP);
        let engine = cluster.engines[asker].take().unwrap();
        let (status, text) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| asked(&engine, READ, name));
            cluster.kill(leader);
            reader.join().unwrap()
        });
        cluster.engines[asker] = Some(engine);
        assert_eq!(
            status,
            expected,
            "{name}: {text}\n{}",
            cluster.engine(asker).log()
        );
        match status {
            Status::Success => assert!(text.ends_with(": yes"), "{text}"),
            _ => cluster.engine(asker).wait_log("DER_NONEXIST"),
        }
        let rest: Vec<usize> = (0..3).filter(|rank| *rank != leader).collect();
        let next = eventually("another leader", || {
            let next = cluster.status(asker).leader?;
            (next as usize != leader).then_some(next)
        });
        wait_led(&cluster, &rest, next);
        cluster.engines[leader] = Some(cluster.configs[leader].start());
        wait_led(&cluster, &[0, 1, 2], next);
    }
    cluster.stop();
}

/// What a writer or a reader has seen.
#[derive(Default)]
struct Tally {
    done: AtomicU64,
    failed: AtomicU64,
    over: AtomicBool,
}

/// Writes until it is over: every write is answered, and versions that are acknowledged only grow.
fn write(engine: &Engine, tally: &Tally) {
    let mut last = (0, 0);
    for nr in 0.. {
        if tally.over.load(Ordering::SeqCst) {
            return;
        }
        let (status, text) = asked(engine, WRITE, &format!("load={nr}"));
        if status != Status::Success {
            tally.failed.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        let now = version(&text);
        assert!(now > last, "{last:?} then {now:?}");
        last = now;
        tally.done.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn two_leaders_die_under_load_and_versions_only_grow() {
    let Some((_etcd, mut cluster)) = cluster(4) else {
        return;
    };
    let tallies = [Tally::default(), Tally::default()];
    let writers = [3, 2].map(|rank| cluster.engines[rank].take().unwrap());
    std::thread::scope(|scope| {
        for (engine, tally) in writers.iter().zip(&tallies) {
            scope.spawn(move || write(engine, tally));
        }
        let progress = |what: &str| {
            let done = || {
                tallies
                    .each_ref()
                    .map(|tally| tally.done.load(Ordering::SeqCst))
            };
            let before = done();
            eventually(what, || {
                let now = done();
                (now[0] > before[0] + 5 && now[1] > before[1] + 5).then_some(())
            });
        };
        progress("load");
        cluster.kill(0);
        progress("load with the second leader");
        cluster.kill(1);
        progress("load with the third");
        tallies
            .iter()
            .for_each(|tally| tally.over.store(true, Ordering::SeqCst));
    });
    let [three, two] = writers;
    (cluster.engines[3], cluster.engines[2]) = (Some(three), Some(two));
    let leader = cluster.status(3).leader.unwrap();
    wait_led(&cluster, &[2, 3], leader);
    for rank in [0, 1] {
        cluster.engines[rank] = Some(cluster.configs[rank].start());
    }
    wait_led(&cluster, &[0, 1, 2, 3], leader);
    let last = ok(cluster.engine(2), WRITE, "load=last");
    for rank in 0..4 {
        let read = ok(cluster.engine(rank), READ, "load");
        assert!(read.ends_with(": last"), "rank {rank}: {read} of {last}");
    }
    cluster.stop();
}
