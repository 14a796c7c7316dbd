//! Every bound of [`Options`], from both sides.

mod peer;

use std::sync::Arc;

use drpc_wire::{Call, MAX_CHUNK_DATA, Status};
use engine_drpc::{Options, Reply};
use peer::{Bench, ECHO, Found, KEEP, Peer};

/// Steps and reads until the peer has a response.
#[track_caller]
fn wait_response(bench: &mut Bench, peer: &mut Peer) -> drpc_wire::Response {
    for _ in 0..10_000 {
        match peer.look() {
            Found::Response(response) => return response,
            Found::Nothing => bench.settle(),
            Found::Closed => panic!("closed"),
        }
    }
    panic!("no response");
}

#[test]
fn at_max_sessions_connections_wait_and_are_accepted_when_one_goes() {
    let mut bench = Bench::with(Options {
        max_sessions: 2,
        ..Options::default()
    });
    let first = bench.peer();
    let _second = bench.peer();
    let mut third = bench.waiting_peer();
    third.call(ECHO, 1, 1, b"patience");
    bench.settle();
    assert_eq!(bench.server.stats().sessions, 2);
    assert_eq!(third.look(), Found::Nothing);
    drop(first);
    bench.settle();
    third.assert_answer(1, Status::Success, b"patience");
}

#[test]
fn at_max_sessions_the_longest_idle_session_goes_after_its_time_and_busy_ones_stay() {
    let mut bench = Bench::with(Options {
        max_sessions: 2,
        idle_timeout_ms: 1_000,
        ..Options::default()
    });
    let mut busy = bench.peer();
    busy.call(KEEP, 1, 1, b"");
    bench.settle();
    let mut idle = bench.peer();
    let mut waits = bench.waiting_peer();
    waits.call(ECHO, 1, 1, b"in");
    bench.advance_ms(999);
    bench.settle();
    assert_eq!(idle.look(), Found::Nothing);
    bench.advance_ms(1);
    bench.settle();
    assert_eq!(idle.look(), Found::Closed);
    waits.assert_answer(1, Status::Success, b"in");
    assert_eq!(bench.server.stats().evicted, 1);
    bench.kept.take().1.success(vec![]);
    bench.settle();
    busy.assert_answer(1, Status::Success, b"");
}

#[test]
fn below_max_sessions_idle_sessions_stay_for_ever() {
    let mut bench = Bench::new();
    let mut idle = bench.peer();
    bench.advance_ms(1_000_000_000);
    bench.settle();
    assert_eq!(idle.look(), Found::Nothing);
    assert_eq!(bench.server.stats().sessions, 1);
}

#[test]
fn at_max_calls_of_a_session_it_is_not_read_and_others_are() {
    let mut bench = Bench::with(Options {
        max_in_flight_per_session: 2,
        ..Options::default()
    });
    let mut greedy = bench.peer();
    let mut modest = bench.peer();
    for sequence in 1..=4 {
        greedy.call(KEEP, 1, sequence, b"");
    }
    bench.settle();
    assert_eq!(bench.kept.len(), 2);
    modest.call(ECHO, 1, 1, b"served");
    bench.settle();
    modest.assert_answer(1, Status::Success, b"served");
    bench.kept.take().1.success(vec![]);
    bench.settle();
    assert_eq!(bench.kept.len(), 2, "one answered, one more read");
    greedy.assert_answer(1, Status::Success, b"");
    for sequence in 2..=4 {
        bench.kept.take().1.success(vec![]);
        bench.settle();
        greedy.assert_answer(sequence, Status::Success, b"");
    }
}

#[test]
fn at_max_calls_of_the_server_nobody_is_read_until_one_ends() {
    let mut bench = Bench::with(Options {
        max_in_flight: 2,
        ..Options::default()
    });
    let mut peers = [bench.peer(), bench.peer(), bench.peer()];
    for peer in &peers {
        peer.call(KEEP, 1, 1, b"");
    }
    bench.settle();
    assert_eq!(bench.kept.len(), 2);
    assert_eq!(bench.server.stats().in_flight, 2);
    for left in [2, 1, 0] {
        bench.kept.take().1.success(vec![]);
        bench.settle();
        assert_eq!(bench.kept.len(), left);
    }
    for peer in &mut peers {
        peer.assert_answer(1, Status::Success, b"");
    }
}

#[test]
fn a_call_whose_session_is_gone_counts_until_it_ends() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    peer.call(KEEP, 1, 1, b"0123456789");
    bench.settle();
    drop(peer);
    bench.settle();
    let stats = bench.server.stats();
    assert_eq!((stats.sessions, stats.in_flight, stats.bytes), (0, 1, 10));
    bench.kept.take().1.success(vec![]);
    bench.settle();
    let stats = bench.server.stats();
    assert_eq!((stats.in_flight, stats.bytes, stats.replies), (0, 0, 0));
}

#[test]
fn over_max_bytes_only_the_oldest_begun_message_is_read_and_all_end() {
    let mut bench = Bench::with(Options {
        max_bytes: 200_000,
        ..Options::default()
    });
    let body = vec![9; 3 * MAX_CHUNK_DATA];
    let mut peers = [bench.peer(), bench.peer(), bench.peer()];
    let mut calls: Vec<_> = (0..3).map(|_| peer::call(ECHO, 1, 1, &body)).collect();
    for (peer, call) in peers.iter().zip(&mut calls) {
        peer.send_raw(&call.packet().expect("several").to_vec())
            .expect("there is room");
        call.advance();
        bench.settle();
    }
    // Room was made for more of the first message: the bound is reached, the other two are not read.
    let held = bench.server.stats().bytes;
    assert!((200_000..=2 * MAX_CHUNK_DATA).contains(&held), "{held}");
    let mut bodies: [Option<Vec<u8>>; 3] = Default::default();
    while bodies.iter().any(Option::is_none) {
        for (peer, (call, body)) in peers.iter_mut().zip(calls.iter_mut().zip(&mut bodies)) {
            peer.send_some(call);
            bench.settle();
            if let Found::Response(response) = peer.look() {
                *body = Some(response.body);
            }
            assert!(bench.server.stats().bytes <= 200_000 + 2 * body_limit());
        }
    }
    assert!(bodies.iter().flatten().all(|b| *b == body));
    bench.settle();
    assert_eq!(bench.server.stats().bytes, 0);
}

