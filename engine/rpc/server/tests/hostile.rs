//! Peers that send rubbish, too much, too little or too slowly, while a good client goes on working.
#![allow(missing_docs, reason = "a test")]

mod harness;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daos_errno::Der;
use harness::{ECHO, Engine, HOLD, frame, hello, pattern, raw, read_frame};
use rpc_wire::{
    Client, FLAG_RESPONSE, HEADER_LEN, Header, HelloReply, HelloRequest, MAX_BULK, Opcode, PROTOCOL,
};

/// Runs `attack` while a client of each tag keeps calling; then everything must still work.
fn under_attack(engine: &Engine, attack: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for tag in 0..=1 {
            let stop = &stop;
            let mut client = engine.client(tag);
            scope.spawn(move || {
                let bulk = pattern(10_000, 1);
                while !stop.load(Ordering::Relaxed) {
                    let reply = client.call(ECHO, b"good", Some(&bulk)).unwrap();
                    assert!(reply.body == b"good" && reply.bulk.as_ref() == Some(&bulk));
                }
            });
        }
        attack();
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        engine.client(1).call(ECHO, b"after", None).unwrap().body,
        b"after"
    );
    engine.wait_for("all connections to close", |engine| {
        engine.server().connections() == 0
    });
}

/// The engine has closed the connection (what it may have said before is skipped).
fn assert_closed(mut socket: TcpStream) {
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut rest = Vec::new();
    match socket.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
}

#[test]
fn rubbish_instead_of_hello() {
    let engine = Engine::start(1);
    under_attack(&engine, || {
        let mut seed = 0x9E37_79B9u32;
        for len in [1usize, 10, 63, 64, 65, 200, 5000, 100_000] {
            let mut socket = raw(&engine);
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            // It may be closed on us in the middle.
            let _ = socket.write_all(&bytes);
            let _ = socket.shutdown(std::net::Shutdown::Write);
            assert_closed(socket);
        }
        let mut http = raw(&engine);
        http.write_all(
            b"GET /index.html HTTP/1.1\r\nHost: storage.example\r\nUser-Agent: lost/1.0\r\n\r\n",
        )
        .unwrap();
        assert_closed(http);
        // And one that says nothing at all, and one that closes at once.
        let silent = raw(&engine);
        drop(raw(&engine));
        drop(silent);
    });
}

#[test]
fn wrong_hellos_are_told_why() {
    let engine = Engine::start(1);
    let told = |bytes: &[u8]| {
        let mut socket = raw(&engine);
        socket.write_all(bytes).unwrap();
        let (header, body, _) = read_frame(&mut socket).unwrap();
        assert!(header.is_response());
        assert_eq!(HelloReply::decode(&body).unwrap().protocol, PROTOCOL);
        assert_closed(socket);
        Der::check(header.status).unwrap_err()
    };
    let say = |protocol, tag| {
        frame(
            Opcode::HELLO,
            0,
            1,
            &HelloRequest { protocol, tag }.encode(),
            b"",
        )
    };
    assert_eq!(told(&say(99, 0)), Der::PROTO);
    assert_eq!(told(&say(PROTOCOL, 5)), Der::BAD_TARGET);
    assert_eq!(told(&frame(ECHO, 0, 1, b"no hello first", b"")), Der::PROTO);
    let mut damaged = say(PROTOCOL, 0);
    damaged[HEADER_LEN + 4] ^= 1;
    assert_eq!(told(&damaged), Der::PROTO);
}

#[test]
fn a_damaged_header_ends_its_connection_only() {
    let engine = Engine::start(1);
    under_attack(&engine, || {
        for bit in (0..HEADER_LEN * 8).step_by(29) {
            let mut socket = hello(&engine, 1);
            let mut bytes = frame(ECHO, 1, 7, b"first", b"");
            let start = bytes.len();
            bytes.extend(frame(ECHO, 1, 8, b"second", b""));
            bytes[start + bit / 8] ^= 1 << (bit % 8);
            socket.write_all(&bytes).unwrap();
            assert_closed(socket);
        }
    });
}

#[test]
fn oversized_and_misdirected_frames_end_the_connection() {
    let engine = Engine::start(1);
    under_attack(&engine, || {
        for header in [
            Header {
                opcode: ECHO.0,
                body_len: u32::MAX,
                ..Header::default()
            },
            Header {
                opcode: ECHO.0,
                bulk_len: MAX_BULK as u32 + 1,
                ..Header::default()
            },
            Header {
                opcode: ECHO.0,
                flags: FLAG_RESPONSE,
                ..Header::default()
            },
        ] {
            let mut socket = hello(&engine, 1);
            socket.write_all(&header.encode()).unwrap();
            assert_closed(socket);
        }
    });
}

#[test]
fn damaged_body_and_bulk_fail_that_request_alone() {
    let engine = Engine::start(1);
    let mut socket = hello(&engine, 1);
    let mut bytes = frame(ECHO, 1, 1, b"body one", b"bulk one");
    let end = bytes.len();
    bytes[HEADER_LEN + 2] ^= 0x10;
    bytes.extend(frame(ECHO, 1, 2, b"body two", b"bulk two"));
    let last = bytes.len() - 1;
    assert!(last > end);
    bytes[last] ^= 0x01;
    bytes.extend(frame(ECHO, 1, 3, b"body three", b"bulk three"));
    socket.write_all(&bytes).unwrap();
    for (id, status) in [(1, Der::CSUM.neg()), (2, Der::CSUM.neg()), (3, 0)] {
        let (header, body, bulk) = read_frame(&mut socket).unwrap();
        assert_eq!((header.request_id, header.status), (id, status));
        let sound = status == 0;
        assert_eq!(body, if sound { &b"body three"[..] } else { b"" });
        assert_eq!(bulk, if sound { &b"bulk three"[..] } else { b"" });
    }
}

