//! Incast variables in engines: caches of xstreams, and several engines over TCP in one process.
#![allow(missing_docs, reason = "a test")]

mod node;

use std::time::Duration;

use daos_errno::Der;
use engine_iv_service::{Class, How, Key, NsId, Scope, Sync, Var};
use node::{Node, group_of};

const NS: NsId = 42;
const TEXTS: u32 = 1;
const BUDGET: Duration = Duration::from_secs(20);

struct Plain;

impl Class for Plain {
    fn max_value(&self) -> usize {
        64 << 10
    }
}

fn key(number: u8) -> Key {
    Key::new(TEXTS, &[number]).unwrap()
}

fn eager() -> How {
    Sync::Eager.into()
}

/// Reads without asking anybody.
fn cached(node: &Node, xstream: usize, number: u8) -> Option<String> {
    let var = Var::<String>::new(&node.incast, NS, key(number));
    node.run(xstream, move || async move {
        var.get().map(|text| (*text).clone())
    })
}

fn fetch(node: &Node, xstream: usize, number: u8) -> Result<String, Der> {
    let var = Var::<String>::new(&node.incast, NS, key(number));
    node.run(xstream, move || async move {
        let value = var.fetch(BUDGET).await;
        value
            .map(|text| (*text).clone())
            .map_err(|failure| failure.der)
    })
}

fn update(node: &Node, xstream: usize, number: u8, text: &str, how: How) -> Result<(), Der> {
    let var = Var::<String>::new(&node.incast, NS, key(number));
    let text = text.to_owned();
    node.run(xstream, move || async move {
        let done = var.update(&text, how, BUDGET).await;
        done.map(drop).map_err(|failure| failure.der)
    })
}

fn invalidate(node: &Node, xstream: usize, number: u8) -> Result<(), Der> {
    let var = Var::<String>::new(&node.incast, NS, key(number));
    node.run(xstream, move || async move {
        let done = var.invalidate(eager(), BUDGET).await;
        done.map(drop).map_err(|failure| failure.der)
    })
}

fn connect(node: &Node, scope: Scope) {
    let incast = node.incast.clone();
    node.run(1, move || async move {
        incast.connect(NS, scope).await.unwrap()
    });
}

/// Engines of one group, each with two targets and an offload xstream, in one namespace.
fn engines(ranks: u32) -> Vec<Node> {
    let nodes: Vec<Node> = (0..ranks).map(|rank| Node::start(rank, 1)).collect();
    group_of(&nodes, &nodes, 1);
    for node in &nodes {
        node.incast
            .register(TEXTS, "texts", Box::new(Plain))
            .unwrap();
        node.start_incast();
        connect(node, Scope::Group);
        node.tell_leader(1);
    }
    nodes
}

#[test]
fn a_target_reads_its_own_cache_and_hears_of_changes() {
    let nodes = engines(1);
    let node = &nodes[0];
    let (system, targets, offload) = (0, [1, 2], 3);
    assert_eq!(fetch(node, 1, 1), Err(Der::NONEXIST));
    update(node, 1, 1, "one", eager()).unwrap();
    assert_eq!(
        cached(node, system, 1).as_deref(),
        Some("one"),
        "the rank has it"
    );
    assert_eq!(cached(node, 2, 1), None, "nobody has read it here");
    for xstream in [1, 2, offload] {
        assert_eq!(fetch(node, xstream, 1).as_deref(), Ok("one"));
        assert_eq!(cached(node, xstream, 1).as_deref(), Some("one"));
    }
    // When it returns, all who have it have the new one.
    for round in 0..50 {
        let text = format!("round {round}");
        update(node, round % 4, 1, &text, eager()).unwrap();
        for xstream in 0..4 {
            assert_eq!(
                cached(node, xstream, 1),
                Some(text.clone()),
                "xstream {xstream}"
            );
        }
    }
    invalidate(node, 2, 1).unwrap();
    for xstream in 0..4 {
        assert_eq!(cached(node, xstream, 1), None);
    }
    assert_eq!(fetch(node, targets[0], 1), Err(Der::NONEXIST));
}

#[test]
fn a_namespace_ends_with_its_last_user() {
    let nodes = engines(1);
    let node = &nodes[0];
    connect(node, Scope::Engine);
    update(node, 1, 1, "here", eager()).unwrap();
    fetch(node, 2, 1).unwrap();
    let leave = || {
        let incast = node.incast.clone();
        node.run(2, move || async move { incast.disconnect(NS).await })
    };
    assert_eq!(leave(), Ok(()));
    assert_eq!(
        cached(node, 2, 1).as_deref(),
        Some("here"),
        "one user is left"
    );
    assert_eq!(leave(), Ok(()));
    assert_eq!(leave(), Err(Der::NONEXIST));
    assert_eq!(fetch(node, 1, 1), Err(Der::NONEXIST));
    node.run(2, || async { spdk_thread::yield_now().await });
    assert_eq!(cached(node, 2, 1), None);
    let again = node.incast.register(TEXTS, "again", Box::new(Plain));
    assert_eq!(again, Err(Der::EXIST));
}

