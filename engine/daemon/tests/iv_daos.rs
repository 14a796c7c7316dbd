//! DAOS's scenarios of incast variables (`src/tests/ftest/cart/iv`) with five processes over TCP with TLS, one after the other; docs/internals/iv.md maps them.
//!
//! The root is rank 0; a rank's version of the group is what its configuration says, so it is another one after a restart with another list.

#![allow(missing_docs, reason = "a test")]

mod harness;

use daos_errno::Der;
use drpc_wire::{Status, keel, methods, modules};
use harness::{Cluster, eventually};

const RANKS: usize = 5;
/// Milliseconds, long enough for a few attempts.
const SHORT: u32 = 700;
const LONG: u32 = 20_000;

struct Five {
    cluster: Cluster,
    /// The `[tls]` section of each.
    tls: Vec<String>,
}

impl Five {
    fn start() -> Five {
        let mut cluster = Cluster::prepare(RANKS as u8, &["mgmt", "obj", "iv_demo"]);
        let tls = cluster.certify();
        for (rank, section) in tls.iter().enumerate() {
            cluster.configs[rank].more = section.clone() + &cluster.group(1);
        }
        cluster.start_all();
        let five = Five { cluster, tls };
        five.wait_alive();
        five
    }

    fn wait_alive(&self) {
        for rank in 0..RANKS {
            let state = |other| if other == rank { "self" } else { "alive" };
            self.cluster
                .wait_seen(rank, &(0..RANKS).map(state).collect::<Vec<_>>());
        }
    }

    /// A rank begins another life, with this version of the group.
    fn restart(&mut self, rank: usize, version: u32) {
        self.cluster.kill(rank);
        let section = self.tls[rank].clone();
        self.cluster.configs[rank].more = section + &self.cluster.group(version);
        self.cluster.engines[rank] = Some(self.cluster.configs[rank].start());
    }

    /// Makes an operation at a rank: `what` it is, for how long, on which note.
    #[track_caller]
    fn make(&self, rank: usize, (what, within): (&str, u32), note: &str) -> String {
        let engine = self.cluster.engine(rank);
        let body = format!("{what} {within} {note}");
        let answer = engine.drpc().call(110, 5, body.as_bytes());
        let answer = answer.unwrap_or_else(|error| panic!("{error}\n{}", engine.log()));
        assert_eq!(answer.status(), Status::Success, "{}", engine.log());
        String::from_utf8(answer.body).unwrap()
    }

    #[track_caller]
    fn does(&self, rank: usize, how: (&str, u32), note: &str) {
        let said = self.make(rank, how, note);
        assert!(!said.starts_with("DER_"), "rank {rank}: {how:?}: {said}");
    }

    #[track_caller]
    fn fails(&self, rank: usize, how: (&str, u32), note: &str, der: Der) {
        let said = self.make(rank, how, note);
        assert!(said.starts_with(&der.to_string()), "rank {rank}: {said}");
    }

    /// A rank that has just started may be too slow for so little time: then it fails in another way first.
    fn comes_to_fail(&self, rank: usize, how: (&str, u32), note: &str, der: Der) {
        eventually(&der.to_string(), || {
            let said = self.make(rank, how, note);
            assert!(said.starts_with("DER_"), "rank {rank}: {said}");
            said.starts_with(&der.to_string()).then_some(())
        });
    }

    #[track_caller]
    fn fetched(&self, rank: usize, note: &str) -> String {
        let found = self.make(rank, ("fetch", LONG), note);
        let (_, text) = found
            .split_once(": ")
            .unwrap_or_else(|| panic!("rank {rank}: {found}"));
        text.to_owned()
    }

    #[track_caller]
    fn everywhere(&self, note: &str, text: &str) {
        for rank in 0..RANKS {
            assert_eq!(self.fetched(rank, note), text, "rank {rank}");
        }
    }

