//! Calls that are taken back, connections that end, versions that differ.
#![allow(missing_docs, reason = "a test")]

mod harness;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use daos_errno::Der;
use engine_rpc::{BulkPools, HandlerEntry, Opcode, Request, TcpTransport, Transport, negotiate};
use harness::{ECHO, Engine, HOLD, MODULE, Seen, frame, hello, read_frame};
use rpc_wire::{Client, ClientError};
use spdk_thread::sync::Notify;

const LIMIT: Duration = Duration::from_secs(20);
const OTHER: u8 = 9;
/// Waits in a ULT for ever.
const WAIT: Opcode = Opcode::new(OTHER, 2, 0);

fn memory() -> BulkPools {
    BulkPools::new(&[]).unwrap()
}

/// Notes its end.
struct Guard(Seen);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.push("dropped".to_owned());
    }
}

/// An engine whose WAIT never answers; the list says when one begins and ends.
fn waiting() -> (Engine, Seen) {
    let (engine, seen) = (Engine::start(2), Seen::default());
    let log = seen.clone();
    let wait = move |request: Request| {
        let log = log.clone();
        request.serve_in_ult("wait", |request| async move {
            log.push("began".to_owned());
            let _guard = Guard(log);
            Notify::new().notified().await;
            drop(request);
        });
    };
    let entry = HandlerEntry::new(WAIT.index(), "wait", Arc::new(wait));
    engine
        .registry
        .register_protocol(OTHER, 2, vec![entry])
        .unwrap();
    (engine, seen)
}

#[test]
fn a_dropped_call_aborts_the_ult_that_works_on_it() {
    let ((there, seen), here) = (waiting(), Engine::start(1));
    let (addr, log) = (there.addr(), seen.clone());
    here.run(0, move || async move {
        let tcp = TcpTransport::connect(addr, 1, LIMIT, 8, memory(), None)
            .await
            .unwrap();
        let call = tcp.call(1, WAIT, vec![], None);
        let other = tcp.call(1, WAIT, vec![], None);
        while log.all().len() < 2 {
            spdk_thread::sleep(1_000_000).await;
        }
        drop(call);
        while log.all().len() < 3 {
            spdk_thread::sleep(1_000_000).await;
        }
        // The connection goes on, and so does the other call, until it ends.
        assert_eq!(
            tcp.call(1, ECHO, b"x".to_vec(), None).await.unwrap().body,
            b"x"
        );
        assert_eq!(log.all(), ["began", "began", "dropped"]);
        drop(other);
    });
    there.wait_for("the end of the other", |_| seen.all().len() == 4);
}

#[test]
fn a_connection_that_breaks_aborts_what_works_for_it() {
    let (there, seen) = waiting();
    let mut socket = hello(&there, 1);
    socket.write_all(&frame(WAIT, 1, 7, b"", b"")).unwrap();
    there.wait_for("the ULT", |_| seen.all() == ["began"]);
    // Closed like this, the kernel resets the connection.
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    drop(socket);
    there.wait_for("the end of the ULT", |_| seen.all() == ["began", "dropped"]);
}

#[test]
fn a_canceled_request_is_not_answered_and_frees_its_place() {
    let engine = Engine::start_with(2, |options| options.max_in_flight_per_connection = 2);
    for tag in [1, 2] {
        // Handled on the connection's xstream, and on another one.
        let mut socket = hello(&engine, 1);
        let mut send = |opcode, tag, id| {
            socket.write_all(&frame(opcode, tag, id, b"", b"")).unwrap();
        };
        send(HOLD, tag, 11);
        send(HOLD, tag, 12);
        engine.wait_for("both to be held", |engine| engine.held() == 2);
        // The window is full; what makes room is read all the same.
        send(Opcode::CANCEL, 1, 11);
        send(ECHO, 1, 13);
        while engine.held() > 0 {
            engine.release_some();
        }
        // Two handlers answer, in no order.
        let mut ids = [0; 2].map(|_| read_frame(&mut socket).unwrap().0.request_id);
        ids.sort_unstable();
        assert_eq!(ids, [12, 13]);
        // Nothing in flight has this id, and later ones may have it.
        let mut send = |opcode, id| {
            socket.write_all(&frame(opcode, 1, id, b"", b"")).unwrap();
        };
        send(Opcode::CANCEL, 14);
        send(ECHO, 14);
        assert_eq!(read_frame(&mut socket).unwrap().0.request_id, 14);
    }
}

#[test]
fn cancellations_of_nothing_are_bounded() {
    let engine = Engine::start(1);
    let mut socket = hello(&engine, 1);
    let mut bytes = frame(HOLD, 1, 1, b"", b"");
    for id in 0..50_000 {
        bytes.extend(frame(Opcode::CANCEL, 1, 1000 + id, b"", b""));
    }
    bytes.extend(frame(ECHO, 1, 2, b"", b""));
    socket.write_all(&bytes).unwrap();
    assert_eq!(read_frame(&mut socket).unwrap().0.request_id, 2);
    engine.release_held(1);
    assert_eq!(read_frame(&mut socket).unwrap().0.request_id, 1);
}

#[test]
fn the_highest_version_in_common_is_spoken() {
    let engine = Engine::start(1);
    let calls = Arc::new(AtomicUsize::new(0));
    for version in [2, 3] {
        let calls = Arc::clone(&calls);
        let handle = move |request: Request| {
            calls.fetch_add(1, Ordering::Relaxed);
            request.reply(0, &[version], None);
        };
        let entry = HandlerEntry::new(0, "which", Arc::new(handle));
        engine
            .registry
            .register_protocol(OTHER, version, vec![entry])
            .unwrap();
    }
    let mut client = Client::connect(engine.addr(), 1).unwrap();
    for (known, spoken) in [(&[1, 2][..], 2), (&[2, 3, 4], 3), (&[3], 3)] {
        let version = client.negotiate(OTHER, known).unwrap();
        assert_eq!(version, spoken);
        let reply = client
            .call(Opcode::new(OTHER, version, 0), b"", None)
            .unwrap();
        assert_eq!(reply.body, [spoken]);
    }
    let error = client.negotiate(OTHER, &[4, 5]).unwrap_err();
    assert!(matches!(error, ClientError::Versions { .. }));
    let text = error.to_string();
    assert!(
        text.starts_with(
            "the engine serves versions [2, 3] of module 9, this program speaks [4, 5]"
        ),
        "{text}"
    );
    assert!(
        client
            .negotiate(77, &[1])
            .unwrap_err()
            .to_string()
            .contains("versions [] of module 77")
    );

    let (here, addr) = (Engine::start(1), engine.addr());
    let asked = here.run(0, move || async move {
        let tcp = TcpTransport::connect(addr, 0, LIMIT, 8, memory(), None)
            .await
            .unwrap();
        let mut said = Vec::new();
        for (module, known) in [(OTHER, 3), (OTHER, 9), (77, 1), (MODULE, 1)] {
            said.push(negotiate(&tcp, 0, module, &[known]).await);
        }
        said
    });
    assert_eq!(asked, [Ok(3), Err(Der::PROTO), Err(Der::UNREG), Ok(1)]);
    // A module's upgrade: the old version goes, the new one stays.
    engine.registry.unregister_protocol(OTHER, 2).unwrap();
    assert!(client.negotiate(OTHER, &[2]).is_err());
}
