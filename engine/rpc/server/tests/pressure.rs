//! What happens at the bounds: the socket is left unread, nothing is lost, nothing grows.
#![allow(missing_docs, reason = "a test")]

mod harness;

use std::io::{ErrorKind, Write};
use std::time::Duration;

use engine_rpc::BulkClass;
use harness::{ECHO, Engine, HOLD, SINK, frame, hello, pattern, read_frame};

#[test]
fn an_empty_bulk_pool_holds_the_stream_until_a_buffer_is_back() {
    let engine = Engine::start_with(1, |options| {
        options.bulk = vec![BulkClass {
            buffer_len: 64 << 10,
            count: 2,
        }];
    });
    let mut client = engine.client(1);
    let bulk = pattern(64 << 10, 4);
    for _ in 0..2 {
        client.send(HOLD, b"keeps its buffer", Some(&bulk)).unwrap();
    }
    engine.wait_for("both buffers to be held", |engine| engine.held() == 2);
    client.send(HOLD, b"waits for memory", Some(&bulk)).unwrap();
    // Others that need no bulk go on; also on the same xstream.
    assert_eq!(
        engine.client(1).call(ECHO, b"no bulk", None).unwrap().body,
        b"no bulk"
    );
    assert_eq!(engine.held(), 2);
    engine.release_held(1);
    engine.wait_for("the third to get the buffer", |engine| engine.held() == 2);
    engine.release_held(2);
    for _ in 0..3 {
        assert!(client.recv().unwrap().1.bulk.unwrap() == bulk);
    }
}

#[test]
fn one_connections_requests_in_flight_are_bounded() {
    let engine = Engine::start_with(1, |options| options.max_in_flight_per_connection = 3);
    assert_eq!(engine.client(1).hello().max_in_flight, 3);
    // A peer that does not keep to what it was told.
    let mut socket = hello(&engine, 1);
    for id in 0..10u64 {
        socket.write_all(&frame(HOLD, 1, id, b"", b"")).unwrap();
    }
    engine.wait_for("three to be held", |engine| engine.held() == 3);
    assert_eq!(
        engine
            .client(1)
            .call(ECHO, b"others go on", None)
            .unwrap()
            .body,
        b"others go on"
    );
    assert_eq!(engine.held(), 3);
    let mut answered = 0;
    while answered < 10 {
        answered += engine.release_some();
        assert!(engine.held() <= 3);
    }
    let mut ids: Vec<u64> = (0..10)
        .map(|_| read_frame(&mut socket).unwrap().0.request_id)
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..10).collect::<Vec<u64>>());
}

#[test]
fn an_xstreams_requests_in_flight_are_bounded_over_all_connections() {
    let engine = Engine::start_with(1, |options| options.max_in_flight = 4);
    let mut clients: Vec<_> = (0..4).map(|_| engine.client(1)).collect();
    for client in &mut clients {
        for i in 0..3u8 {
            client.send(HOLD, &[i], None).unwrap();
        }
    }
    engine.wait_for("four to be held", |engine| engine.held() == 4);
    // The system xstream has a bound of its own.
    assert_eq!(
        engine.client(0).call(ECHO, b"system", None).unwrap().body,
        b"system"
    );
    assert_eq!(engine.held(), 4);
    let mut answered = 0;
    while answered < 12 {
        answered += engine.release_some();
        assert!(engine.held() <= 4);
    }
    for client in &mut clients {
        for _ in 0..3 {
            client.recv().unwrap();
        }
    }
}

#[test]
fn body_bytes_are_bounded_and_the_largest_body_still_fits() {
    let engine = Engine::start_with(1, |options| options.max_body_bytes = 1);
    let body = pattern(1 << 20, 6);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = engine.client(1);
                for _ in 0..10 {
                    assert!(client.call(ECHO, &body, None).unwrap().body == body);
                }
            });
        }
    });
}

