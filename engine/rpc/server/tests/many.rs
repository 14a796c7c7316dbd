//! Far more peers than there is room for.
#![allow(missing_docs, reason = "a test")]

mod harness;

use std::io::{Read, Write};

use daos_errno::Der;
use engine_rpc::Opcode;
use harness::{ECHO, Engine, frame, raw, read_frame};
use rpc_wire::{HelloRequest, PROTOCOL};

#[test]
fn ten_thousand_connections_are_served_or_told_that_there_is_no_room() {
    const ROOM: usize = 1000;
    let engine = Engine::start_with(1, |options| options.max_connections = ROOM);
    let body = HelloRequest {
        protocol: PROTOCOL,
        tag: 1,
    }
    .encode();
    let hello = frame(Opcode::HELLO, 1, 1, &body, b"");
    let (mut served, mut told) = (Vec::new(), 0);
    for batch in 0..100 {
        let mut sockets: Vec<_> = (0..100).map(|_| raw(&engine)).collect();
        // Every tenth says nothing, and goes away again.
        for (at, socket) in sockets.iter_mut().enumerate() {
            if at % 10 != 9 {
                socket.write_all(&hello).unwrap();
            }
        }
        for (at, mut socket) in sockets.into_iter().enumerate() {
            if at % 10 == 9 {
                continue;
            }
            let (header, ..) = read_frame(&mut socket).unwrap();
            match header.status {
                0 => served.push(socket),
                status => {
                    assert_eq!(status, Der::BUSY.neg(), "in batch {batch}");
                    told += 1;
                    assert_eq!(socket.read(&mut [0; 8]).unwrap(), 0, "it is closed");
                }
            }
        }
    }
    assert_eq!((served.len(), told), (ROOM, 9000 - ROOM));
    assert_eq!(engine.server().connections(), ROOM);
    for (id, socket) in (5..).zip(&mut served) {
        socket.write_all(&frame(ECHO, 1, id, b"x", b"")).unwrap();
    }
    for (id, socket) in (5..).zip(&mut served) {
        assert_eq!(read_frame(socket).unwrap().0.request_id, id);
    }
    // Whoever goes makes room.
    drop(served);
    engine.wait_for("the connections to end", |engine| {
        engine.server().connections() == 0
    });
    engine.client(1).call(ECHO, b"x", None).unwrap();
}
