//! A device that does wrong: completions that make no sense, removal at any moment, insertion.
#![allow(missing_docs, reason = "tests")]

mod rig;

use nvme_fake::{FakeOptions, Fault, Match, Wrong};
use nvme_spec::opcode::io;
use nvme_spec::status;
use rig::{Rig, pattern, quick};
use spdk_nvme::{ControllerState, Event, Io, IoError, IoKind, Options, ResetReason};

/// Writes eight blocks, one I/O each, with a fault on the third command, and returns the rig when all are back.
fn eight_writes(wrong: Wrong, options: Options) -> (Rig, rig::Pair) {
    let mut rig = Rig::new(FakeOptions::default(), options);
    let (mut pair, target) = (rig.pair(), rig.target(1));
    rig.fake
        .inject(Fault::once(Match::queue(1).after(2), wrong));
    for lba in 0..8 {
        let io = Io::new(IoKind::Write, lba, 1)
            .with_buf(rig.buf(&pattern(512, lba)))
            .with_user(lba);
        pair.submit(&target, io).map_err(|(_, why)| why).unwrap();
    }
    let done = rig.finish(&mut pair, 8);
    for done in &done {
        assert_eq!(done.result, Ok(()), "block {}", done.io.lba);
        assert_eq!(
            rig.fake.peek(1, done.io.lba, 512),
            pattern(512, done.io.lba)
        );
    }
    drop(done);
    rig.turn();
    pair.poll(rig.now(), |_| panic!("an I/O came back twice"));
    rig.check();
    (rig, pair)
}

#[test]
fn a_completion_that_comes_twice_or_for_nothing_is_counted_and_harms_nobody() {
    for wrong in [
        Wrong::Duplicate,
        Wrong::AndUnknown(0x7fff),
        Wrong::AndUnknown(0),
        Wrong::AndUnknown(0xffff),
    ] {
        let (_, pair) = eight_writes(wrong, quick());
        let stats = pair.stats();
        assert_eq!((stats.nonsense, stats.resets, stats.timeouts), (1, 0, 0));
    }
}

#[test]
fn a_completion_that_cannot_be_believed_is_no_completion() {
    // The command times out, cannot be aborted (it is over), and the reset saves it.
    for wrong in [
        Wrong::WrongQueue(0),
        Wrong::WrongQueue(9),
        Wrong::WrongHead(60_000),
    ] {
        let (_, pair) = eight_writes(wrong, quick());
        assert_eq!((pair.stats().nonsense, pair.stats().resets), (1, 1));
    }
}

#[test]
fn a_wrong_phase_tag_stops_the_queue_until_the_reset() {
    let (_, pair) = eight_writes(Wrong::WrongPhase, quick());
    assert_eq!(pair.stats().resets, 1);
}

#[test]
fn a_late_completion_is_waited_for() {
    let (_, pair) = eight_writes(Wrong::Late(30), quick());
    assert_eq!((pair.stats().timeouts, pair.stats().retries), (0, 0));
    let (_, pair) = eight_writes(Wrong::Late(5000), quick());
    assert_eq!(
        (pair.stats().timeouts, pair.stats().retries),
        (1, 1),
        "too late: aborted and tried again"
    );
}

#[test]
fn too_much_nonsense_leads_to_a_reset() {
    let mut rig = Rig::new(FakeOptions::default(), quick());
    let (mut pair, target) = (rig.pair(), rig.target(1));
    rig.fake.inject(Fault {
        times: 16,
        ..Fault::once(Match::queue(1), Wrong::Duplicate)
    });
    for lba in 0..20 {
        assert_eq!(
            rig.write(&mut pair, &target, lba, 1, &pattern(512, lba))
                .result,
            Ok(())
        );
    }
    (0..50).for_each(|_| rig.turn());
    assert_eq!(
        rig.events(),
        [Event::ResetStarted(ResetReason::Nonsense), Event::ResetDone]
    );
}

