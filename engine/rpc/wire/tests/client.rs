//! The client against a scripted peer on a real socket.
#![allow(missing_docs, reason = "a test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use daos_errno::Der;
use rpc_wire::{
    Client, ClientError, ClientOptions, FLAG_OFFER, FLAG_RESPONSE, HEADER_LEN, Header, HelloReply,
    HelloRequest, Offer, Opcode, Outgoing, PROTOCOL, Pull,
};

const ECHO: Opcode = Opcode::new(4, 1, 1);

/// A peer that runs `script` on the one connection it accepts.
fn peer(script: impl FnOnce(TcpStream) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (
        addr,
        std::thread::spawn(move || script(listener.accept().unwrap().0)),
    )
}

fn read_frame(socket: &mut TcpStream) -> Option<(Header, Vec<u8>, Vec<u8>)> {
    let mut head = [0; HEADER_LEN];
    socket.read_exact(&mut head).ok()?;
    let header = Header::decode(&head).unwrap();
    let mut body = vec![0; header.body_len as usize];
    let mut bulk = vec![0; header.bulk_len as usize];
    socket.read_exact(&mut body).ok()?;
    socket.read_exact(&mut bulk).ok()?;
    Some((header, body, bulk))
}

fn frame(request: &Header, status: i32, body: &[u8], bulk: &[u8]) -> Vec<u8> {
    let header = Header {
        flags: FLAG_RESPONSE,
        status,
        ..*request
    };
    Outgoing::new(header, body, bulk)
        .slices()
        .flat_map(|s| s.to_vec())
        .collect()
}

fn greet(socket: &mut TcpStream, max_in_flight: u32) -> HelloRequest {
    let (header, body, _) = read_frame(socket).unwrap();
    assert_eq!(header.opcode(), Opcode::HELLO);
    let hello = HelloReply {
        protocol: PROTOCOL,
        targets: 4,
        max_in_flight,
        max_bulk: 1 << 22,
        max_pulls: 2,
    };
    socket
        .write_all(&frame(&header, 0, &hello.encode(), b""))
        .unwrap();
    HelloRequest::decode(&body).unwrap()
}

fn quick() -> ClientOptions {
    let short = Duration::from_millis(200);
    ClientOptions {
        tls: None,
        connect_timeout: Duration::from_secs(5),
        read_timeout: short,
        write_timeout: short,
    }
}

#[test]
fn call_carries_everything_both_ways() {
    let (addr, server) = peer(|mut socket| {
        assert_eq!(
            greet(&mut socket, 8),
            HelloRequest {
                protocol: PROTOCOL,
                tag: 3
            }
        );
        let (header, body, bulk) = read_frame(&mut socket).unwrap();
        assert_eq!((header.opcode(), header.tag), (ECHO, 3));
        socket.write_all(&frame(&header, 0, &body, &bulk)).unwrap();
        let (header, ..) = read_frame(&mut socket).unwrap();
        socket
            .write_all(&frame(&header, Der::NOSPACE.neg(), b"", b""))
            .unwrap();
    });
    let mut client = Client::connect(addr, 3).unwrap();
    assert_eq!((client.hello().targets, client.tag()), (4, 3));
    let bulk = vec![0xAB; 3 << 20];
    let reply = client.call(ECHO, b"body", Some(&bulk)).unwrap();
    assert_eq!((reply.status, reply.body.as_slice()), (0, &b"body"[..]));
    assert_eq!(reply.bulk.as_ref(), Some(&bulk));
    client.recycle(reply);
    let reply = client.call(ECHO, b"", None).unwrap();
    assert_eq!(reply.bulk, None);
    assert_eq!(reply.into_result(), Err(Der::NOSPACE));
    assert_eq!(client.outstanding(), 0);
    server.join().unwrap();
}

