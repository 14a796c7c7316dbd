//! Calls from one engine to another over TCP, behind the trait that local calls have too.
#![allow(missing_docs, reason = "a test")]

mod harness;

use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use daos_errno::Der;
use engine_rpc::{BulkClass, BulkPools, ConnectError, Loopback, Opcode, TcpTransport, Transport};
use harness::{ECHO, Engine, HOLD, PANIC, SINK, STATUS, WHERE, pattern};
use spdk_env::DmaBuf;

const LIMIT: Duration = Duration::from_secs(20);

fn memory() -> BulkPools {
    BulkPools::new(&[
        BulkClass {
            buffer_len: 64 << 10,
            count: 8,
        },
        BulkClass {
            buffer_len: 4 << 20,
            count: 2,
        },
    ])
    .unwrap()
}

fn buffer(data: &[u8]) -> Option<(DmaBuf, usize)> {
    let mut buf = DmaBuf::alloc(data.len().max(1)).unwrap();
    buf.as_mut_slice()[..data.len()].copy_from_slice(data);
    Some((buf, data.len()))
}

/// What a module would write once for any transport.
async fn ask<T: Transport>(
    via: &T,
    tag: u32,
    opcode: Opcode,
    body: &[u8],
    bulk: &[u8],
) -> (i32, Vec<u8>, Vec<u8>) {
    let reply = via
        .call(tag, opcode, body.to_vec(), buffer(bulk))
        .await
        .unwrap();
    (
        reply.status,
        reply.body.clone(),
        reply.bulk_bytes().to_vec(),
    )
}

#[test]
fn remote_and_local_answers_are_the_same() {
    let (here, there) = (Engine::start(2), Engine::start(2));
    let addr = there.addr();
    here.run(1, move || async move {
        let tcp = TcpTransport::connect(addr, 1, LIMIT, 64, memory(), None)
            .await
            .unwrap();
        assert_eq!((tcp.hello().targets, tcp.name()), (2, "tcp"));
        let local = Loopback::current().unwrap();
        let cases: Vec<(Opcode, Vec<u8>, Vec<u8>)> = vec![
            (ECHO, vec![], vec![]),
            (ECHO, pattern(1 << 20, 1), pattern(4 << 20, 2)),
            (WHERE, vec![], vec![]),
            (PANIC, vec![], vec![1]),
            (STATUS, Der::NOSPACE.neg().to_le_bytes().to_vec(), vec![]),
            (Opcode::new(99, 1, 0), vec![], vec![]),
            (Opcode::new(ECHO.module(), 7, 0), vec![], vec![]),
        ];
        for (opcode, body, bulk) in cases {
            for tag in [0, 1, 2, 3] {
                let remote = ask(&tcp, tag, opcode, &body, &bulk).await;
                let local = ask(&local, tag, opcode, &body, &bulk).await;
                assert!(
                    remote == local,
                    "{opcode} to {tag}: {} and {}",
                    remote.0,
                    local.0
                );
            }
        }
    });
}

#[test]
fn thousands_of_calls_in_flight_window_by_window() {
    let (here, there) = (Engine::start(1), Engine::start(1));
    let addr = there.addr();
    here.run(0, move || async move {
        let tcp = TcpTransport::connect(addr, 1, LIMIT, 1000, memory(), None)
            .await
            .unwrap();
        let window = tcp.hello().max_in_flight;
        for round in 0..60u32 {
            let calls: Vec<_> = (0..window)
                .map(|i| {
                    tcp.call(
                        1,
                        ECHO,
                        (round * window + i).to_le_bytes().to_vec(),
                        buffer(&pattern(i as usize * 40, 3)),
                    )
                })
                .collect();
            let beyond = tcp.call(1, SINK, vec![], None).await.map(drop);
            assert_eq!(beyond, Err(Der::OVERLOAD_RETRY));
            for (i, pending) in calls.into_iter().enumerate() {
                let reply = pending.await.unwrap();
                assert_eq!(reply.body, (round * window + i as u32).to_le_bytes());
                assert!(reply.bulk_bytes() == pattern(i * 40, 3));
            }
        }
    });
}

#[test]
fn a_lost_engine_fails_its_calls_and_later_ones() {
    let here = Engine::start(1);
    let mut there = Engine::start(1);
    let addr = there.addr();
    let server = there.take_server();
    std::thread::scope(|scope| {
        let here = &here;
        let lost = scope.spawn(move || {
            here.run(1, move || async move {
                let tcp = TcpTransport::connect(addr, 0, LIMIT, 8, memory(), None)
                    .await
                    .unwrap();
                let waiting = tcp.call(0, HOLD, b"lost".to_vec(), None).await.map(drop);
                let later = tcp.call(0, ECHO, vec![], None).await.map(drop);
                (waiting, later, tcp.is_closed())
            })
        });
        there.wait_for("the call to be held", |engine| engine.held() == 1);
        server.close();
        assert_eq!(
            lost.join().unwrap(),
            (Err(Der::UNREACH), Err(Der::UNREACH), true)
        );
    });
}

#[test]
fn connections_that_cannot_be_made_say_why() {
    let here = Engine::start(1);
    let there = Engine::start_with(1, |options| options.max_connections = 1);
    let addr = there.addr();
    let connect = move |addr, tag, limit| async move {
        TcpTransport::connect(addr, tag, limit, 8, memory(), None)
            .await
            .map(Rc::new)
    };
    here.run(0, move || async move {
        let kept = connect(addr, 0, LIMIT).await.unwrap();
        let error = connect(addr, 0, LIMIT).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::Refused { der: Der::BUSY, .. }),
            "{error}"
        );
        drop(kept);
    });
    there.wait_for("the place to come free", |engine| {
        engine.server().connections() == 0
    });
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_addr = silent.local_addr().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    here.run(0, move || async move {
        let error = connect(addr, 9, LIMIT).await.unwrap_err();
        assert!(
            matches!(
                error,
                ConnectError::Refused {
                    der: Der::BAD_TARGET,
                    tag: 9,
                    ..
                }
            ),
            "{error}"
        );
        let error = connect(nobody, 0, LIMIT).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
        let error = connect(silent_addr, 0, Duration::from_millis(50))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("timed out"), "{error}");
    });
    drop(silent);
}

#[test]
fn an_empty_answer_pool_waits_for_its_buffers() {
    let (here, there) = (Engine::start(1), Engine::start(1));
    let addr = there.addr();
    here.run(0, move || async move {
        let one = BulkPools::new(&[BulkClass {
            buffer_len: 64 << 10,
            count: 1,
        }])
        .unwrap();
        let tcp = TcpTransport::connect(addr, 1, LIMIT, 8, one, None)
            .await
            .unwrap();
        let data = pattern(60_000, 5);
        let mut calls: Vec<_> = (0..4)
            .map(|_| tcp.call(1, ECHO, vec![], buffer(&data)))
            .collect();
        for pending in calls.drain(..) {
            // Dropping the reply gives the only buffer to the next one.
            assert!(pending.await.unwrap().bulk_bytes() == data);
        }
    });
}
