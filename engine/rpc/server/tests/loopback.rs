//! Calls inside the engine: the same answers as over TCP, without a copy.
#![allow(missing_docs, reason = "a test")]

mod harness;

use daos_errno::Der;
use engine_rpc::{Loopback, Opcode, Reply, Transport, call};
use harness::{ECHO, Engine, FORGET, HOLD, PANIC, SINK, STATUS, WHERE, pattern};
use spdk_env::DmaBuf;

fn buffer(data: &[u8]) -> Option<(DmaBuf, usize)> {
    let mut buf = DmaBuf::alloc(data.len().max(1)).unwrap();
    buf.as_mut_slice()[..data.len()].copy_from_slice(data);
    Some((buf, data.len()))
}

/// What a caller sees of an answer: status, body, bulk.
type Seen = (i32, Vec<u8>, Vec<u8>);

fn seen(reply: &Reply) -> Seen {
    (
        reply.status,
        reply.body.clone(),
        reply.bulk_bytes().to_vec(),
    )
}

#[test]
fn local_and_tcp_answers_are_the_same() {
    let engine = Engine::start(2);
    let cases: Vec<(Opcode, Vec<u8>, Vec<u8>)> = vec![
        (ECHO, vec![], vec![]),
        (ECHO, pattern(1000, 1), vec![]),
        (ECHO, vec![], pattern(70_000, 2)),
        (ECHO, pattern(1 << 20, 3), pattern(4 << 20, 4)),
        (WHERE, vec![], vec![]),
        (FORGET, vec![1], vec![2]),
        (PANIC, vec![], vec![]),
        (STATUS, Der::NOSPACE.neg().to_le_bytes().to_vec(), vec![]),
        (Opcode::new(99, 1, 0), vec![], vec![]),
        (Opcode::new(ECHO.module(), 7, 0), vec![], vec![]),
        (Opcode::new(ECHO.module(), 1, 99), vec![], vec![]),
    ];
    for (opcode, body, bulk) in cases {
        for (from, to) in [(0, 0), (0, 1), (1, 0), (1, 2), (2, 2)] {
            let mut client = engine.client(from);
            client.send_to(to, opcode, &body, Some(&bulk)).unwrap();
            let tcp = client.recv().unwrap().1;
            let (body, bulk) = (body.clone(), bulk.clone());
            let local = engine.run(from, move || async move {
                let reply = call(to, opcode, body, buffer(&bulk)).await.unwrap();
                seen(&reply)
            });
            let tcp = (tcp.status, tcp.body, tcp.bulk.unwrap_or_default());
            assert!(
                local == tcp,
                "{opcode} from {from} to {to}: status {} and {}",
                local.0,
                tcp.0
            );
        }
    }
    let bad = engine.run(0, || async {
        call(9, ECHO, vec![], None).await.map(|reply| reply.status)
    });
    assert_eq!(bad, Ok(Der::BAD_TARGET.neg()));
}

#[test]
fn the_same_buffer_comes_back() {
    let engine = Engine::start(1);
    let moved = engine.run(0, || async {
        let (buf, len) = buffer(&pattern(100_000, 1)).unwrap();
        let before = buf.as_ptr() as usize;
        let reply = call(1, ECHO, vec![], Some((buf, len))).await.unwrap();
        before == reply.bulk.unwrap().0.as_ptr() as usize
    });
    assert!(moved, "the bulk was copied");
}

#[test]
fn limits_are_those_of_the_wire() {
    let engine = Engine::start(1);
    let results = engine.run(0, || async {
        let loopback = Loopback::current().unwrap();
        assert_eq!(loopback.name(), "loopback");
        let long_body = loopback
            .call(1, SINK, vec![0; (1 << 20) + 1], None)
            .await
            .map(drop);
        let long_bulk = loopback
            .call(1, SINK, vec![], buffer(&vec![0; (4 << 20) + 1]))
            .await
            .map(drop);
        let lying = loopback
            .call(1, SINK, vec![], Some((DmaBuf::alloc(10).unwrap(), 100_000)))
            .await
            .map(drop);
        [long_body, long_bulk, lying]
    });
    assert_eq!(results, [Err(Der::OVERFLOW); 3]);
}

#[test]
fn calls_in_flight_are_bounded_and_forgotten_ones_free_their_place() {
    let engine = Engine::start_with(1, |options| options.max_calls = 2);
    let third = engine.run(0, || async {
        let first = call(1, HOLD, b"1".to_vec(), None);
        let second = call(1, HOLD, b"2".to_vec(), None);
        let third = call(1, SINK, vec![], None).await.map(drop);
        drop(first);
        let fourth = call(1, SINK, vec![], None).await.map(|reply| reply.status);
        drop(second);
        (third, fourth)
    });
    assert_eq!(third, (Err(Der::OVERLOAD_RETRY), Ok(0)));
    // Answers that nobody waits for any more are dropped.
    engine.release_held(2);
    assert_eq!(
        engine
            .run(0, || call(1, ECHO, b"fine".to_vec(), None))
            .unwrap()
            .body,
        b"fine"
    );
}

#[test]
fn thousands_of_calls_between_all_xstreams() {
    let engine = Engine::start(3);
    std::thread::scope(|scope| {
        for from in 0..=3u32 {
            let engine = &engine;
            scope.spawn(move || {
                let sum = engine.run(from, move || async move {
                    let mut sum = 0;
                    for i in 0..3000u32 {
                        let calls: Vec<_> = (0..4)
                            .map(|to| call(to, ECHO, i.to_le_bytes().to_vec(), None))
                            .collect();
                        for pending in calls {
                            let reply = pending.await.unwrap();
                            sum += u64::from(u32::from_le_bytes(reply.body.try_into().unwrap()));
                        }
                    }
                    sum
                });
                assert_eq!(sum, 4 * (0..3000u64).sum::<u64>());
            });
        }
    });
}

#[test]
fn a_full_ring_gives_a_retry_hint_to_the_caller() {
    let engine = Engine::start_with(1, |options| options.ring_capacity = 2);
    let (ok, retry) = engine.run(0, || async {
        let calls: Vec<_> = (0..1000).map(|_| call(1, SINK, vec![], None)).collect();
        let mut counts = (0, 0);
        for pending in calls {
            match pending.await.unwrap().status {
                0 => counts.0 += 1,
                status if status == Der::OVERLOAD_RETRY.neg() => counts.1 += 1,
                other => panic!("status {other}"),
            }
        }
        counts
    });
    assert_eq!(ok + retry, 1000);
    assert!(ok >= 2);
}