#[test]
fn four_ranks_share_over_tcp_what_one_of_them_sets() {
    let nodes = engines(4);
    assert_eq!(fetch(&nodes[3], 1, 1), Err(Der::NONEXIST));
    update(&nodes[2], 2, 1, "of rank 2", Sync::None.into()).unwrap();
    for node in &nodes {
        assert_eq!(fetch(node, 2, 1).as_deref(), Ok("of rank 2"));
    }
    // Eager: in the cache of every xstream that has it, on every rank.
    for round in 0..20 {
        let text = format!("round {round}");
        update(&nodes[round % 4], 1, 1, &text, eager()).unwrap();
        for node in &nodes {
            assert_eq!(cached(node, 2, 1), Some(text.clone()));
        }
    }
    invalidate(&nodes[1], 1, 1).unwrap();
    for node in &nodes {
        assert_eq!(
            (cached(node, 2, 1), fetch(node, 2, 1)),
            (None, Err(Der::NONEXIST))
        );
    }
    // Lazy: some time later.
    update(&nodes[3], 1, 2, "lazy", Sync::Lazy.into()).unwrap();
    nodes[1].wait_for("a lazy update", || {
        cached(&nodes[1], 0, 2).as_deref() == Some("lazy")
    });
    let long = "x".repeat(40_000);
    update(&nodes[3], 1, 3, &long, eager()).unwrap();
    assert_eq!(cached(&nodes[1], 0, 3), Some(long.clone()), "by bulk");
    assert_eq!(fetch(&nodes[2], 1, 3), Ok(long));
    let too_long = "x".repeat((64 << 10) + 1);
    assert_eq!(
        update(&nodes[3], 1, 3, &too_long, eager()),
        Err(Der::OVERFLOW)
    );
}

#[test]
fn what_operators_see() {
    let nodes = engines(2);
    update(&nodes[1], 1, 7, "seen", eager()).unwrap();
    let incast = nodes[1].incast.clone();
    let list = nodes[1].run(1, move || async move { incast.list(10).await.unwrap() });
    assert_eq!((list.len(), list[0].ns, list[0].shared), (1, NS, true));
    assert_eq!(
        (list[0].leader, list[0].term, &list[0].path[..]),
        (Some(0), 1, &[1, 0][..])
    );
    let entry = &list[0].entries[0];
    assert_eq!(
        (entry.class_name.as_str(), &entry.key[..]),
        ("texts", &[7][..])
    );
    assert_eq!(
        (entry.len, entry.valid, entry.version.term),
        (Some(4), true, 1)
    );
}

#[test]
fn a_group_of_another_version_is_refused_until_the_time_is_up() {
    let nodes: Vec<Node> = (0..2).map(|rank| Node::start(rank, 1)).collect();
    group_of(&nodes[..1], &nodes, 1);
    group_of(&nodes[1..], &nodes, 2);
    for node in &nodes {
        node.incast
            .register(TEXTS, "texts", Box::new(Plain))
            .unwrap();
        node.start_incast();
        connect(node, Scope::Group);
        node.tell_leader(1);
    }
    let var = Var::<String>::new(&nodes[1].incast, NS, key(1));
    let failure = nodes[1].run(1, move || async move {
        var.fetch(Duration::from_millis(200)).await.unwrap_err()
    });
    assert_eq!(
        (failure.der, failure.asked, failure.expired),
        (Der::GRPVER, Some(0), true)
    );
    assert!(failure.attempts > 1, "{failure}");
}

#[test]
fn a_root_in_its_next_life_leads_in_a_new_term() {
    let nodes = engines(2);
    update(&nodes[1], 1, 1, "before", eager()).unwrap();
    fetch(&nodes[1], 1, 1).unwrap();
    let mut nodes = nodes.into_iter();
    let (root, other) = (nodes.next().unwrap(), nodes.next().unwrap());
    drop(root);
    let root = Node::start(0, 2);
    root.incast
        .register(TEXTS, "texts", Box::new(Plain))
        .unwrap();
    let both = [root, other];
    group_of(&both[..1], &both, 2);
    both[0].start_incast();
    connect(&both[0], Scope::Group);
    both[0].tell_leader(2);
    // What the former root vouched for may be served until its lease ends.
    assert_eq!(cached(&both[1], 1, 1).as_deref(), Some("before"));
    both[1].tell_leader(2);
    let incast = both[1].incast.clone();
    let list = both[1].run(1, move || async move { incast.list(1).await.unwrap() });
    assert_eq!((list[0].leader, list[0].term), (Some(0), 2));
}

#[test]
fn what_is_under_way_ends_with_the_service() {
    let nodes = engines(2);
    let mut nodes = nodes.into_iter();
    let (root, other) = (nodes.next().unwrap(), nodes.next().unwrap());
    drop(root);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| fetch(&other, 1, 1));
        other.wait_for("the question", || {
            let incast = other.incast.clone();
            let list = other.run(1, move || async move { incast.list(10).await.unwrap() });
            list[0].count == 1
        });
        other.incast.stop().unwrap();
        assert_eq!(waiting.join().unwrap(), Err(Der::SHUTDOWN));
    });
    assert_eq!(fetch(&other, 1, 1), Err(Der::SHUTDOWN));
}
