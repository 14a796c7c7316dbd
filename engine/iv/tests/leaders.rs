//! Leaders that die in the middle of something: once, twice, and come back.

#![allow(missing_docs, reason = "a test")]

mod net;

use daos_errno::Der;
use engine_iv::{Group, Options, Rank, Sync, Tree};
use net::{NS, Net, key, value};

/// A rank dies, with what it had sent still on its way; the others hear of their new group and leader.
fn dies(net: &mut Net, rank: Rank, (version, leader, term): (u32, Rank, u64)) {
    net.kill(rank);
    let ranks = 0..net.nodes.len() as Rank;
    let left: Vec<Rank> = ranks.filter(|rank| !net.dead.contains(rank)).collect();
    let now = net.now;
    for &rank in &left {
        let group = Group::new(version, left.iter().copied());
        net.iv(rank).set_group(now, NS, group);
        net.iv(rank).set_leader(now, NS, leader, term);
    }
}

/// Delivers until this many of a kind have arrived.
fn until(net: &mut Net, what: &str, count: usize) {
    while net.count(what) < count {
        assert!(net.step(), "{count} of {what}: {:?}", net.delivered);
    }
}

#[test]
fn a_leader_that_dies_during_an_eager_update_leaves_it_to_the_next_one() {
    let mut net = Net::new(8);
    net.update(0, 1, "before", Sync::Eager).unwrap();
    net.delivered.clear();
    let op = net.start_update(7, 1, "now", Sync::Eager.into());
    until(&mut net, "sync", 2);
    dies(&mut net, 0, (2, 1, 2));
    let stamp = net.result(7, op).expect("it goes on with the next leader");
    assert_eq!((stamp.version.term, stamp.version.sequence), (2, 1));
    for rank in 1..8 {
        assert_eq!(net.cached(rank, 1), Some(value("now")), "rank {rank}");
    }
    let attempts = net.count("update");
    net.pass(net::BUDGET);
    assert_eq!(net.count("update"), attempts, "nobody asks any more");
}

#[test]
fn a_change_that_only_the_dead_leader_had_seen_happens_with_the_next_one() {
    let mut net = Net::new(8);
    let op = net.start_update(5, 1, "now", Sync::None.into());
    until(&mut net, "update", 2); // 5 by way of 4 to 0, whose answer is lost with it
    dies(&mut net, 0, (2, 4, 2));
    assert_eq!(net.result(5, op).unwrap().version.term, 2);
    for rank in 1..8 {
        assert_eq!(net.fetch(rank, 1), Ok(value("now")), "rank {rank}");
    }
}

#[test]
fn a_leader_that_dies_during_a_fetch_is_followed_and_what_it_kept_alone_is_gone() {
    let mut net = Net::new(8);
    net.update(0, 1, "kept by all", Sync::Eager).unwrap();
    net.update(0, 2, "kept by it", Sync::None).unwrap();
    for rank in 1..8 {
        let now = net.now;
        net.iv(rank).unset_leader(now, NS); // they doubt what they have
        net.iv(rank).set_leader(now, NS, 0, 1);
    }
    net.delivered.clear();
    let (both, lost) = (net.start_fetch(5, 1), net.start_fetch(5, 2));
    until(&mut net, "fetch", 2);
    dies(&mut net, 0, (2, 4, 2));
    // The next leader's class decides; this one gives what it has kept.
    let found = net.result(5, both).map(|stamp| stamp.value);
    assert_eq!(found, Ok(Some(value("kept by all"))));
    assert_eq!(
        net.result(5, lost),
        Err(Der::NONEXIST),
        "in time, and with the reason"
    );
}

#[test]
fn leaders_may_die_twice_while_an_update_and_a_fetch_are_under_way() {
    let mut net = Net::with(9, Tree::Kary(2), || Box::new(net::Plain));
    let update = net.start_update(8, 1, "survives", Sync::Eager.into());
    let fetch = net.start_fetch(7, 1);
    until(&mut net, "sync", 1);
    dies(&mut net, 0, (2, 1, 2));
    until(&mut net, "sync", 3);
    dies(&mut net, 1, (3, 2, 3));
    let stamp = net.result(8, update).expect("the third leader takes it");
    assert_eq!(stamp.version.term, 3);
    let found = net.result(7, fetch);
    assert!(
        found == Err(Der::NONEXIST)
            || found.map(|stamp| stamp.value) == Ok(Some(value("survives"))),
        "before it or after it"
    );
    for rank in 2..9 {
        assert_eq!(net.cached(rank, 1), Some(value("survives")), "rank {rank}");
    }
}

#[test]
fn a_dead_leader_that_comes_back_knows_nothing_and_is_told() {
    let mut net = Net::new(4);
    net.update(2, 1, "old", Sync::Eager).unwrap();
    dies(&mut net, 0, (2, 1, 2));
    net.update(2, 1, "new", Sync::Eager).unwrap();
    // Its next life, as a mere member.
    net.revive(0, 1, Options::default());
    let now = net.now;
    for rank in 0..4 {
        net.iv(rank).set_group(now, NS, Group::new(3, 0..4));
        net.iv(rank).set_leader(now, NS, 1, 2);
    }
    assert_eq!(net.fetch(0, 1), Ok(value("new")));
    // And as one that believes it still leads in its old term: it hears that it does not.
    net.revive(0, 2, Options::default());
    let now = net.now;
    net.iv(0).set_group(now, NS, Group::new(3, 0..4));
    net.iv(0).set_leader(now, NS, 0, 1);
    let op = net.start_fetch(3, 1);
    assert_eq!(
        net.result(3, op).unwrap().value,
        Some(value("new")),
        "nobody asks it"
    );
    assert_eq!(net.update(0, 1, "mine", Sync::Eager), Err(Der::NOTLEADER));
    assert_eq!(net.cached(3, 1), Some(value("new")));
    assert_eq!(
        net.iv(3).cached(now, NS, &key(1)).map(|c| c.version.term),
        Some(2)
    );
}
