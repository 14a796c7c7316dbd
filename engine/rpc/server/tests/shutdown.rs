//! The end of service: what is in flight is finished, or cut at the deadline; nothing stays behind on the threads.
#![allow(missing_docs, reason = "a test")]

mod harness;

use std::io::{Read, Write};
use std::time::Duration;

use daos_errno::Der;
use engine_rpc::{Options, StartError, call};
use harness::{ECHO, Engine, HOLD, frame, hello, read_frame};
use rpc_wire::{Client, ClientError};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn requests_in_flight_are_answered_before_the_connections_close() {
    let mut engine = Engine::start(2);
    let mut sockets: Vec<_> = (0..3).map(|tag| hello(&engine, tag)).collect();
    for (tag, socket) in sockets.iter_mut().enumerate() {
        // Each is served on another xstream than it comes in on.
        socket
            .write_all(&frame(
                HOLD,
                (tag as u32 + 1) % 3,
                7,
                b"finish me",
                b"with bulk",
            ))
            .unwrap();
    }
    engine.wait_for("all to be held", |engine| engine.held() == 3);
    let addr = engine.addr();
    let server = engine.take_server();
    let drained = std::thread::spawn(move || {
        let cut = server.drain(LONG);
        (server, cut)
    });
    // The drain has begun once new connections are not welcomed any more.
    while Client::connect(addr, 0).is_ok() {
        std::thread::yield_now();
    }
    engine.release_held(3);
    let (server, cut) = drained.join().unwrap();
    assert_eq!(cut, []);
    for mut socket in sockets {
        let (header, body, bulk) = read_frame(&mut socket).unwrap();
        assert_eq!((header.request_id, header.status), (7, 0));
        assert_eq!(
            (body.as_slice(), bulk.as_slice()),
            (&b"finish me"[..], &b"with bulk"[..])
        );
        assert_eq!(
            socket.read(&mut [0]).unwrap(),
            0,
            "closed after the last answer"
        );
    }
    assert_eq!(server.connections(), 0);
    server.close();
}

#[test]
fn what_is_left_at_the_deadline_is_cut_and_named() {
    let mut engine = Engine::start(1);
    let mut client = engine.client(1);
    client.send(HOLD, b"never answered", None).unwrap();
    engine.wait_for("it to be held", |engine| engine.held() == 1);
    let server = engine.take_server();
    assert_eq!(
        server.drain(Duration::from_millis(20)),
        [(engine.name(1), 1)]
    );
    assert!(matches!(
        client.recv(),
        Err(ClientError::Closed { outstanding: 1 })
    ));
    server.close();
    // Its handler answers after the end: nobody is there, nothing breaks.
    engine.release_held(1);
}

#[test]
fn local_calls_go_on_while_draining_and_fail_after_the_close() {
    let mut engine = Engine::start(1);
    let server = engine.take_server();
    assert_eq!(server.drain(LONG), []);
    let reply = engine
        .run(0, || call(1, ECHO, b"cleanup".to_vec(), None))
        .unwrap();
    assert_eq!(reply.body, b"cleanup");
    let waiting = std::thread::scope(|scope| {
        let engine = &engine;
        let waiting = scope.spawn(move || {
            engine
                .run(0, || call(1, HOLD, b"".to_vec(), None))
                .map(drop)
        });
        engine.wait_for("the call to be held", |engine| engine.held() == 1);
        server.close();
        waiting.join().unwrap()
    });
    assert_eq!(waiting, Err(Der::SHUTDOWN));
    assert_eq!(
        engine.run(0, || call(1, ECHO, vec![], None)).map(drop),
        Err(Der::UNINIT)
    );
}

#[test]
fn the_port_is_free_again_and_a_second_service_is_refused() {
    let mut engine = Engine::start(1);
    let addr = engine.addr();
    let client = engine.client(1);
    let second = engine.serve(None, Options::default());
    assert!(
        matches!(
            second,
            Err(StartError::Xstream {
                der: Der::ALREADY,
                ..
            })
        ),
        "{second:?}"
    );
    let taken = engine.serve(Some(addr), Options::default()).unwrap_err();
    assert!(
        taken
            .to_string()
            .contains("another engine or program has the port"),
        "{taken}"
    );
    drop(client);
    engine.take_server().close();
    let again = engine.serve(Some(addr), Options::default()).unwrap();
    assert_eq!(again.addr(), Some(addr));
    assert_eq!(
        Client::connect(addr, 1)
            .unwrap()
            .call(ECHO, b"again", None)
            .unwrap()
            .body,
        b"again"
    );
    again.close();
}

#[test]
fn closing_without_a_drain_cuts_everything_at_once() {
    let mut engine = Engine::start(1);
    let idle = engine.client(0);
    let half = {
        let mut socket = hello(&engine, 1);
        socket
            .write_all(&frame(ECHO, 1, 1, b"half a frame", b"")[..40])
            .unwrap();
        socket
    };
    let silent = harness::raw(&engine);
    engine.take_server().close();
    drop((idle, half, silent));
}
