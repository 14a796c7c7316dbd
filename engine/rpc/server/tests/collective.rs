//! Calls to many engines along a tree, over TCP.
#![allow(missing_docs, reason = "a test")]

mod harness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daos_errno::Der;
use engine_rpc::{
    Collective, Group, HandlerEntry, Member, Membership, Opcode, Part, Ranks, Request, register,
};
use harness::{ECHO, Engine, HOLD, PANIC};

const LIMIT: Duration = Duration::from_secs(20);
const RANKS: u32 = 11;
const SUMS: u8 = 12;
/// Answers its rank; answers are added up on the way.
const SUM: Opcode = Opcode::new(SUMS, 1, 0);

struct Cluster {
    engines: Vec<Option<Engine>>,
    members: Vec<Membership>,
    addresses: Vec<SocketAddr>,
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

impl Cluster {
    fn start() -> Cluster {
        let (mut engines, mut members) = (Vec::new(), Vec::new());
        for rank in 0..RANKS {
            let membership = Membership::new(rank, 1);
            let own = membership.clone();
            let engine = Engine::start_with(1, |options| options.group = own);
            register(&engine.registry, &membership, drop).unwrap();
            let sum =
                move |request: Request| request.reply(0, &u64::from(rank).to_le_bytes(), None);
            let add = |sum: &mut Vec<u8>, more: &[u8]| {
                let added = number(sum) + number(more);
                sum.copy_from_slice(&added.to_le_bytes());
            };
            let entry = HandlerEntry::new(SUM.index(), "sum", Arc::new(sum)).gathering(add);
            engine
                .registry
                .register_protocol(SUMS, 1, vec![entry])
                .unwrap();
            engines.push(Some(engine));
            members.push(membership);
        }
        let addresses: Vec<SocketAddr> = engines.iter().flatten().map(Engine::addr).collect();
        let cluster = Cluster {
            engines,
            members,
            addresses,
        };
        (0..RANKS as usize).for_each(|rank| cluster.set_version(rank, 1));
        cluster
    }

    fn set_version(&self, rank: usize, version: u32) {
        let members = (0..).zip(&self.addresses);
        let members = members.map(|(rank, &address)| Member {
            rank,
            address,
            incarnation: 0,
        });
        assert!(self.members[rank].set(Group::new(version, members)));
    }

    /// What `from` hears when it asks `ranks`.
    fn ask(
        &self,
        from: usize,
        ranks: &[u32],
        opcode: Opcode,
        limit: Duration,
    ) -> Result<Vec<Part>, Der> {
        let ranks = ranks.to_vec();
        let engine = self.engines[from].as_ref().unwrap();
        engine.run(0, move || async move {
            let call = Collective {
                tag: 1,
                opcode,
                body: b"hello".to_vec(),
                limit,
            };
            Ranks::current().unwrap().call_all(&ranks, call).await
        })
    }
}

fn statuses(parts: &[Part]) -> Vec<(u32, i32)> {
    parts.iter().map(|part| (part.rank, part.status)).collect()
}

#[test]
fn all_answer_wherever_the_call_begins() {
    let cluster = Cluster::start();
    let all: Vec<u32> = (0..RANKS).collect();
    for from in [0, 3, 10] {
        let parts = cluster.ask(from, &all, ECHO, LIMIT).unwrap();
        let ranks: Vec<u32> = parts.iter().map(|part| part.rank).collect();
        assert_eq!(ranks, all);
        assert!(
            parts
                .iter()
                .all(|part| part.status == 0 && part.body == b"hello")
        );
    }
    // Some only, this engine not among them; none at all.
    let parts = cluster.ask(0, &[4, 9, 2], ECHO, LIMIT).unwrap();
    assert_eq!(statuses(&parts), [(2, 0), (4, 0), (9, 0)]);
    assert_eq!(cluster.ask(0, &[], ECHO, LIMIT), Ok(vec![]));
    // Answers are one when they get here.
    let parts = cluster.ask(5, &all, SUM, LIMIT).unwrap();
    let sums: Vec<u64> = parts
        .iter()
        .filter(|p| !p.body.is_empty())
        .map(|p| number(&p.body))
        .collect();
    assert_eq!((parts.len(), sums), (RANKS as usize, vec![10 * 11 / 2]));
}

#[test]
fn whoever_fails_is_named_and_hides_nobody() {
    let mut cluster = Cluster::start();
    let all: Vec<u32> = (0..RANKS).collect();
    // From 0, rank 4 heads 4 to 7, and 8 heads 8 to 10.
    cluster.engines[4] = None;
    cluster.engines[9] = None;
    cluster.set_version(8, 2);
    let parts = cluster.ask(0, &all, ECHO, LIMIT).unwrap();
    let failed: Vec<(u32, i32)> = statuses(&parts)
        .into_iter()
        .filter(|(_, s)| *s != 0)
        .collect();
    let wanted = [(4, Der::UNREACH), (8, Der::GRPVER), (9, Der::UNREACH)];
    assert_eq!(failed, wanted.map(|(rank, der)| (rank, der.neg())));
    assert_eq!(parts.len(), RANKS as usize);

    let parts = cluster.ask(0, &[1, 99], PANIC, LIMIT).unwrap();
    assert_eq!(
        statuses(&parts),
        [(1, Der::MISC.neg()), (99, Der::OOG.neg())]
    );
    let parts = cluster
        .ask(0, &[1, 2], Opcode::new(77, 1, 0), LIMIT)
        .unwrap();
    assert_eq!(
        statuses(&parts),
        [(1, Der::UNREG.neg()), (2, Der::UNREG.neg())]
    );
    // A call of the group's own kind would go round in circles.
    let circle = cluster.ask(0, &all, Opcode::new(engine_rpc::GROUP_MODULE, 1, 1), LIMIT);
    assert_eq!(circle.map(drop), Err(Der::INVAL));
}

#[test]
fn whoever_is_silent_is_named_in_time() {
    let cluster = Cluster::start();
    let parts = cluster
        .ask(0, &[0, 1, 2, 3, 4, 5], HOLD, Duration::from_millis(400))
        .unwrap();
    let late = Der::TIMEDOUT.neg();
    assert_eq!(
        statuses(&parts),
        (0..6).map(|rank| (rank, late)).collect::<Vec<_>>()
    );
    for engine in cluster.engines.iter().flatten() {
        engine.release_some();
    }
}