/// What an engine asks for of what request `id` offers.
fn pull(id: u64, pull: &Pull) -> Vec<u8> {
    let header = Header {
        opcode: Opcode::PULL.0,
        request_id: id,
        ..Header::default()
    };
    let body = pull.encode();
    let frame = Outgoing::new(header, &body[..], b"");
    frame.slices().flat_map(|slice| slice.to_vec()).collect()
}

#[test]
fn offered_data_leaves_when_it_is_asked_for_and_only_what_is_there() {
    let (addr, server) = peer(|mut socket| {
        greet(&mut socket, 8);
        let (header, mut body, bulk) = read_frame(&mut socket).unwrap();
        assert_eq!((header.flags, bulk.len()), (FLAG_OFFER, 0));
        assert_eq!(Offer::take(&mut body), Some(Offer { bytes: 3 << 20 }));
        assert_eq!(body, b"body");
        let mut ask = |id, number, offset, len| {
            let asked = Pull {
                number,
                offset,
                len,
            };
            socket.write_all(&pull(id, &asked)).unwrap();
            let (header, _, bulk) = read_frame(&mut socket).unwrap();
            let kind = (header.flags, header.opcode(), header.request_id);
            assert_eq!(kind, (FLAG_RESPONSE, Opcode::PULL, number));
            (header.status, bulk)
        };
        let id = header.request_id;
        assert_eq!(ask(id, 9, 1 << 20, 2 << 20), (0, vec![0xAB; 2 << 20]));
        let outside = (Der::OVERFLOW.neg(), Vec::new());
        assert_eq!(ask(id, 1 << 40, 1 << 20, (2 << 20) + 1), outside);
        let no_such = (Der::NONEXIST.neg(), Vec::new());
        assert_eq!(ask(id + 1, 10, 0, 1), no_such);
        socket.write_all(&frame(&header, 0, b"done", b"")).unwrap();
        // Too many at a time.
        let (header, ..) = read_frame(&mut socket).unwrap();
        let asked = Pull {
            number: 1,
            offset: 0,
            len: 4,
        };
        let many = pull(header.request_id, &asked).repeat(3);
        socket.write_all(&many).unwrap();
        while read_frame(&mut socket).is_some() {}
    });
    let mut client = Client::connect(addr, 0).unwrap();
    let data = vec![0xAB; 3 << 20];
    let reply = client.call_offering(ECHO, b"body", &data).unwrap();
    assert_eq!(reply.body, b"done");
    let greedy = client.call_offering(ECHO, b"", &data).unwrap_err();
    assert!(matches!(greedy, ClientError::Unexpected(_)), "{greedy}");
    drop(client);
    server.join().unwrap();
}

#[test]
fn an_engine_older_than_offers_gets_none() {
    let (addr, server) = peer(|mut socket| {
        let (header, ..) = read_frame(&mut socket).unwrap();
        let hello = HelloReply {
            protocol: PROTOCOL,
            targets: 1,
            max_in_flight: 8,
            max_bulk: 0,
            max_pulls: 9,
        };
        // As that one says it: without what came later.
        let said = &hello.encode()[..16];
        socket.write_all(&frame(&header, 0, said, b"")).unwrap();
        let (header, body, bulk) = read_frame(&mut socket).unwrap();
        assert_eq!(header.flags, 0);
        socket.write_all(&frame(&header, 0, &body, &bulk)).unwrap();
    });
    let mut client = Client::connect(addr, 0).unwrap();
    let error = client.call_offering(ECHO, b"", b"data").unwrap_err();
    assert!(matches!(error, ClientError::NoOffers), "{error}");
    // The connection is as good as before.
    let reply = client.call(ECHO, b"x", Some(b"data")).unwrap();
    assert_eq!(reply.bulk.as_deref(), Some(&b"data"[..]));
    server.join().unwrap();
}

