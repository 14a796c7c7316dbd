//! Engines of a group call each other by rank.
#![allow(missing_docs, reason = "a test")]

mod harness;

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::time::Duration;

use daos_errno::Der;
use engine_rpc::{
    Again, GROUP_TELL, Group, Heartbeat, Member, Membership, Opcode, Presence, RankCall, Ranks,
    Registry, Request, Seen, register,
};
use harness::proxy::Proxy;
use harness::{ECHO, Engine, HOLD, SINK, STATUS, WHERE};

const LIMIT: Duration = Duration::from_secs(20);

/// An engine that is rank `me`, in no group yet.
fn engine(me: u32, targets: u32) -> (Engine, Membership) {
    let membership = Membership::new(me, 1);
    let group = membership.clone();
    let engine = Engine::start_with(targets, |options| options.group = group);
    let echo = |request: Request| {
        let body = request.body().to_vec();
        request.reply(0, &body, None);
    };
    register(&engine.registry, &membership, echo).unwrap();
    (engine, membership)
}

fn group(version: u32, addresses: &[SocketAddr]) -> Group {
    let members = (0..).zip(addresses).map(|(rank, address)| Member {
        rank,
        address: *address,
        incarnation: 0,
    });
    Group::new(version, members)
}

/// Two engines in one group, the second behind a wire that can be cut.
fn pair() -> (Engine, Engine, Proxy, [Membership; 2]) {
    let ((here, mine), (there, theirs)) = (engine(0, 1), engine(1, 2));
    let wire = Proxy::to(there.addr());
    for membership in [&mine, &theirs] {
        assert!(membership.set(group(1, &[here.addr(), wire.addr])));
    }
    (here, there, wire, [mine, theirs])
}

fn call(opcode: Opcode, body: &[u8]) -> RankCall {
    RankCall::new(opcode, body.to_vec(), LIMIT)
}

fn once(opcode: Opcode, body: &[u8]) -> RankCall {
    RankCall {
        again: Again::Once,
        ..call(opcode, body)
    }
}

/// Calls from rank 0's system xstream; status and body, or why there is no answer.
async fn ask(rank: u32, call: RankCall) -> Result<(i32, Vec<u8>), Der> {
    let reply = Ranks::current().unwrap().call(rank, call).await?;
    Ok((reply.status, reply.body))
}

#[test]
fn a_rank_is_an_address() {
    let (here, there, _wire, _) = pair();
    let name = there.name(2);
    here.run(0, move || async move {
        let far = RankCall {
            tag: 2,
            ..call(WHERE, b"")
        };
        assert_eq!(ask(1, far).await, Ok((0, name.into_bytes())));
        assert_eq!(
            ask(1, call(ECHO, b"hello")).await,
            Ok((0, b"hello".to_vec()))
        );
        assert_eq!(
            ask(0, call(ECHO, b"myself")).await,
            Ok((0, b"myself".to_vec()))
        );
        assert_eq!(ask(7, call(ECHO, b"ghost")).await, Err(Der::OOG));
        let status = Der::NOSPACE.neg();
        let failing = call(STATUS, &status.to_le_bytes());
        assert_eq!(ask(1, failing).await, Ok((status, vec![])));
        let long = once(ECHO, &vec![0; 1 << 20]);
        assert_eq!(
            ask(1, long).await,
            Err(Der::OVERFLOW),
            "the stamp needs room"
        );
    });
}

#[test]
fn another_version_of_the_group_is_refused_until_both_agree() {
    let (here, there, wire, [mine, theirs]) = pair();
    let refused = Ok((Der::GRPVER.neg(), vec![]));
    let addresses = [here.addr(), wire.addr];
    assert!(mine.set(group(2, &addresses)));
    let old = refused.clone();
    here.run(0, move || async move {
        assert_eq!(ask(1, call(ECHO, b"newer")).await, old);
        assert_eq!(ask(1, once(ECHO, b"newer")).await, old);
    });
    assert!(theirs.set(group(2, &addresses)));
    here.run(0, || async {
        assert_eq!(ask(1, call(ECHO, b"same")).await, Ok((0, b"same".to_vec())));
    });
    // Of the same version, and not a member: a lie.
    let alone = Group::new(
        3,
        [Member {
            rank: 1,
            address: wire.addr,
            incarnation: 0,
        }],
    );
    assert!(theirs.set(alone));
    assert!(mine.set(group(3, &addresses)));
    here.run(0, move || async move {
        assert_eq!(ask(1, call(ECHO, b"stranger")).await, refused);
    });
    drop(there);
}

#[test]
fn a_member_of_an_earlier_life_is_excluded_and_may_be_told_why() {
    let (here, there, wire, [mine, theirs]) = pair();
    let member = |rank, address, incarnation| Member {
        rank,
        address,
        incarnation,
    };
    let second = [member(0, here.addr(), 2), member(1, wire.addr, 0)];
    for membership in [&mine, &theirs] {
        assert!(membership.set(Group::new(2, second)));
    }
    let asked = |what: &'static [u8]| here.run(0, move || ask(1, call(ECHO, what)));
    assert_eq!(asked(b"first life"), Ok((Der::EXCLUDED.neg(), vec![])));
    mine.set_me(0, 2);
    assert_eq!(asked(b"second life"), Ok((0, b"second life".to_vec())));
    // With whatever version: how else would it learn of the newer one?
    assert!(theirs.set(Group::new(3, second)));
    assert_eq!(asked(b"older"), Ok((Der::GRPVER.neg(), vec![])));
    let told = here.run(0, || ask(1, call(GROUP_TELL, b"version 2")));
    assert_eq!(told, Ok((0, b"version 2".to_vec())));
    drop(there);
}