#[test]
fn doubled_and_reordered_requests_are_each_answered() {
    let engine = Engine::start(1);
    let mut socket = hello(&engine, 1);
    for id in [9, 3, 3, u64::MAX, 0, 9] {
        socket
            .write_all(&frame(ECHO, 1, id, &id.to_le_bytes(), b""))
            .unwrap();
    }
    for id in [9, 3, 3, u64::MAX, 0, 9] {
        let (header, body, _) = read_frame(&mut socket).unwrap();
        assert_eq!((header.request_id, body), (id, id.to_le_bytes().to_vec()));
    }
}

#[test]
fn frames_that_drip_in_byte_by_byte_are_served() {
    let engine = Engine::start(1);
    let mut socket = hello(&engine, 1);
    socket.set_nodelay(true).unwrap();
    for byte in frame(ECHO, 1, 4, b"slow", b"but whole") {
        socket.write_all(&[byte]).unwrap();
    }
    let (header, body, bulk) = read_frame(&mut socket).unwrap();
    assert_eq!(
        (header.request_id, body.as_slice(), bulk.as_slice()),
        (4, &b"slow"[..], &b"but whole"[..])
    );
}

#[test]
fn half_sent_frames_and_hellos_are_given_up() {
    let engine = Engine::start_with(1, |options| {
        options.frame_timeout = Duration::from_millis(50);
        options.handshake_timeout = Duration::from_millis(50);
    });
    under_attack(&engine, || {
        let whole = frame(ECHO, 1, 1, b"body", &pattern(100_000, 2));
        for cut in [1, 63, 64, 66, 68, 5000, whole.len() - 1] {
            let mut socket = hello(&engine, 1);
            socket.write_all(&whole[..cut]).unwrap();
            assert_closed(socket);
        }
        let mut socket = raw(&engine);
        socket
            .write_all(&frame(Opcode::HELLO, 0, 1, b"12345678", b"")[..30])
            .unwrap();
        assert_closed(socket);
        assert_closed(raw(&engine));
    });
}

#[test]
fn a_connection_that_ends_in_the_middle_leaves_nothing_behind() {
    let engine = Engine::start_with(1, |options| {
        // One leaked buffer or charge and the next round starves.
        options.bulk = vec![engine_rpc::BulkClass {
            buffer_len: 1 << 20,
            count: 1,
        }];
        options.max_in_flight = 4;
    });
    let whole = frame(ECHO, 1, 1, &pattern(2000, 1), &pattern(300_000, 2));
    for cut in [1, 64, 1000, 2064, 2065, 100_000, whole.len() - 1] {
        let mut socket = hello(&engine, 1);
        socket.write_all(&whole[..cut]).unwrap();
        drop(socket);
        let reply = engine
            .client(1)
            .call(ECHO, b"x", Some(&pattern(1 << 20, 3)))
            .unwrap();
        assert_eq!(reply.bulk.unwrap().len(), 1 << 20);
    }
    // Gone with requests in flight: their answers go nowhere.
    for _ in 0..3 {
        let mut client = engine.client(1);
        client.send(HOLD, b"1", None).unwrap();
        client.send(HOLD, b"2", None).unwrap();
        engine.wait_for("both to be held", |engine| engine.held() == 2);
        drop(client);
        engine.release_held(2);
    }
    assert_eq!(
        engine.client(1).call(ECHO, b"fine", None).unwrap().body,
        b"fine"
    );
}

#[test]
fn half_closed_peers_still_get_their_answers() {
    let engine = Engine::start(1);
    let mut socket = hello(&engine, 1);
    socket.write_all(&frame(HOLD, 1, 5, b"late", b"")).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    engine.wait_for("the request to be held", |engine| engine.held() == 1);
    engine.release_held(1);
    let (header, body, _) = read_frame(&mut socket).unwrap();
    assert_eq!((header.request_id, body.as_slice()), (5, &b"late"[..]));
    assert_eq!(socket.read(&mut [0]).unwrap(), 0);
}

#[test]
fn too_many_connections_are_refused_with_the_reason() {
    let engine = Engine::start_with(1, |options| options.max_connections = 3);
    let clients: Vec<Client> = (0..3).map(|n| engine.client(n % 2)).collect();
    for _ in 0..10 {
        let error = Client::connect(engine.addr(), 0).unwrap_err();
        assert!(error.to_string().contains("max_connections"), "{error}");
    }
    drop(clients);
    engine.wait_for("places to come free", |engine| {
        engine.server().connections() == 0
    });
    assert_eq!(
        engine.client(0).call(ECHO, b"in", None).unwrap().body,
        b"in"
    );
}

#[test]
fn silent_connections_do_not_keep_others_out_for_long() {
    let engine = Engine::start_with(1, |options| {
        options.max_handshakes = 4;
        options.handshake_timeout = Duration::from_millis(50);
    });
    let silent: Vec<TcpStream> = (0..20).map(|_| raw(&engine)).collect();
    assert_eq!(
        engine
            .client(1)
            .call(ECHO, b"got through", None)
            .unwrap()
            .body,
        b"got through"
    );
    drop(silent);
}