#[test]
fn replies_out_of_order_find_their_requests() {
    let (addr, server) = peer(|mut socket| {
        greet(&mut socket, 100);
        let requests: Vec<_> = (0..100).map(|_| read_frame(&mut socket).unwrap()).collect();
        for (header, body, _) in requests.iter().rev() {
            socket.write_all(&frame(header, 0, body, b"")).unwrap();
        }
    });
    let mut client = Client::connect(addr, 0).unwrap();
    let ids: Vec<u64> = (0..100u32)
        .map(|i| client.send(ECHO, &i.to_le_bytes(), None).unwrap())
        .collect();
    for i in (0..100u32).rev() {
        let (id, reply) = client.recv().unwrap();
        assert_eq!(
            (id, reply.body),
            (ids[i as usize], i.to_le_bytes().to_vec())
        );
    }
    assert!(matches!(
        client.recv(),
        Err(ClientError::NothingOutstanding)
    ));
    server.join().unwrap();
}

#[test]
fn the_announced_window_is_kept() {
    let (addr, server) = peer(|mut socket| {
        greet(&mut socket, 2);
        let mut held = Vec::new();
        for i in 0..10 {
            held.push(read_frame(&mut socket).unwrap());
            if held.len() == 2 || i == 9 {
                // With two outstanding nothing more may be on its way.
                socket
                    .set_read_timeout(Some(Duration::from_millis(20)))
                    .unwrap();
                assert!(socket.peek(&mut [0]).is_err());
                socket.set_read_timeout(None).unwrap();
                let (header, body, _) = held.remove(0);
                socket.write_all(&frame(&header, 0, &body, b"")).unwrap();
            }
        }
        for (header, body, _) in held {
            socket.write_all(&frame(&header, 0, &body, b"")).unwrap();
        }
    });
    let mut client = Client::connect(addr, 0).unwrap();
    for i in 0..10u8 {
        client.send(ECHO, &[i], None).unwrap();
    }
    for i in 0..10u8 {
        assert_eq!(client.recv().unwrap().1.body, [i]);
    }
    server.join().unwrap();
}

