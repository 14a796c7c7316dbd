//! Truncated, reordered, doubled, oversized and random packets: the sender is told and dropped, everybody else is served.

mod peer;

use drpc_wire::{
    Call, ChunkHeader, Chunker, MAX_CHUNK_DATA, MAX_PACKET, Message, Response, Status,
};
use engine_drpc::Options;
use peer::{Bench, ECHO, Found};
use proptest::prelude::*;
use rustix::net::{RecvFlags, sockopt};

fn packets(message: &Chunker) -> Vec<u8> {
    message.packet().expect("a packet").to_vec()
}

fn chunk(total: u64, index: u32, chunks: u32, data: &[u8]) -> Vec<u8> {
    let header = ChunkHeader {
        total_data_size: total,
        chunk_data_size: data.len() as u64,
        chunk_idx: index,
        total_chunks: chunks,
    };
    [&header.encode()[..], data].concat()
}

/// The bad peer is refused, one that was there before and one that comes later are served.
#[track_caller]
fn assert_refused(packets: &[&[u8]]) {
    let mut bench = Bench::new();
    let mut bystander = bench.peer();
    let mut bad = bench.peer();
    for packet in packets {
        // The last ones may find the session closed.
        let _ = bad.send_raw(packet);
        bench.settle();
    }
    bad.assert_refused_and_closed();
    let mut later = bench.peer();
    for good in [&mut bystander, &mut later] {
        good.call(ECHO, 1, 1, b"fine");
        bench.settle();
        good.assert_answer(1, Status::Success, b"fine");
    }
    let stats = bench.server.stats();
    assert_eq!((stats.unreadable, stats.sessions, stats.bytes), (1, 2, 0));
}

#[test]
fn packet_shorter_than_a_header() {
    assert_refused(&[b"x"]);
    assert_refused(&[&chunk(9, 0, 2, b"abc"), &[0; 23]]);
}

#[test]
fn header_without_chunks() {
    assert_refused(&[&chunk(3, 0, 0, b"abc")]);
}

#[test]
fn truncated_packet() {
    let mut short = packets(&peer::call(ECHO, 1, 1, b"hello"));
    short.truncate(28);
    assert_refused(&[&short]);
}

#[test]
fn reordered_doubled_and_lost_chunks() {
    let (a, b, c) = (
        chunk(9, 0, 3, b"aaa"),
        chunk(9, 1, 3, b"bbb"),
        chunk(9, 2, 3, b"ccc"),
    );
    assert_refused(&[&b, &a, &c]);
    assert_refused(&[&a, &a, &b]);
    assert_refused(&[&a, &c]);
}

#[test]
fn announced_sizes_over_every_limit() {
    assert_refused(&[&chunk(u64::MAX, 0, 2, b"abc")]);
    assert_refused(&[&chunk(1 << 40, 0, u32::MAX, b"abc")]);
}

#[test]
fn a_message_that_never_gets_further() {
    assert_refused(&[&chunk(9, 0, u32::MAX, b""), &chunk(9, 1, u32::MAX, b"")]);
}

#[test]
fn packet_over_the_largest() {
    let mut bench = Bench::new();
    let mut bad = bench.peer();
    sockopt::set_socket_send_buffer_size(&bad.fd, 1 << 20).expect("sets");
    bad.send_raw(&vec![0; MAX_PACKET + 1])
        .expect("there is room");
    bench.settle();
    bad.assert_refused_and_closed();
}

#[test]
fn processing_garbage_bytes_is_sequence_minus_one_failed_unmarshal_call() {
    assert_refused(&[&chunk(9, 0, 1, &[0xff; 9])]);
}

#[test]
fn an_empty_packet_ends_the_session() {
    let mut bench = Bench::new();
    let mut peer = bench.peer();
    peer.send_raw(b"").expect("there is room");
    bench.settle();
    assert_eq!(peer.look(), Found::Closed);
    assert_eq!(bench.server.stats().sessions, 0);
}

#[test]
fn an_empty_message_is_a_call_of_module_0_method_0() {
    let mut bench = Bench::new();
    let mut peer = bench.peer();
    peer.send_raw(&chunk(0, 0, 1, b"")).expect("there is room");
    bench.settle();
    peer.assert_answer(0, Status::Success, b"");
}

