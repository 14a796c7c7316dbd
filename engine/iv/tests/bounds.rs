//! What happens at the bounds, when time runs out, and when somebody lies.

#![allow(missing_docs, reason = "a test")]

mod net;

use daos_errno::Der;
use engine_iv::{
    Body, Change, Class, Copy, Iv, Key, Message, Options, Output, Shortcut, Sync, Tree, Version,
};
use net::{BUDGET, NS, Net, SECOND, key, value};

#[test]
fn silence_is_asked_again_and_ends_at_the_deadline_with_its_reason() {
    let mut net = Net::new(2);
    net.deaf = vec![0];
    let (begun, op) = (net.now, net.start_fetch(1, 1));
    net.pass(BUDGET - 1);
    assert!(net.done.is_empty(), "not before its time");
    assert!(net.nodes[1].pending() == 1);
    net.pass(1);
    assert_eq!(
        (net.done[&(1, op)].clone(), net.now - begun),
        (Err(Der::TIMEDOUT), BUDGET)
    );
    assert_eq!(net.nodes[1].pending(), 0);
}

#[test]
fn a_lost_answer_does_not_make_a_change_happen_twice() {
    let mut net = Net::new(2);
    net.deaf = vec![1];
    let op = net.start_update(1, 1, "once", Sync::None.into());
    net.settle();
    net.deaf.clear();
    let other = net.update(0, 1, "newer", Sync::None).unwrap();
    let late = net.result(1, op).unwrap();
    assert!(
        late.version < other.version,
        "stamped the first time it came"
    );
    assert_eq!(net.fetch(0, 1), Ok(value("newer")));
    assert_eq!(net.fetch(1, 1), Ok(value("newer")));
}

#[test]
fn a_lease_ends_and_the_parent_is_asked() {
    let mut net = Net::new(2);
    net.update(0, 1, "old", Sync::Eager).unwrap();
    net.update(0, 1, "new", Sync::None).unwrap();
    assert_eq!(net.fetch(1, 1), Ok(value("old")), "nobody told 1");
    net.pass(31 * SECOND);
    assert_eq!(net.cached(1, 1), None);
    assert_eq!(net.fetch(1, 1), Ok(value("new")));
}

#[test]
fn operations_entries_and_waiters_are_bounded() {
    let options = Options {
        max_operations: 2,
        max_entries: 1,
        max_waiters: 1,
        ..Options::default()
    };
    let mut iv = Iv::new(1, 0, options);
    iv.register(1, Box::new(net::Plain)).unwrap();
    iv.connect(NS, Tree::Flat).unwrap();
    iv.set_group(0, NS, engine_iv::Group::new(1, [0, 1]));
    iv.set_leader(0, NS, 0, 1);
    let refused = |iv: &mut Iv| {
        let mut last = None;
        while let Some(output) = iv.poll() {
            if let Output::Done(done) = output {
                last = Some(done.result.unwrap_err().der);
            }
        }
        last
    };
    iv.fetch(0, NS, key(1), Shortcut::None, BUDGET);
    assert_eq!(refused(&mut iv), None);
    iv.fetch(0, NS, key(2), Shortcut::None, BUDGET);
    assert_eq!(refused(&mut iv), Some(Der::NOMEM), "one entry");
    iv.fetch(0, NS, key(1), Shortcut::None, 10);
    iv.fetch(0, NS, key(1), Shortcut::None, BUDGET);
    assert_eq!(refused(&mut iv), Some(Der::BUSY), "two operations");
    iv.tick(10);
    assert_eq!(
        refused(&mut iv),
        Some(Der::BUSY),
        "one waiter, for as long as it had"
    );
}

fn message(body: Body) -> Message {
    Message {
        ns: NS,
        group: 1,
        term: 1,
        body,
    }
}

#[test]
fn lies_are_not_believed() {
    let mut net = Net::new(6);
    net.update(0, 1, "truth", Sync::Eager).unwrap();
    let version = |term| Version { term, sequence: 99 };
    let sync = |term| Body::Sync {
        token: 5,
        key: key(1),
        version: version(term),
        change: Change::Set(value("lie")),
        wait: false,
        budget: BUDGET,
    };
    let now = net.now;
    net.iv(5).receive(now, 3, message(sync(1))); // 4 is 5's parent
    net.iv(4).receive(now, 0, message(sync(2))); // the leader has no such term
    net.iv(4).receive(now, 9, message(sync(1))); // no member
    let copy = Copy {
        version: version(1),
        value: value("lie"),
        fresh_for: BUDGET,
    };
    for token in 0..20 {
        let answer = Body::Fetched {
            token,
            result: Ok(copy.clone()),
        };
        net.iv(5).receive(now, 4, message(answer)); // nobody asked
    }
    net.settle();
    assert!((0..6).all(|rank| net.cached(rank, 1) == Some(value("truth"))));
    assert_eq!(
        net.count("synced"),
        5 + 3,
        "each was refused: {:?}",
        net.delivered
    );
}

/// Refuses to take what it hears on some ranks.
struct Picky(bool);

impl Class for Picky {
    fn refresh(
        &mut self,
        _: &engine_iv::Place,
        _: &Key,
        _: &Change,
        _: Version,
    ) -> Result<(), Der> {
        if self.0 { Err(Der::NOSPACE) } else { Ok(()) }
    }

    fn canonical(&self, key: &Key) -> Key {
        // Variables that differ in the last byte only are one.
        Key::new(key.class(), &key.bytes()[..1]).unwrap_or(*key)
    }
}

#[test]
fn a_rank_that_does_not_take_a_change_fails_it_and_those_below_have_it() {
    let picky = std::cell::Cell::new(0);
    let class = || -> Box<dyn Class> {
        picky.set(picky.get() + 1);
        Box::new(Picky(picky.get() == 5)) // rank 4
    };
    let mut net = Net::with(6, Tree::default(), class);
    assert_eq!(net.update(0, 1, "value", Sync::Eager), Err(Der::NOSPACE));
    assert_eq!(
        (net.cached(4, 1), net.cached(5, 1)),
        (None, Some(value("value")))
    );
    assert_eq!(net.fetch(4, 1), Err(Der::NOSPACE));
}

#[test]
fn keys_that_a_class_calls_equal_are_one_variable() {
    let mut net = Net::with(2, Tree::Flat, || Box::new(Picky(false)));
    net.update(1, 7, "same", Sync::Eager).unwrap();
    let other = Key::new(1, &[7, 200]).unwrap();
    let now = net.now;
    let op = net.iv(0).fetch(now, NS, other, Shortcut::None, BUDGET);
    assert_eq!(net.result(0, op).unwrap().value, Some(value("same")));
}
