//! The progress step: scenarios of DAOS `src/engine/tests/drpc_progress_tests.c`, over real sockets.
//!
//! A NULL context, listener, session or handle does not exist in Rust; what is left of those scenarios is the closed server.
//! Errors that only a broken kernel gives (poll or recv out of memory) are tested where they are mapped, in
//! `session.rs` and in `daos_errno`.

mod peer;

use daos_errno::Der;
use drpc_wire::Status;
use engine_drpc::{Job, Options, Spawner};
use peer::{Bench, ECHO, Found, KEEP};

#[test]
fn closed_server_is_inval() {
    let mut bench = Bench::new();
    bench.server.close();
    assert_eq!(bench.step(), Err(Der::INVAL));
    assert_eq!(bench.server.path(), None);
}

#[test]
fn timeout_zero_does_not_wait_and_nothing_ready_is_timedout() {
    let mut bench = Bench::new();
    assert_eq!(bench.server.progress(0), Err(Der::TIMEDOUT));
    let _peer = bench.peer();
    assert_eq!(bench.server.progress(0), Err(Der::TIMEDOUT));
    assert_eq!(bench.server.progress(1), Err(Der::TIMEDOUT));
    assert_eq!(bench.server.stats().sessions, 1);
}

#[test]
fn timeout_negative_waits_until_something_is_ready() {
    let mut bench = Bench::new();
    let _peer = bench.waiting_peer();
    assert_eq!(bench.server.progress(-1), Ok(()));
    assert_eq!(bench.server.stats().sessions, 1);
}

#[test]
fn a_reply_from_another_thread_ends_the_wait() {
    let mut bench = Bench::new();
    let mut peer = bench.peer();
    peer.call(KEEP, 1, 4, b"");
    bench.settle();
    let (_, reply) = bench.kept.take();
    let other = std::thread::spawn(move || reply.success(b"from afar".to_vec()));
    while bench.server.stats().in_flight > 0 {
        assert_eq!(bench.server.progress(-1).and(Ok(())), Ok(()));
    }
    other.join().expect("does not panic");
    peer.assert_answer(4, Status::Success, b"from afar");
}

#[test]
fn accept_without_sessions_makes_one_session() {
    let mut bench = Bench::new();
    let _peer = bench.waiting_peer();
    let _second = bench.waiting_peer();
    assert_eq!(bench.step(), Ok(()));
    assert_eq!(bench.server.stats().accepted, 1, "one accept per step");
    assert_eq!(bench.server.stats().sessions, 1);
}

#[test]
fn session_with_undecodable_payload_is_told_and_closed_and_the_step_is_ok() {
    let mut bench = Bench::new();
    let mut peer = bench.peer();
    let garbage = drpc_wire::Chunker::new(vec![0xff; 9], drpc_wire::Framing::Chunked);
    peer.send_some(&mut garbage.expect("fits"));
    assert_eq!(bench.step(), Ok(()));
    peer.assert_refused_and_closed();
    assert_eq!(bench.server.stats().sessions, 0);
    assert_eq!(bench.server.stats().unreadable, 1);
}

#[test]
fn session_with_a_valid_call_starts_it_and_stays() {
    let mut bench = Bench::new();
    let mut peer = bench.peer();
    peer.call(KEEP, 3, 1, b"body");
    assert_eq!(bench.step(), Ok(()));
    assert_eq!(bench.kept.len(), 1);
    assert_eq!(bench.server.stats().sessions, 1);
    assert_eq!(bench.server.stats().in_flight, 1);
    assert_eq!(peer.look(), Found::Nothing);
}

#[test]
fn two_sessions_that_fail_to_receive_are_closed_and_the_listener_still_accepts() {
    let mut bench = Bench::new();
    // A peer that closes with replies unread makes our next receive fail (ECONNRESET), hang-up comes with it.
    for _ in 0..2 {
        let peer = bench.peer();
        peer.call(ECHO, 1, 1, b"unread");
        bench.settle();
        drop(peer);
    }
    let _waiting = bench.waiting_peer();
    assert_eq!(bench.step(), Ok(()));
    assert_eq!(
        bench.server.stats().sessions,
        1,
        "both closed, one accepted"
    );
}