#[test]
fn a_call_whose_wire_breaks_is_carried_out_once() {
    let (here, there, wire, _) = pair();
    for answered_first in [true, false] {
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| here.run(0, || ask(1, once(HOLD, b"once"))));
            there.wait_for("the call", |engine| engine.held() == 1);
            if answered_first {
                wire.cut(true);
                there.release_held(1); // into the broken wire
                there.wait_for("the end of the connection", |engine| {
                    engine.server().connections() == 0
                });
                wire.mend();
            } else {
                let before = wire.carried();
                wire.cut(false);
                // The old connection may still be there: its call has no answer yet.
                there.wait_for("the next attempt", |engine| {
                    wire.carried() > before && engine.server().connections() > 0
                });
                there.release_held(1);
            }
            assert_eq!(caller.join().unwrap(), Ok((0, b"once".to_vec())));
            assert_eq!(there.held(), 0, "nobody carried it out again");
        });
    }
}

#[test]
fn calls_that_are_not_sent_again_fail_with_their_wire() {
    let (here, there, wire, _) = pair();
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| here.run(0, || ask(1, call(HOLD, b""))));
        there.wait_for("the call", |engine| engine.held() == 1);
        wire.cut(true);
        assert_eq!(caller.join().unwrap(), Err(Der::UNREACH));
    });
    let begun = std::time::Instant::now();
    here.run(0, || async {
        assert_eq!(ask(1, call(SINK, b"")).await, Err(Der::UNREACH));
    });
    assert!(begun.elapsed() < LIMIT, "it does not wait for its limit");
    wire.mend();
    here.run(0, || async {
        // A pause between attempts may still run.
        assert_eq!(ask(1, once(SINK, b"")).await, Ok((0, vec![])));
    });
    there.release_held(1);
}

#[test]
fn time_is_limited_and_a_dropped_call_is_forgotten() {
    let (here, there, _wire, _) = pair();
    let short = |again| RankCall {
        limit: Duration::from_millis(50),
        again,
        ..call(HOLD, b"late")
    };
    here.run(0, move || async move {
        assert_eq!(ask(1, short(Again::No)).await, Err(Der::TIMEDOUT));
        assert_eq!(ask(1, short(Again::Once)).await, Err(Der::TIMEDOUT));
        let dropped = spdk_thread::timeout(50_000_000, ask(1, call(HOLD, b"dropped"))).await;
        assert!(dropped.is_err());
    });
    there.release_held(3);
    here.run(0, || async {
        // The late answers were for nobody; the connection serves on.
        for i in 0..100u32 {
            let body = i.to_le_bytes();
            assert_eq!(ask(1, once(ECHO, &body)).await, Ok((0, body.to_vec())));
        }
    });
}

#[test]
fn hundreds_of_numbered_calls_are_forgotten_in_order() {
    let (here, there, _wire, _) = pair();
    here.run(0, || async {
        for i in 0..1000u32 {
            assert_eq!(ask(1, once(SINK, &i.to_le_bytes())).await, Ok((0, vec![])));
        }
    });
    drop(there);
}

#[test]
fn heartbeats_tell_who_is_there_and_which_life_it_lives() {
    let ((here, mine), (mut there, theirs)) = (engine(0, 1), engine(1, 1));
    let addresses = [here.addr(), there.addr()];
    for membership in [&mine, &theirs] {
        assert!(membership.set(group(1, &addresses)));
    }
    let (sender, told) = channel();
    let period = Duration::from_millis(5);
    let heartbeat = here.run(0, move || async move {
        let heard = move |before: &Seen, now: &Seen| {
            let state = |seen: &Seen| (seen.presence, seen.incarnation);
            if state(before) != state(now) {
                sender.send(state(now)).unwrap();
            }
        };
        Heartbeat::start(&mine, (period, period), heard).unwrap()
    });
    let next = || told.recv_timeout(LIMIT).unwrap();
    assert_eq!(next(), (Presence::Alive, 1));
    there.take_server().close();
    drop(there);
    assert_eq!(next(), (Presence::Silent, 1));
    assert_eq!(heartbeat.seen()[0].failure, Some(Der::UNREACH));
    // Its next life, at the same address.
    let membership = Membership::new(1, 2);
    membership.set(group(1, &addresses));
    let again = Engine::start_at(1, addresses[1], |options| {
        options.group = membership.clone()
    });
    register(&again.registry, &membership, drop).unwrap();
    assert_eq!(next(), (Presence::Alive, 2));
    assert_eq!((heartbeat.seen().len(), heartbeat.seen()[0].rank), (1, 1));
}

#[test]
fn heartbeats_are_registered_once() {
    let registry = Registry::new();
    let membership = Membership::new(0, 1);
    register(&registry, &membership, drop).unwrap();
    assert_eq!(
        register(&registry, &membership, drop).unwrap_err().der(),
        Der::EXIST
    );
}