#[test]
fn large_requests_and_large_replies_at_once_do_not_lock_up() {
    const N: usize = 24;
    let (addr, server) = peer(|mut socket| {
        greet(&mut socket, N as u32);
        // Answers each request before reading the next: blocks as soon as the client does not read.
        while let Some((header, body, bulk)) = read_frame(&mut socket) {
            socket.write_all(&frame(&header, 0, &body, &bulk)).unwrap();
        }
    });
    let mut client = Client::connect(addr, 0).unwrap();
    let bulk = vec![0x5A; 4 << 20];
    for _ in 0..N {
        client.send(ECHO, b"", Some(&bulk)).unwrap();
    }
    for _ in 0..N {
        assert_eq!(client.recv().unwrap().1.bulk.unwrap().len(), bulk.len());
    }
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_damaged_reply_spoils_only_itself() {
    let (addr, server) = peer(|mut socket| {
        greet(&mut socket, 8);
        let (first, ..) = read_frame(&mut socket).unwrap();
        let (second, ..) = read_frame(&mut socket).unwrap();
        let mut bytes = frame(&first, 0, b"body", b"bulk");
        *bytes.last_mut().unwrap() ^= 1;
        bytes.extend(frame(&second, 0, b"sound", b""));
        socket.write_all(&bytes).unwrap();
    });
    let mut client = Client::connect(addr, 0).unwrap();
    let first = client.send(ECHO, b"", None).unwrap();
    client.send(ECHO, b"", None).unwrap();
    assert!(matches!(client.recv(), Err(ClientError::Damaged { id, part: "bulk" }) if id == first));
    assert_eq!(client.recv().unwrap().1.body, b"sound");
    server.join().unwrap();
}

#[test]
fn protocol_mismatch_is_explained() {
    let (addr, server) = peer(|mut socket| {
        let (header, ..) = read_frame(&mut socket).unwrap();
        let hello = HelloReply {
            protocol: 77,
            targets: 1,
            max_in_flight: 1,
            max_bulk: 0,
            max_pulls: 0,
        };
        socket
            .write_all(&frame(&header, Der::PROTO.neg(), &hello.encode(), b""))
            .unwrap();
    });
    let error = Client::connect(addr, 0).unwrap_err();
    assert!(matches!(error, ClientError::Protocol { theirs: 77, .. }));
    assert!(
        error.to_string().contains("speaks RPC protocol 77"),
        "{error}"
    );
    server.join().unwrap();
}

#[test]
fn refusal_gives_the_reason_and_the_cure() {
    let (addr, server) = peer(|mut socket| {
        let (header, ..) = read_frame(&mut socket).unwrap();
        socket
            .write_all(&frame(&header, Der::BUSY.neg(), b"", b""))
            .unwrap();
    });
    let error = Client::connect(addr, 0).unwrap_err();
    assert!(error.to_string().contains("max_connections"), "{error}");
    server.join().unwrap();
}

#[test]
fn peers_that_are_not_engines_are_recognised() {
    let (addr, server) = peer(|mut socket| {
        socket
            .write_all(&[b"SSH-2.0-OpenSSH_9.6\r\n".as_slice(), &[b' '; 64]].concat())
            .unwrap();
        let _ = socket.read(&mut [0; 256]);
    });
    let error = Client::connect(addr, 0).unwrap_err();
    assert!(error.to_string().contains("not an RPC frame"), "{error}");
    server.join().unwrap();
}

#[test]
fn silence_times_out_and_closing_is_told() {
    let (addr, server) = peer(|mut socket| {
        greet(&mut socket, 8);
        read_frame(&mut socket).unwrap();
        // Waits for the client to give up.
        let _ = socket.read(&mut [0]);
    });
    let mut client = Client::connect_with(addr, 0, quick()).unwrap();
    assert!(matches!(
        client.call(ECHO, b"", None),
        Err(ClientError::TimedOut { outstanding: 1, .. })
    ));
    assert!(matches!(
        client.call(ECHO, b"", None),
        Err(ClientError::Closed { .. })
    ));
    drop(client);
    server.join().unwrap();

    let (addr, server) = peer(|mut socket| {
        greet(&mut socket, 8);
        read_frame(&mut socket).unwrap();
    });
    let mut client = Client::connect(addr, 0).unwrap();
    assert!(matches!(
        client.call(ECHO, b"", None),
        Err(ClientError::Closed { outstanding: 1 })
    ));
    server.join().unwrap();
}

#[test]
fn answers_to_nothing_are_refused() {
    let (addr, server) = peer(|mut socket| {
        greet(&mut socket, 8);
        let (header, ..) = read_frame(&mut socket).unwrap();
        socket
            .write_all(&frame(
                &Header {
                    request_id: 999,
                    ..header
                },
                0,
                b"",
                b"",
            ))
            .unwrap();
        let _ = socket.read(&mut [0]);
    });
    let mut client = Client::connect(addr, 0).unwrap();
    assert!(matches!(
        client.call(ECHO, b"", None),
        Err(ClientError::Unexpected(999))
    ));
    drop(client);
    server.join().unwrap();
}

#[test]
fn oversize_is_refused_before_anything_is_sent() {
    let (addr, server) = peer(|mut socket| {
        greet(&mut socket, 8);
        let (header, body, _) = read_frame(&mut socket).unwrap();
        socket.write_all(&frame(&header, 0, &body, b"")).unwrap();
    });
    let mut client = Client::connect(addr, 0).unwrap();
    let too_long = vec![0; (4 << 20) + 1];
    assert!(matches!(
        client.call(ECHO, &too_long, None),
        Err(ClientError::TooLong { part: "body", .. })
    ));
    assert!(matches!(
        client.call(ECHO, b"", Some(&too_long)),
        Err(ClientError::TooLong { part: "bulk", .. })
    ));
    assert_eq!(
        client.call(ECHO, b"still works", None).unwrap().body,
        b"still works"
    );
    server.join().unwrap();
}

#[test]
fn nobody_there_is_a_clear_error() {
    let addr = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = Client::connect(addr, 0).unwrap_err();
    assert!(
        error.to_string().contains("is the engine running"),
        "{error}"
    );
}