#[test]
fn a_peer_of_the_older_framing_is_answered_in_kind() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    let call = |sequence, body: &[u8]| {
        let call = Call {
            module: ECHO,
            method: 1,
            sequence,
            body: body.to_vec(),
        };
        call.encode_to_vec()
    };
    let look = |peer: &peer::Peer| {
        let mut buffer = vec![0; MAX_PACKET];
        let len = drpc_wire::packet_socket::receive(&peer.fd, &mut buffer, RecvFlags::DONTWAIT);
        buffer.truncate(len.expect("an answer"));
        buffer
    };
    peer.send_raw(&call(1, b"old friend"))
        .expect("there is room");
    bench.settle();
    let bytes = look(&peer);
    let response = Response::decode(bytes.as_slice()).expect("the whole packet is the message");
    assert_eq!(
        (response.sequence, response.body.as_slice()),
        (1, &b"old friend"[..])
    );

    // SUCCESS to sequence 0 without a body would be an empty packet, which is the end of a connection.
    peer.send_raw(&[0x10, 1]).expect("there is room");
    bench.settle();
    let bytes = look(&peer);
    assert_eq!(bytes, [0x08, 0x00]);
    assert_eq!(Response::decode(bytes.as_slice()), Ok(Response::default()));

    // A reply over one packet cannot be sent in this framing.
    let huge = |_: Call, reply: engine_drpc::Reply| reply.success(vec![0; MAX_PACKET]);
    bench
        .registry
        .register(9, std::sync::Arc::new(huge))
        .expect("free");
    peer.send_raw(&[0x08, 9, 0x18, 2]).expect("there is room");
    bench.settle();
    let bytes = look(&peer);
    let response = Response::decode(bytes.as_slice()).expect("decodes");
    assert_eq!(response, Response::with_status(2, Status::FailedMarshal));

    // What is no call is refused in the same framing.
    peer.send_raw(b"\xff\xff\xff").expect("there is room");
    bench.settle();
    let bytes = look(&peer);
    let response = Response::decode(bytes.as_slice()).expect("decodes");
    assert_eq!(response, Response::unreadable_call());
}

#[test]
fn both_framings_side_by_side() {
    let mut bench = Bench::new();
    let old = bench.peer();
    let mut new = bench.peer();
    old.send_raw(&[0x10, 1, 0x18, 5]).expect("there is room");
    new.call(ECHO, 1, 6, b"new");
    bench.settle();
    new.assert_answer(6, Status::Success, b"new");
    let mut buffer = vec![0; MAX_PACKET];
    let len = drpc_wire::packet_socket::receive(&old.fd, &mut buffer, RecvFlags::DONTWAIT);
    assert_eq!(buffer[..len.expect("an answer")], [0x08, 5]);
}

#[derive(Debug, Clone)]
enum Act {
    Packet(usize, Vec<u8>),
    Call(usize, i32, Vec<u8>),
    Half(usize),
    Close(usize),
    Answer,
    Time(u64),
}

const PEERS: usize = 3;

fn act() -> impl Strategy<Value = Act> {
    let who = 0..PEERS;
    let bytes = proptest::collection::vec(any::<u8>(), 1..60);
    let header = (0u64..4, 0u64..4, 0u32..4, 0u32..4).prop_map(|(total, size, index, chunks)| {
        let header = ChunkHeader {
            total_data_size: total,
            chunk_data_size: size,
            chunk_idx: index,
            total_chunks: chunks,
        };
        [&header.encode()[..], &[1, 2, 3][..size as usize % 4]].concat()
    });
    prop_oneof![
        2 => (who.clone(), bytes.clone()).prop_map(|(who, bytes)| Act::Packet(who, bytes)),
        3 => (who.clone(), header).prop_map(|(who, bytes)| Act::Packet(who, bytes)),
        4 => (who.clone(), -1i32..7, bytes).prop_map(|(who, m, body)| Act::Call(who, m, body)),
        1 => who.clone().prop_map(Act::Half),
        1 => who.prop_map(Act::Close),
        2 => Just(Act::Answer),
        1 => (0u64..8_000).prop_map(Act::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_packets_of_any_peers_leave_the_server_within_its_bounds(
        acts in proptest::collection::vec(act(), 0..60),
    ) {
        let mut bench = Bench::with(Options {
            max_sessions: PEERS + 1,
            max_in_flight: 4,
            max_in_flight_per_session: 2,
            max_bytes: 400_000,
            ..Options::default()
        });
        let mut good = bench.peer();
        let mut peers: Vec<_> = (0..PEERS).map(|_| bench.peer()).collect();
        for act in acts {
            match act {
                // A session that was dropped, or a full socket, is fine here.
                Act::Packet(who, bytes) => drop(peers[who].send_raw(&bytes)),
                Act::Call(who, module, body) => {
                    peers[who].send_some(&mut peer::call(module, 1, 1, &body));
                }
                Act::Half(who) => {
                    let begun = peer::call(ECHO, 1, 1, &[0; MAX_CHUNK_DATA + 1]);
                    let _ = peers[who].send_raw(&packets(&begun));
                }
                Act::Close(who) => {
                    peers[who] = bench.waiting_peer();
                }
                Act::Answer if bench.kept.len() > 0 => bench.kept.take().1.success(vec![1]),
                Act::Answer => {}
                Act::Time(ms) => bench.advance_ms(ms),
            }
            bench.settle();
            let stats = bench.server.stats();
            prop_assert!(stats.sessions <= PEERS + 1);
            prop_assert!(stats.in_flight <= 4);
            prop_assert!(stats.bytes <= 400_000 + 2 * MAX_PACKET);
        }
        while bench.kept.len() > 0 {
            bench.kept.take().1.success(vec![]);
            bench.settle();
        }
        good.call(ECHO, 1, 1, b"good");
        bench.settle();
        good.assert_answer(1, Status::Success, b"good");
    }
}
