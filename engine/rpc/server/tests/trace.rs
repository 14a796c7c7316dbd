//! One number for a request, on all engines that work for it.
#![allow(missing_docs, reason = "a test")]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use engine_rpc::{
    Again, Group, HandlerEntry, Member, Membership, Opcode, Options, RankCall, Ranks, Request,
    SlowRequest,
};
use harness::{Engine, Seen};

const MODULE: u8 = 9;
/// Takes its time.
const SLOW: Opcode = Opcode::new(MODULE, 1, 1);
/// Asks rank 1, from a ULT, and answers the number that the ULT works for.
const RELAY: Opcode = Opcode::new(MODULE, 1, 0);

fn note_slow(options: &mut Options, membership: &Membership, seen: &Seen) {
    let seen = seen.clone();
    options.group = membership.clone();
    options.slow_request = Duration::from_nanos(1);
    options.on_slow = Some(Arc::new(move |slow: &SlowRequest<'_>| {
        seen.push(format!("{} {:016x}", slow.name, slow.trace));
        let end = format!("trace {:016x}", slow.trace);
        assert!(slow.to_string().ends_with(&end), "{slow}");
    }));
}

#[test]
fn a_request_keeps_its_number_through_ults_and_engines() {
    let members: Vec<Membership> = (0..2).map(|rank| Membership::new(rank, 1)).collect();
    let seen: Vec<Seen> = (0..2).map(|_| Seen::default()).collect();
    let engines: Vec<Engine> = (0..2)
        .map(|rank| {
            Engine::start_with(1, |options| note_slow(options, &members[rank], &seen[rank]))
        })
        .collect();
    let addresses = engines.iter().map(Engine::addr);
    let group: Vec<Member> = (0..)
        .zip(addresses)
        .map(|(rank, address)| Member {
            rank,
            address,
            incarnation: 0,
        })
        .collect();
    for membership in &members {
        membership.set(Group::new(1, group.clone()));
    }
    let relay = |request: Request| {
        request.serve_in_ult("relay", |request| async move {
            let call = RankCall {
                tag: 1,
                again: Again::Once,
                ..RankCall::new(SLOW, Vec::new(), Duration::from_secs(20))
            };
            let answer = Ranks::current().unwrap().call(1, call).await.unwrap();
            assert_eq!((answer.status, request.trace()), (0, spdk_thread::trace()));
            request.reply(0, &spdk_thread::trace().to_le_bytes(), None);
        });
    };
    let slow = |request: Request| {
        request.serve_in_ult("slow", |request| async move {
            spdk_thread::sleep(2_000_000).await;
            request.reply(0, b"", None);
        });
    };
    for engine in &engines {
        let entries = vec![
            HandlerEntry::new(RELAY.index(), "relay", Arc::new(relay)),
            HandlerEntry::new(SLOW.index(), "slow", Arc::new(slow)),
        ];
        engine
            .registry
            .register_protocol(MODULE, 1, entries)
            .unwrap();
    }

    let mut client = engines[0].client(1);
    let mut traces = Vec::new();
    for _ in 0..2 {
        let reply = client.call(RELAY, b"", None).unwrap();
        traces.push(u64::from_le_bytes(reply.body.try_into().unwrap()));
    }
    assert!(traces[0] != 0 && traces[0] != traces[1], "{traces:x?}");
    let lines = |name: &str| -> Vec<String> {
        traces
            .iter()
            .map(|trace| format!("{name} {trace:016x}"))
            .collect()
    };
    assert_eq!(seen[1].all(), lines("slow"));
    assert_eq!(seen[0].all(), lines("relay"));
}