/// Asks for large answers and reads none, until the engine takes no more requests.
fn ask_and_never_read(engine: &Engine) -> std::net::TcpStream {
    let mut socket = hello(engine, 1);
    let request = frame(ECHO, 1, 1, b"", &pattern(1 << 20, 8));
    socket
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut sent = 0;
    loop {
        match socket.write_all(&request) {
            Ok(()) => sent += 1,
            Err(error) => {
                // Left unread, or cut already.
                use ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, WouldBlock};
                let expected = [BrokenPipe, ConnectionReset, TimedOut, WouldBlock];
                assert!(expected.contains(&error.kind()), "{error}");
                break;
            }
        }
        assert!(
            sent < 500,
            "the engine takes requests of a peer that never reads"
        );
    }
    socket
}

#[test]
fn a_slow_reader_is_bounded_and_others_go_on() {
    let engine = Engine::start_with(1, |options| options.max_queued_reply_bytes = 2 << 20);
    let socket = ask_and_never_read(&engine);
    let bulk = pattern(100_000, 1);
    for _ in 0..20 {
        let reply = engine.client(1).call(ECHO, b"others", Some(&bulk)).unwrap();
        assert!(reply.bulk.unwrap() == bulk);
    }
    drop(socket);
    engine.wait_for("its connection to go", |engine| {
        engine.server().connections() == 0
    });
}

#[test]
fn a_peer_that_never_reads_is_cut_and_its_buffers_come_back() {
    let engine = Engine::start_with(1, |options| {
        options.write_timeout = Duration::from_millis(100);
        options.bulk = vec![BulkClass {
            buffer_len: 1 << 20,
            count: 4,
        }];
    });
    let socket = ask_and_never_read(&engine);
    engine.wait_for("it to be cut", |engine| engine.server().connections() == 0);
    drop(socket);
    let mut client = engine.client(1);
    for _ in 0..8 {
        client.send(ECHO, b"", Some(&pattern(1 << 20, 2))).unwrap();
    }
    for _ in 0..8 {
        client.recv().unwrap();
    }
}

#[test]
fn forwarded_requests_beyond_the_ring_get_a_retry_hint_and_nothing_is_lost() {
    let engine = Engine::start_with(1, |options| {
        options.ring_capacity = 2;
        options.max_in_flight_per_connection = 2000;
    });
    let mut client = engine.client(0);
    let mut counts = (0, 0);
    for i in 0..2000u32 {
        client.send_to(1, SINK, &i.to_le_bytes(), None).unwrap();
    }
    for _ in 0..2000 {
        match client.recv().unwrap().1.status {
            0 => counts.0 += 1,
            status if status == daos_errno::Der::OVERLOAD_RETRY.neg() => counts.1 += 1,
            other => panic!("status {other}"),
        }
    }
    assert_eq!(counts.0 + counts.1, 2000);
    assert!(counts.0 > 0);
}

#[test]
fn whoever_waits_for_room_gets_it_in_the_end() {
    let engine = Engine::start_with(1, |options| {
        options.max_in_flight = 2;
        options.max_body_bytes = 1;
        options.max_in_flight_per_connection = 8;
        options.max_queued_reply_bytes = 100_000;
        options.bulk = vec![BulkClass {
            buffer_len: 64 << 10,
            count: 2,
        }];
    });
    std::thread::scope(|scope| {
        for n in 0..12usize {
            let engine = &engine;
            scope.spawn(move || {
                let mut client = engine.client(n as u32 % 2);
                let (body, bulk) = (pattern(n * 40_000, 1), pattern(n * 5_000, 2));
                for round in 0..30 {
                    for _ in 0..=round % 8 {
                        client.send_to(1, ECHO, &body, Some(&bulk)).unwrap();
                    }
                    for _ in 0..=round % 8 {
                        let (_, reply) = client.recv().unwrap();
                        assert!(reply.body == body && reply.bulk.unwrap_or_default() == bulk);
                    }
                }
            });
        }
    });
}
