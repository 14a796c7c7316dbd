//! Offered data: handlers take it in parts when they have room, whatever else the connection brings.
#![allow(missing_docs, reason = "a test")]

mod harness;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use daos_errno::Der;
use engine_rpc::{BulkClass, BulkPools, Loopback, Opcode, TcpTransport, Transport};
use harness::taking::{PART, PART_OF, TAKE};
use harness::{ECHO, Engine, HOLD, frame, hello, pattern, read_frame};
use rpc_wire::{FLAG_OFFER, FLAG_RESPONSE, Header, Offer, Outgoing, Pull};
use spdk_env::DmaBuf;

const LIMIT: Duration = Duration::from_secs(20);

fn buffers(count: usize) -> Vec<BulkClass> {
    let buffer_len = PART;
    vec![BulkClass { buffer_len, count }]
}

fn dma(data: &[u8]) -> Arc<DmaBuf> {
    let mut buffer = DmaBuf::alloc(data.len()).unwrap();
    buffer.as_mut_slice().copy_from_slice(data);
    Arc::new(buffer)
}

fn crc(data: &[u8]) -> Vec<u8> {
    crc32c::crc32c(data).to_le_bytes().to_vec()
}

fn range(offset: u64, len: u64) -> Vec<u8> {
    [offset.to_le_bytes(), len.to_le_bytes()].concat()
}

#[test]
fn any_amount_is_taken_from_a_client() {
    let engine = Engine::start(1);
    let mut client = engine.client(1);
    for len in [1, PART - 1, PART, 10 * PART + 17, 40 << 20] {
        let data = pattern(len, 5);
        let reply = client.call_offering(TAKE, b"", &data).unwrap();
        assert_eq!((reply.status, reply.body), (0, crc(&data)), "{len} bytes");
    }
    // Nothing is left of it: requests without an offer have none.
    let reply = client.call(TAKE, b"", None).unwrap();
    assert_eq!((reply.status, reply.body), (0, crc(b"")));
}

#[test]
fn a_part_is_what_was_asked_for_and_nothing_outside() {
    let engine = Engine::start(1);
    let mut client = engine.client(1);
    let data = pattern(3 * PART, 7);
    let mut ask = |offset, len| {
        let reply = client.call_offering(PART_OF, &range(offset, len), &data);
        let reply = reply.unwrap();
        (reply.status, reply.body)
    };
    assert_eq!(ask(5, 1000), (0, crc(&data[5..1005])));
    let all = data.len() as u64;
    assert_eq!(ask(0, all), (0, crc(&data)));
    let refused = |der: Der| (der.neg(), Vec::new());
    assert_eq!(ask(1, all), refused(Der::INVAL));
    assert_eq!(ask(u64::MAX, 2), refused(Der::INVAL));
    assert_eq!(ask(0, 0), refused(Der::INVAL));
    let reply = client.call(PART_OF, &range(0, 1), None).unwrap();
    assert_eq!(reply.status, Der::INVAL.neg(), "nothing is offered");
    // Longer than any buffer.
    let small = Engine::start_with(1, |options| options.bulk = buffers(4));
    let mut client = small.client(1);
    let reply = client.call_offering(PART_OF, &range(0, all), &data);
    assert_eq!(reply.unwrap().status, Der::OVERFLOW.neg());
}

#[test]
fn engines_take_from_each_other_on_every_xstream() {
    let (here, there) = (Engine::start(1), Engine::start(2));
    let addr = there.addr();
    here.run(1, move || async move {
        let memory = BulkPools::new(&buffers(4)).unwrap();
        let tcp = TcpTransport::connect(addr, 1, LIMIT, 64, memory, None)
            .await
            .unwrap();
        let data = pattern(2 << 20, 3);
        let offered = dma(&data);
        // The connection's xstream, another target's, the system's; all three at once.
        let calls: Vec<_> = [1, 2, 0]
            .map(|tag| tcp.call_offering(tag, TAKE, Vec::new(), Arc::clone(&offered)))
            .into_iter()
            .collect();
        for call in calls {
            let reply = call.await.unwrap();
            assert_eq!((reply.status, reply.body), (0, crc(&data)));
        }
        assert_eq!(
            Arc::strong_count(&offered),
            1,
            "nothing is offered any more"
        );
    });
}

#[test]
fn a_caller_in_the_same_engine_offers_its_memory() {
    let engine = Engine::start_with(2, |options| options.bulk = buffers(4));
    engine.run(1, || async {
        let data = pattern(1 << 20, 3);
        let offered = dma(&data);
        let loopback = Loopback::current().unwrap();
        for tag in [1, 2] {
            let call = loopback.call_offering(tag, TAKE, Vec::new(), Arc::clone(&offered));
            let reply = call.await.unwrap();
            assert_eq!((reply.status, reply.body), (0, crc(&data)));
        }
        assert_eq!(Arc::strong_count(&offered), 1);
    });
}