/// One message of the test above.
fn body_limit() -> usize {
    3 * MAX_CHUNK_DATA + 64
}

#[test]
fn a_message_over_max_message_is_told_and_closed_at_its_first_packet() {
    let mut bench = Bench::with(Options {
        max_message: 1_000,
        ..Options::default()
    });
    let mut peer = bench.peer();
    peer.call(ECHO, 1, 1, &[7; 900]);
    bench.settle();
    peer.assert_answer(1, Status::Success, &[7; 900]);
    peer.call(ECHO, 1, 2, &[7; 1_000]);
    bench.settle();
    peer.assert_refused_and_closed();
}

#[test]
fn a_half_sent_message_is_closed_after_its_time_and_not_before() {
    let mut bench = Bench::new();
    let mut peer = bench.peer();
    let half = peer::call(ECHO, 1, 1, &[0; 200_000]);
    peer.send_raw(&half.packet().expect("two").to_vec())
        .expect("there is room");
    bench.settle();
    bench.advance_ms(9_999);
    bench.settle();
    assert_eq!(peer.look(), Found::Nothing);
    bench.advance_ms(1);
    bench.settle();
    assert_eq!(peer.look(), Found::Closed);
    let stats = bench.server.stats();
    assert_eq!((stats.stalled, stats.sessions, stats.bytes), (1, 0, 0));
}

#[test]
fn trickling_packets_does_not_extend_the_time_of_a_message() {
    let mut bench = Bench::new();
    let mut peer = bench.peer();
    let header = |index| {
        let header = drpc_wire::ChunkHeader {
            total_data_size: 1_000,
            chunk_data_size: 1,
            chunk_idx: index,
            total_chunks: 1_000,
        };
        [&header.encode()[..], &[8]].concat()
    };
    for index in 0..10 {
        peer.send_raw(&header(index)).expect("there is room");
        bench.settle();
        bench.advance_ms(1_000);
    }
    bench.settle();
    assert_eq!(peer.look(), Found::Closed);
}

#[test]
fn time_in_which_the_server_does_not_read_does_not_count() {
    let mut bench = Bench::with(Options {
        max_in_flight: 1,
        ..Options::default()
    });
    let mut slow = bench.peer();
    let mut half = peer::call(ECHO, 1, 1, &[4; 200_000]);
    slow.send_raw(&half.packet().expect("two").to_vec())
        .expect("there is room");
    half.advance();
    bench.settle();
    let other = bench.peer();
    other.call(KEEP, 1, 1, b"");
    bench.settle();
    slow.send_some(&mut half);
    bench.advance_ms(60_000);
    bench.settle();
    assert_eq!(slow.look(), Found::Nothing, "not read, not closed");
    bench.kept.take().1.success(vec![]);
    bench.settle();
    assert_eq!(wait_response(&mut bench, &mut slow).body, [4; 200_000]);
}

#[test]
fn a_peer_that_does_not_read_its_replies_keeps_them_and_then_goes() {
    let mut bench = Bench::new();
    let big = |_: Call, reply: Reply| reply.success(vec![6; 1_000_000]);
    bench.registry.register(9, Arc::new(big)).expect("free");
    let mut reads_later = bench.peer();
    let mut never_reads = bench.peer();
    for peer in [&reads_later, &never_reads] {
        peer.call(9, 1, 1, b"");
    }
    bench.settle();
    assert!(bench.server.stats().bytes > 1_000_000, "unwritten");
    bench.advance_ms(5_000);
    bench.settle();
    assert_eq!(
        wait_response(&mut bench, &mut reads_later).body.len(),
        1_000_000
    );
    bench.advance_ms(5_000);
    bench.settle();
    let stats = bench.server.stats();
    assert_eq!((stats.sessions, stats.stalled, stats.bytes), (1, 1, 0));
    let mut found = never_reads.look();
    while found == Found::Nothing {
        found = never_reads.look();
    }
    assert_eq!(
        found,
        Found::Closed,
        "what had been written is no whole reply"
    );
}

#[test]
fn replies_come_in_the_order_of_completion() {
    let mut bench = Bench::new();
    let mut peer = bench.peer();
    for sequence in 1..=3 {
        peer.call(KEEP, 1, sequence, &[sequence as u8]);
    }
    bench.settle();
    let mut kept: Vec<_> = (0..3).map(|_| bench.kept.take()).collect();
    while let Some((call, reply)) = kept.pop() {
        reply.success(call.body);
        bench.settle();
    }
    for sequence in [3, 2, 1] {
        peer.assert_answer(sequence, Status::Success, &[sequence as u8]);
    }
}

#[test]
fn a_slow_call_does_not_hold_up_the_next_one_of_its_own_session() {
    let mut bench = Bench::new();
    let mut peer = bench.peer();
    peer.call(KEEP, 1, 1, b"");
    peer.call(ECHO, 1, 2, b"quick");
    bench.settle();
    peer.assert_answer(2, Status::Success, b"quick");
    bench.kept.take().1.success(b"slow".to_vec());
    bench.settle();
    peer.assert_answer(1, Status::Success, b"slow");
}