    #[track_caller]
    fn nowhere(&self, note: &str) {
        for rank in (0..RANKS).rev() {
            self.fails(rank, ("fetch", LONG), note, Der::NONEXIST);
        }
    }

    /// Whether a rank may serve a note without asking.
    fn holds(&self, rank: usize, note: &str) -> bool {
        let asked = keel::IvListReq { most: 1000 };
        let engine = self.cluster.engine(rank);
        let list: keel::IvList = engine.ask(modules::KEEL, methods::IV_LIST, &asked);
        let key: String = note.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut entries = list.spaces.iter().flat_map(|space| &space.entries);
        entries.any(|entry| entry.class == "note" && entry.key == key && entry.valid)
    }
}

#[test]
fn five_processes_do_what_daos_does() {
    let mut five = Five::start();
    // Fetch of an unset key.
    for rank in [0, 1, 4] {
        five.fails(rank, ("fetch", LONG), "unset", Der::NONEXIST);
    }
    // Update at the root, sync none; all fetch it, and keep it on its way. The tree: 0 above 1, 2, 3, 4.
    five.does(0, ("none", LONG), "a=potato");
    assert!(!five.holds(3, "a"), "sync none tells nobody");
    five.everywhere("a", "potato");
    assert!(five.holds(3, "a"));
    // Invalidated eagerly: nowhere.
    five.does(0, ("forget", LONG), "a");
    five.nowhere("a");
    // Update for a root elsewhere, and straight to it; invalidated there.
    five.does(4, ("none", LONG), "b=from four");
    five.everywhere("b", "from four");
    five.does(3, ("eager!", LONG), "b=straight");
    assert!((0..RANKS).all(|rank| five.holds(rank, "b")));
    five.everywhere("b", "straight");
    five.does(0, ("forget", LONG), "b");
    five.nowhere("b");
    // Bidirectional: what the root makes of it is on its way back, and nowhere else.
    five.does(4, ("bidirectional", LONG), "c=both");
    assert!(five.holds(0, "c") && five.holds(4, "c") && !five.holds(2, "c"));
    // Lazy: done at the root, and with all some time later.
    five.does(2, ("lazy", LONG), "d=later");
    eventually("a lazy update", || five.holds(4, "d").then_some(()));
    // Up to 19,456 bytes inline, more by bulk; and over the class's bound.
    for len in [19_400, 19_500, 200_000] {
        let text = "x".repeat(len);
        five.does(1, ("eager", LONG), &format!("long={text}"));
        five.everywhere("long", &text);
    }
    let text = "x".repeat(300_000);
    five.fails(1, ("eager", LONG), &format!("long={text}"), Der::OVERFLOW);
    // The class refuses.
    five.fails(4, ("eager", LONG), "a=", Der::INVAL);
    five.fails(
        4,
        ("eager", LONG),
        &format!("{}=1", "k".repeat(49)),
        Der::OVERFLOW,
    );

    // Rank 4 has another version of the group: an eager update fails and stays where it arrived.
    five.restart(4, 2);
    five.comes_to_fail(0, ("eager", SHORT), "e=partial", Der::GRPVER);
    assert!(five.holds(0, "e") && five.holds(1, "e"));
    // It has not heard of the leader since it began with that list (DAOS, whose ranks know no lives: GRPVER).
    five.fails(4, ("fetch", SHORT), "e", Der::NOTLEADER);
    five.fails(4, ("eager", SHORT), "e=no", Der::NOTLEADER);
    // Equal again: it works, and clean-up reaches all.
    five.restart(4, 1);
    five.wait_alive();
    five.everywhere("e", "partial");
    five.does(4, ("forget", LONG), "e");
    five.nowhere("e");
    // The root has another one: who asks it is refused.
    five.restart(0, 2);
    five.fails(1, ("fetch", SHORT), "f", Der::GRPVER);
    five.restart(0, 1);
    five.wait_alive();
    five.does(1, ("eager", LONG), "f=again");
    five.everywhere("f", "again");
    five.cluster.stop();
}