#[test]
fn many_takers_share_little_memory() {
    let engine = Engine::start_with(1, |options| {
        options.bulk = buffers(2);
        options.max_pulls_per_connection = 1;
    });
    std::thread::scope(|scope| {
        for seed in 0..6 {
            let mut client = engine.client(1);
            scope.spawn(move || {
                let data = pattern(20 * PART, seed);
                let reply = client.call_offering(TAKE, b"", &data).unwrap();
                assert_eq!((reply.status, reply.body), (0, crc(&data)));
            });
        }
    });
}

/// A request that offers, as a peer sends it.
fn offering(opcode: Opcode, id: u64, body: &[u8], bytes: u64) -> Vec<u8> {
    let mut body = body.to_vec();
    Offer { bytes }.put(&mut body);
    let header = Header {
        flags: FLAG_OFFER,
        opcode: opcode.0,
        tag: 1,
        request_id: id,
        ..Header::default()
    };
    bytes_of(header, &body, b"")
}

fn bytes_of(header: Header, body: &[u8], bulk: &[u8]) -> Vec<u8> {
    let frame = Outgoing::new(header, body, bulk);
    frame.slices().flat_map(|slice| slice.to_vec()).collect()
}

/// Sends a request that offers, and waits until the engine asks for what it wants of it.
fn asked(socket: &mut TcpStream, id: u64, bytes: u64) -> Pull {
    socket
        .write_all(&offering(PART_OF, id, &range(0, bytes), bytes))
        .unwrap();
    let (header, body, _) = read_frame(socket).unwrap();
    assert_eq!((header.opcode(), header.request_id), (Opcode::PULL, id));
    Pull::decode(&body).unwrap()
}

fn data_for(pull: &Pull, data: &[u8]) -> Vec<u8> {
    let header = Header {
        flags: FLAG_RESPONSE,
        opcode: Opcode::PULL.0,
        request_id: pull.number,
        ..Header::default()
    };
    bytes_of(header, b"", data)
}

fn status_of(socket: &mut TcpStream) -> (u64, i32, Vec<u8>) {
    let (header, body, _) = read_frame(socket).unwrap();
    assert!(header.is_response());
    (header.request_id, header.status, body)
}

#[test]
fn requests_that_come_before_the_data_are_refused_rather_than_held() {
    // One in flight, and one buffer, which waits for the data.
    let engine = Engine::start_with(1, |options| {
        options.bulk = buffers(1);
        options.max_in_flight_per_connection = 2;
    });
    let mut socket = hello(&engine, 1);
    let data = pattern(1000, 1);
    let pull = asked(&mut socket, 1, 1000);
    // No buffer for its data: it would wait for the one that waits for what is behind it.
    let bulky = frame(ECHO, 1, 2, b"body", &pattern(500, 2));
    socket.write_all(&bulky).unwrap();
    let again = Der::OVERLOAD_RETRY.neg();
    assert_eq!(status_of(&mut socket), (2, again, Vec::new()));
    socket.write_all(&frame(HOLD, 1, 3, b"", b"")).unwrap();
    engine.wait_for("one to be held", |engine| engine.held() == 1);
    // Two are in flight.
    socket.write_all(&frame(ECHO, 1, 4, b"more", b"")).unwrap();
    assert_eq!(status_of(&mut socket), (4, again, Vec::new()));
    socket.write_all(&data_for(&pull, &data)).unwrap();
    assert_eq!(status_of(&mut socket), (1, 0, crc(&data)));
    // From here on it is as without offers.
    socket.write_all(&bulky).unwrap();
    assert_eq!(status_of(&mut socket), (2, 0, b"body".to_vec()));
    engine.release_held(1);
    assert_eq!(status_of(&mut socket).0, 3);
}

#[test]
fn a_request_that_is_taken_back_stops_taking() {
    let engine = Engine::start_with(1, |options| options.bulk = buffers(1));
    let mut socket = hello(&engine, 1);
    let pull = asked(&mut socket, 1, 1000);
    socket
        .write_all(&frame(Opcode::CANCEL, 1, 1, b"", b""))
        .unwrap();
    // Its data is thrown away, its buffer comes back, its answer does not come.
    socket
        .write_all(&data_for(&pull, &pattern(1000, 1)))
        .unwrap();
    let data = pattern(2000, 2);
    let pull = asked(&mut socket, 2, 2000);
    socket.write_all(&data_for(&pull, &data)).unwrap();
    assert_eq!(status_of(&mut socket), (2, 0, crc(&data)));
}

