//! What a well-behaved client gets from an engine on real sockets and real reactors.
#![allow(missing_docs, reason = "a test")]

mod harness;

use std::collections::HashMap;

use daos_errno::Der;
use harness::{ECHO, Engine, FORGET, HOLD, PANIC, STATUS, WHERE, pattern};
use rpc_wire::{Client, Opcode};

#[test]
fn every_xstream_serves_its_tag() {
    let engine = Engine::start(3);
    for tag in 0..=3 {
        let mut client = engine.client(tag);
        assert_eq!(client.hello().targets, 3);
        let reply = client.call(WHERE, b"", None).unwrap();
        assert_eq!(String::from_utf8(reply.body).unwrap(), engine.name(tag));
    }
}

#[test]
fn bodies_and_bulk_of_every_size_come_back_unchanged() {
    let engine = Engine::start(1);
    let mut client = engine.client(1);
    for len in [
        0,
        1,
        63,
        64,
        65,
        4096,
        16383,
        16384,
        16385,
        65536,
        1 << 20,
        (4 << 20) - 1,
        4 << 20,
    ] {
        let (body, bulk) = (pattern(len.min(1 << 20), 3), pattern(len, 5));
        let reply = client.call(ECHO, &body, Some(&bulk)).unwrap();
        assert_eq!(reply.status, 0);
        assert!(reply.body == body, "body of {len}");
        assert!(reply.bulk.unwrap_or_default() == bulk, "bulk of {len}");
    }
}

#[test]
fn unknown_things_have_their_own_errors() {
    let engine = Engine::start(1);
    let mut client = engine.client(1);
    let mut status = |opcode: Opcode, tag: u32| {
        let id = client.send_to(tag, opcode, b"", None).unwrap();
        let (got, reply) = client.recv().unwrap();
        assert_eq!(got, id);
        Der::check(reply.status)
    };
    assert_eq!(status(Opcode::new(77, 1, 0), 1), Err(Der::UNREG));
    assert_eq!(status(Opcode::new(ECHO.module(), 9, 0), 1), Err(Der::PROTO));
    assert_eq!(
        status(Opcode::new(ECHO.module(), 1, 999), 1),
        Err(Der::UNREG)
    );
    assert_eq!(status(Opcode::HELLO, 1), Err(Der::UNREG));
    assert_eq!(status(ECHO, 2), Err(Der::BAD_TARGET));
    assert_eq!(status(ECHO, u32::MAX), Err(Der::BAD_TARGET));
    assert_eq!(status(ECHO, 1), Ok(()));
    let error = Client::connect(engine.addr(), 2).unwrap_err();
    assert!(error.to_string().contains("no such target"), "{error}");
}

#[test]
fn a_handlers_own_status_comes_back() {
    let engine = Engine::start(1);
    let mut client = engine.client(0);
    for status in [0, Der::NOSPACE.neg(), Der::CSUM.neg()] {
        assert_eq!(
            client
                .call(STATUS, &status.to_le_bytes(), None)
                .unwrap()
                .status,
            status
        );
    }
}

#[test]
fn forgotten_and_panicking_handlers_answer_misc_and_harm_nothing_else() {
    let engine = Engine::start(1);
    let mut client = engine.client(1);
    let kept = client.send(HOLD, b"kept", None).unwrap();
    for opcode in [FORGET, PANIC, FORGET, PANIC] {
        assert_eq!(
            client.call(opcode, b"", Some(b"bulk")).unwrap().status,
            Der::MISC.neg()
        );
    }
    assert_eq!(client.call(ECHO, b"alive", None).unwrap().body, b"alive");
    engine.release_held(1);
    let (id, reply) = client.recv().unwrap();
    assert_eq!((id, reply.body.as_slice()), (kept, &b"kept"[..]));
}