#[test]
fn torn_data_is_reported_and_a_second_write_mends_it() {
    let mut rig = Rig::new(FakeOptions::default(), quick());
    let (mut pair, target) = (rig.pair(), rig.target(1));
    rig.fake.inject(Fault::once(
        Match {
            opcode: Some(io::WRITE),
            ..Match::queue(1)
        },
        Wrong::Torn(status::WRITE_FAULT),
    ));
    let data = pattern(4096, 1);
    assert_eq!(
        rig.write(&mut pair, &target, 0, 8, &data).result,
        Err(IoError::Status(status::WRITE_FAULT))
    );
    assert_eq!(rig.fake.peek(1, 0, 4096)[..2048], data[..2048]);
    assert_eq!(rig.fake.peek(1, 4, 2048), [0; 2048]);
    // One that may pass is tried again by the driver itself.
    rig.fake.inject(Fault::once(
        Match::queue(1),
        Wrong::Torn(status::TRANSIENT_TRANSPORT),
    ));
    assert_eq!(rig.read(&mut pair, &target, 0, 4, 2048), data[..2048]);
    assert_eq!(rig.fake.observed().torn, 2);
}

/// A pull at every step of bring-up, I/O, reset and shutdown: everything ends, every buffer comes back, the device touched nothing that it was not given.
#[test]
fn removal_at_any_step_ends_everything_and_frees_every_buffer() {
    for step in 1..120 {
        let mut rig = Rig::bare(
            nvme_fake::FakeController::new(FakeOptions::default()),
            quick(),
        );
        rig.fake.remove_at_step(step);
        if rig.attach().is_err() {
            rig.check();
            continue;
        }
        let (mut pair, target) = (rig.pair(), rig.target(1));
        let (mut failed, mut came_back) = (0, 0);
        for round in 0..40 {
            let submitted = (0..4).filter(|lba| {
                let io = Io::new(IoKind::Write, *lba, 1).with_buf(rig.buf(&[7; 512]));
                pair.submit(&target, io).is_ok()
            });
            let submitted = submitted.count();
            for done in rig.finish(&mut pair, submitted) {
                assert!(done.io.buf.is_some());
                came_back += 1;
                match done.result {
                    Ok(()) => assert_eq!(failed, 0),
                    Err(IoError::Removed) => failed += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            if round == 20 {
                rig.controller.request_reset();
            }
        }
        assert_eq!(came_back, 160);
        rig.controller.shut_down();
        for _ in 0..3_000 {
            rig.turn();
        }
        let state = rig.controller.state();
        assert!(
            matches!(
                state,
                ControllerState::Failed(_) | ControllerState::ShutDown
            ),
            "{state:?}"
        );
        drop(pair);
        rig.check();
    }
}

#[test]
fn removed_when_it_fetches_a_command_and_inserted_again() {
    let mut rig = Rig::new(FakeOptions::default(), quick());
    let (mut pair, target) = (rig.pair(), rig.target(1));
    assert_eq!(
        rig.write(&mut pair, &target, 5, 1, &pattern(512, 5)).result,
        Ok(())
    );
    rig.fake.inject(Fault::once(Match::queue(1), Wrong::Remove));
    assert_eq!(
        rig.write(&mut pair, &target, 6, 1, &pattern(512, 6)).result,
        Err(IoError::Removed)
    );
    assert_eq!(rig.events(), [Event::Removed]);
    let mut fresh = Rig::bare(rig.fake.reinsert(), quick());
    fresh.attach().unwrap();
    let target = fresh.target(1);
    let mut again = fresh.pair();
    assert_eq!(fresh.read(&mut again, &target, 5, 1, 512), pattern(512, 5));
    assert_eq!(
        fresh
            .write(&mut again, &target, 6, 1, &pattern(512, 6))
            .result,
        Ok(())
    );
    drop(pair);
    rig.check();
}