#[test]
fn damaged_data_fails_its_request_only() {
    let engine = Engine::start(1);
    let mut socket = hello(&engine, 1);
    let pull = asked(&mut socket, 1, 1000);
    let mut bytes = data_for(&pull, &pattern(1000, 1));
    bytes[100] ^= 1;
    socket.write_all(&bytes).unwrap();
    assert_eq!(status_of(&mut socket), (1, Der::CSUM.neg(), Vec::new()));
    // A requester may say why not.
    let pull = asked(&mut socket, 2, 1000);
    let refusal = Header {
        flags: FLAG_RESPONSE,
        opcode: Opcode::PULL.0,
        request_id: pull.number,
        status: Der::NOMEM.neg(),
        ..Header::default()
    };
    socket.write_all(&bytes_of(refusal, b"", b"")).unwrap();
    assert_eq!(status_of(&mut socket), (2, Der::NOMEM.neg(), Vec::new()));
    socket.write_all(&frame(ECHO, 1, 3, b"well", b"")).unwrap();
    assert_eq!(status_of(&mut socket), (3, 0, b"well".to_vec()));
}

fn is_closed(mut socket: TcpStream) -> bool {
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).is_ok() && rest.is_empty()
}

#[test]
fn data_that_nobody_asked_for_ends_the_connection() {
    let engine = Engine::start_with(1, |options| options.bulk = buffers(1));
    let nothing = Pull {
        number: 77,
        offset: 0,
        len: 10,
    };
    let mut socket = hello(&engine, 1);
    socket
        .write_all(&data_for(&nothing, b"0123456789"))
        .unwrap();
    assert!(is_closed(socket));
    // Of another length, and a second time.
    let mut socket = hello(&engine, 1);
    let pull = asked(&mut socket, 1, 1000);
    socket
        .write_all(&data_for(&pull, &pattern(999, 1)))
        .unwrap();
    assert!(is_closed(socket));
    let mut socket = hello(&engine, 1);
    let pull = asked(&mut socket, 1, 1000);
    let bytes = data_for(&pull, &pattern(1000, 1));
    socket.write_all(&bytes).unwrap();
    assert_eq!(status_of(&mut socket).1, 0);
    socket.write_all(&bytes).unwrap();
    assert!(is_closed(socket));
    // The one buffer is there again.
    let reply = engine.client(1).call_offering(TAKE, b"", &pattern(PART, 1));
    assert_eq!(reply.unwrap().status, 0);
}

#[test]
fn a_peer_that_does_not_send_what_it_offered_is_cut() {
    let engine = Engine::start_with(1, |options| {
        options.bulk = buffers(1);
        options.frame_timeout = Duration::from_millis(50);
    });
    let mut silent = hello(&engine, 1);
    asked(&mut silent, 1, 1000);
    assert!(is_closed(silent));
    // One that goes away takes nothing with it, either.
    let mut gone = hello(&engine, 1);
    asked(&mut gone, 1, 1000);
    drop(gone);
    let data = pattern(5 * PART, 1);
    let reply = engine.client(1).call_offering(TAKE, b"", &data).unwrap();
    assert_eq!((reply.status, reply.body), (0, crc(&data)));
}

#[test]
fn a_drain_waits_for_data_that_is_on_its_way_and_takes_in_nothing_new() {
    let mut engine = Engine::start(1);
    let mut socket = hello(&engine, 1);
    let pull = asked(&mut socket, 1, 1000);
    let server = engine.take_server();
    let draining = std::thread::spawn(move || {
        let cut = server.drain(LIMIT);
        server.close();
        cut
    });
    for id in 2.. {
        // Until the drain has begun on its xstream, it is answered.
        socket.write_all(&frame(ECHO, 1, id, b"", b"")).unwrap();
        let (answered, status, _) = status_of(&mut socket);
        assert_eq!(answered, id);
        if status == Der::SHUTDOWN.neg() {
            break;
        }
        assert_eq!(status, 0);
    }
    let data = pattern(1000, 1);
    socket.write_all(&data_for(&pull, &data)).unwrap();
    assert_eq!(status_of(&mut socket), (1, 0, crc(&data)));
    assert!(is_closed(socket));
    assert_eq!(draining.join().unwrap(), [], "nothing was cut");
}

#[test]
fn an_offer_that_is_none_is_refused() {
    let engine = Engine::start(1);
    let mut socket = hello(&engine, 1);
    let header = Header {
        flags: FLAG_OFFER,
        opcode: TAKE.0,
        tag: 1,
        request_id: 1,
        ..Header::default()
    };
    socket.write_all(&bytes_of(header, b"short", b"")).unwrap();
    assert_eq!(status_of(&mut socket), (1, Der::PROTO.neg(), Vec::new()));
}