#[test]
fn thousands_of_pipelined_calls_each_get_their_own_answer() {
    const CALLS: u32 = 20_000;
    let engine = Engine::start(2);
    let mut client = engine.client(1);
    let mut expected = HashMap::new();
    let check = |client: &mut Client, expected: &mut HashMap<u64, u32>| {
        let (id, reply) = client.recv().unwrap();
        let i = expected
            .remove(&id)
            .expect("an answer to something that was asked");
        assert_eq!(reply.body, i.to_le_bytes());
        assert_eq!(
            reply.bulk.unwrap_or_default(),
            pattern(i as usize % 700, i as u8)
        );
        client.recycle(rpc_wire::Reply {
            body: reply.body,
            ..Default::default()
        });
    };
    for i in 0..CALLS {
        // Some go to the other xstreams of the engine.
        let bulk = pattern(i as usize % 700, i as u8);
        let id = client
            .send_to(
                if i % 5 == 0 { i % 3 } else { 1 },
                ECHO,
                &i.to_le_bytes(),
                Some(&bulk),
            )
            .unwrap();
        expected.insert(id, i);
        if i % 3 == 0 {
            check(&mut client, &mut expected);
        }
    }
    while !expected.is_empty() {
        check(&mut client, &mut expected);
    }
}

#[test]
fn answers_come_in_the_order_of_completion() {
    let engine = Engine::start(1);
    let mut client = engine.client(1);
    let mut ids: Vec<u64> = (0..50u8)
        .map(|i| client.send(HOLD, &[i], Some(&[i; 100])).unwrap())
        .collect();
    assert_eq!(
        client.call(ECHO, b"overtakes", None).unwrap().body,
        b"overtakes"
    );
    // Answered last first, from a thread that is no xstream.
    engine.release_held(50);
    ids.reverse();
    for (n, id) in ids.into_iter().enumerate() {
        let i = 49 - n as u8;
        let (got, reply) = client.recv().unwrap();
        assert_eq!(
            (got, reply.body, reply.bulk),
            (id, vec![i], Some(vec![i; 100]))
        );
    }
}

#[test]
fn requests_for_another_tag_are_forwarded() {
    let engine = Engine::start(2);
    let mut client = engine.client(1);
    for tag in [0, 2, 1, 2, 0] {
        client.send_to(tag, WHERE, b"", None).unwrap();
        assert_eq!(
            String::from_utf8(client.recv().unwrap().1.body).unwrap(),
            engine.name(tag)
        );
    }
    let bulk = pattern(3 << 20, 9);
    client.send_to(2, ECHO, b"far", Some(&bulk)).unwrap();
    let (_, reply) = client.recv().unwrap();
    assert!(reply.body == b"far" && reply.bulk.unwrap() == bulk);
}

#[test]
fn many_clients_at_once() {
    let engine = Engine::start(2);
    std::thread::scope(|scope| {
        for n in 0..16u32 {
            let engine = &engine;
            scope.spawn(move || {
                let mut client = engine.client(n % 3);
                for i in 0..200 {
                    let bulk = pattern((i * 331 + n as usize * 97) % 50_000, n as u8);
                    let reply = client.call(ECHO, &n.to_le_bytes(), Some(&bulk)).unwrap();
                    assert!(
                        reply.body == n.to_le_bytes() && reply.bulk.unwrap_or_default() == bulk
                    );
                    client.recycle(rpc_wire::Reply::default());
                }
            });
        }
    });
    engine.wait_for("all connections to close", |engine| {
        engine.server().connections() == 0
    });
}

#[test]
fn slow_requests_are_reported() {
    let seen = harness::Seen::default();
    let hook = seen.clone();
    let engine = Engine::start_with(1, |options| {
        options.slow_request = std::time::Duration::from_nanos(1);
        options.on_slow = Some(std::sync::Arc::new(move |slow| hook.push(slow.to_string())));
    });
    let mut client = engine.client(1);
    client.send(HOLD, b"", None).unwrap();
    engine.wait_for("the request to be held", |engine| engine.held() == 1);
    // Another request makes sure that the xstream has turned, so that its time has moved.
    client.call(ECHO, b"", None).unwrap();
    engine.release_held(1);
    client.recv().unwrap();
    let lines = seen.all();
    assert!(
        lines
            .iter()
            .any(|line| line.contains("hold") && line.contains("for tag 1")),
        "{lines:?}"
    );
}