#[test]
fn three_sessions_one_hung_up_closes_exactly_that_one_and_serves_the_others() {
    let mut bench = Bench::new();
    let mut first = bench.peer();
    let middle = bench.peer();
    let mut last = bench.peer();
    let waiting = bench.waiting_peer();
    first.call(ECHO, 1, 1, b"a");
    last.call(ECHO, 1, 1, b"b");
    drop(middle);
    assert_eq!(bench.step(), Ok(()));
    first.assert_answer(1, Status::Success, b"a");
    last.assert_answer(1, Status::Success, b"b");
    assert_eq!(bench.server.stats().sessions, 3);
    drop(waiting);
}

#[test]
fn hang_up_wins_over_readable() {
    let mut bench = Bench::new();
    let peer = bench.peer();
    peer.call(KEEP, 1, 1, b"");
    drop(peer);
    assert_eq!(bench.step(), Ok(()));
    assert_eq!(bench.server.stats().sessions, 0);
    assert_eq!(bench.kept.len(), 0, "not read");
}

struct Refuses;

impl Spawner for Refuses {
    fn spawn(&mut self, _: Job) -> Result<(), Der> {
        Err(Der::MISC)
    }
}

#[test]
fn ult_creation_failure_closes_both_sessions_and_the_step_is_ok() {
    let mut bench = Bench::new();
    bench.server.set_spawner(Box::new(Refuses));
    let mut peers = [bench.peer(), bench.peer()];
    let _waiting = bench.waiting_peer();
    for peer in &peers {
        peer.call(ECHO, 1, 1, b"");
    }
    assert_eq!(bench.step(), Ok(()));
    for peer in &mut peers {
        assert_eq!(peer.look(), Found::Closed);
    }
    let stats = bench.server.stats();
    assert_eq!((stats.sessions, stats.in_flight, stats.bytes), (1, 0, 0));
}

#[test]
fn listener_hung_up_is_misc_sessions_are_served_and_nothing_is_closed() {
    let mut bench = Bench::new();
    let mut peer = bench.peer();
    rustix::net::shutdown(&bench.listener, rustix::net::Shutdown::Both).expect("shuts down");
    peer.call(ECHO, 1, 1, b"served");
    assert_eq!(bench.step(), Err(Der::MISC));
    peer.assert_answer(1, Status::Success, b"served");
    assert_eq!(bench.step(), Err(Der::MISC));
    assert_eq!(bench.server.stats().sessions, 1);
    assert_eq!(bench.server.stats().accepted, 1);
}

#[test]
fn close_closes_the_listener_and_every_session() {
    for sessions in [0, 1, 5] {
        let mut bench = Bench::new();
        let mut peers: Vec<_> = (0..sessions).map(|_| bench.peer()).collect();
        assert_eq!(bench.server.stats().sessions, sessions);
        bench.server.close();
        assert_eq!(bench.server.stats().sessions, 0);
        assert!(!bench.path.exists(), "the socket file goes too");
        for peer in &mut peers {
            assert_eq!(peer.look(), Found::Closed);
        }
    }
}

#[test]
fn a_session_in_the_middle_of_a_message_does_not_hold_up_the_step() {
    let mut bench = Bench::with(Options::default());
    let mut slow = bench.peer();
    let mut fast = bench.peer();
    let body = vec![3; 200_000];
    let mut half = peer::call(ECHO, 1, 1, &body);
    slow.send_raw(&half.packet().expect("two packets").to_vec())
        .expect("there is room");
    half.advance();
    for sequence in 1..4 {
        fast.call(ECHO, 1, sequence, b"quick");
        assert_eq!(bench.step(), Ok(()));
        fast.assert_answer(sequence, Status::Success, b"quick");
    }
    assert_eq!(slow.look(), Found::Nothing);
    assert!(slow.send_some(&mut half));
    bench.settle();
    let mut response = slow.look();
    while response == Found::Nothing {
        bench.settle();
        response = slow.look();
    }
    let Found::Response(response) = response else {
        panic!("closed");
    };
    assert_eq!(response.body, body);
}
