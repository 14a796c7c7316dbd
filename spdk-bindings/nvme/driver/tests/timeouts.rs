//! The ladder: time-out, abort, reset, retry, failure. Memory comes back only when the device has let go of it.
#![allow(missing_docs, reason = "tests")]

mod rig;

use nvme_fake::{FakeOptions, Fault, Match, RegisterFault, Wrong};
use nvme_spec::opcode::{admin, io};
use nvme_spec::{register, status};
use rig::{Rig, pattern, quick};
use spdk_nvme::{ControllerState, Event, Io, IoError, IoKind, NvmeErrorKind, Options, ResetReason};

#[test]
fn a_lost_command_is_aborted_and_tried_again() {
    let mut rig = Rig::new(FakeOptions::default(), quick());
    let (mut pair, target) = (rig.pair(), rig.target(1));
    rig.fake.inject(Fault::once(Match::queue(1), Wrong::Lost));
    let data = pattern(4096, 1);
    assert_eq!(rig.write(&mut pair, &target, 0, 8, &data).result, Ok(()));
    assert_eq!(rig.fake.peek(1, 0, 4096), data);
    let stats = pair.stats();
    assert_eq!(
        (
            stats.timeouts,
            stats.retries,
            stats.resets,
            rig.fake.observed().aborts
        ),
        (1, 1, 0, 1)
    );
    assert_eq!(rig.events(), []);
    drop(pair);
    rig.check();
}

#[test]
fn a_command_that_is_always_lost_fails_in_bounded_time() {
    let mut rig = Rig::new(
        FakeOptions::default(),
        Options {
            retries: 2,
            ..quick()
        },
    );
    let (mut pair, target) = (rig.pair(), rig.target(1));
    rig.fake.inject(Fault::always(
        Match {
            opcode: Some(io::WRITE),
            ..Match::queue(1)
        },
        Wrong::Lost,
    ));
    let before = rig.now();
    assert_eq!(
        rig.write(&mut pair, &target, 0, 8, &pattern(4096, 1))
            .result,
        Err(IoError::TimedOut)
    );
    assert!(
        rig.now() - before < 3 * 150 * rig::MS,
        "three tries of a time-out and an abort each"
    );
    assert_eq!(
        rig.one(&mut pair, &target, Io::new(IoKind::Flush, 0, 0))
            .result,
        Ok(()),
        "others go on"
    );
    drop(pair);
    rig.check();
}

#[test]
fn a_controller_that_hangs_is_reset_and_the_io_goes_through() {
    let mut rig = Rig::new(FakeOptions::default(), quick());
    let (mut pair, target) = (rig.pair(), rig.target(1));
    rig.fake.inject(Fault::once(Match::queue(1), Wrong::Hang));
    for lba in 0..10 {
        let io = Io::new(IoKind::Write, lba, 1).with_buf(rig.buf(&pattern(512, lba)));
        pair.submit(&target, io).map_err(|(_, why)| why).unwrap();
    }
    for done in rig.finish(&mut pair, 10) {
        assert_eq!(done.result, Ok(()));
    }
    (0..10).for_each(|lba| assert_eq!(rig.fake.peek(1, lba, 512), pattern(512, lba)));
    let events = rig.events();
    assert!(
        matches!(
            events[..],
            [
                Event::ResetStarted(ResetReason::TimedOut | ResetReason::AdminTimeout),
                Event::ResetDone
            ]
        ),
        "{events:?}"
    );
    assert_eq!((pair.stats().resets, rig.fake.observed().enables), (1, 2));
    drop(pair);
    rig.check();
}

#[test]
fn a_fatal_status_resets_even_without_io() {
    let mut rig = Rig::new(FakeOptions::default(), quick());
    let mut pair = rig.pair();
    rig.fake
        .inject(Fault::once(Match::admin(admin::GET_LOG_PAGE), Wrong::Fatal));
    drop(rig.controller.smart_log());
    let question = rig.controller.smart_log();
    let (clock, fake) = (&rig.clock, &rig.fake);
    let answer = rig.controller.drive(question, || rig::tick(clock, fake));
    assert!(matches!(
        answer.unwrap_err().kind,
        NvmeErrorKind::Interrupted { .. }
    ));
    rig.until(&ControllerState::Ready);
    assert_eq!(
        rig.events(),
        [Event::ResetStarted(ResetReason::Fatal), Event::ResetDone]
    );
    // The queue pair had nothing to do and was not asked to let go.
    let target = rig.target(1);
    assert_eq!(
        rig.write(&mut pair, &target, 1, 1, &pattern(512, 5)).result,
        Ok(())
    );
    assert_eq!(pair.stats().resets, 1);
    drop(pair);
    rig.check();
}

#[test]
fn io_waits_for_a_reset_and_a_requested_one_loses_nothing() {
    let mut rig = Rig::new(
        FakeOptions {
            ready_steps: 20,
            ..FakeOptions::default()
        },
        quick(),
    );
    let (mut pair, target) = (rig.pair(), rig.target(1));
    for round in 0..3 {
        rig.controller.request_reset();
        rig.turn();
        for lba in 0..5 {
            let io = Io::new(IoKind::Write, lba, 1).with_buf(rig.buf(&pattern(512, lba + round)));
            pair.submit(&target, io).map_err(|(_, why)| why).unwrap();
        }
        assert!(
            rig.finish(&mut pair, 5)
                .iter()
                .all(|done| done.result == Ok(()))
        );
        (0..5).for_each(|lba| assert_eq!(rig.fake.peek(1, lba, 512), pattern(512, lba + round)));
    }
    assert_eq!(rig.fake.observed().enables, 4);
    drop(pair);
    rig.check();
}

#[test]
fn a_reset_waits_for_a_queue_pair_that_has_not_let_go() {
    let mut rig = Rig::new(FakeOptions::default(), quick());
    let (mut pair, target) = (rig.pair(), rig.target(1));
    pair.submit(&target, Io::new(IoKind::Flush, 0, 0))
        .map_err(|(_, why)| why)
        .unwrap();
    rig.controller.request_reset();
    (0..50).for_each(|_| rig.turn());
    assert_eq!(
        rig.controller.state(),
        ControllerState::Resetting,
        "its thread has not been by"
    );
    assert_eq!(rig.fake.observed().enables, 1);
    assert_eq!(rig.finish(&mut pair, 1)[0].result, Ok(()));
    assert_eq!(rig.fake.observed().enables, 2);
}

#[test]
fn a_reset_that_fails_gives_the_controller_up_and_the_buffers_back() {
    let mut rig = Rig::new(FakeOptions::default(), quick());
    let (mut pair, target) = (rig.pair(), rig.target(1));
    rig.fake.inject(Fault::once(Match::queue(1), Wrong::Hang));
    for lba in 0..4 {
        let io = Io::new(IoKind::Read, lba, 1).with_buf(rig.buf(&[0; 512]));
        pair.submit(&target, io).map_err(|(_, why)| why).unwrap();
    }
    pair.poll(rig.now(), |_| ());
    rig.turn();
    // RDY is stuck at 1: nobody can tell when the device lets go.
    rig.fake.inject_register(RegisterFault::Value {
        offset: register::CSTS,
        value: 1,
    });
    let done = rig.finish(&mut pair, 4);
    assert!(
        done.iter()
            .all(|done| done.result == Err(IoError::Failed) && done.io.buf.is_some())
    );
    let events = rig.events();
    assert!(
        matches!(&events[..], [Event::ResetStarted(_), Event::Failed(_)]),
        "{events:?}"
    );
    // Cut off from memory, so giving the buffers back was right; and later I/O fails at once.
    let after = rig.one(&mut pair, &target, Io::new(IoKind::Flush, 0, 0));
    assert_eq!(after.result, Err(IoError::Failed));
    drop((pair, done));
    rig.check();
}

#[test]
fn errors_that_may_pass_are_tried_again_and_others_are_not() {
    let mut rig = Rig::new(FakeOptions::default(), quick());
    let (mut pair, target) = (rig.pair(), rig.target(1));
    for status in [
        status::NAMESPACE_NOT_READY,
        status::INTERRUPTED,
        status::INTERNAL_ERROR,
    ] {
        rig.fake.inject(Fault {
            times: 2,
            ..Fault::once(Match::queue(1), Wrong::Status(status))
        });
        assert_eq!(
            rig.write(&mut pair, &target, 0, 1, &pattern(512, 1)).result,
            Ok(())
        );
    }
    assert_eq!(pair.stats().retries, 6);
    for status in [
        status::UNRECOVERED_READ,
        status::LBA_OUT_OF_RANGE,
        status::INTERNAL_ERROR.with_dnr(),
    ] {
        rig.fake
            .inject(Fault::once(Match::queue(1), Wrong::Status(status)));
        assert_eq!(
            rig.write(&mut pair, &target, 0, 1, &pattern(512, 1)).result,
            Err(IoError::Status(status))
        );
    }
    rig.fake.inject(Fault::always(
        Match::queue(1),
        Wrong::Status(status::INTERRUPTED),
    ));
    assert_eq!(
        rig.write(&mut pair, &target, 0, 1, &pattern(512, 1)).result,
        Err(IoError::Status(status::INTERRUPTED))
    );
    assert_eq!(pair.stats().retries, 10, "four more");
    drop(pair);
    rig.check();
}

#[test]
fn one_bad_block_fails_a_split_io_as_a_whole_and_once() {
    let mut rig = Rig::new(
        FakeOptions {
            mdts: 1,
            ..FakeOptions::default()
        },
        Options {
            queue_entries: 8,
            ..quick()
        },
    );
    let (mut pair, target) = (rig.pair(), rig.target(1));
    let fault = Match {
        lba: Some(100),
        ..Match::queue(1)
    };
    rig.fake
        .inject(Fault::always(fault, Wrong::Status(status::WRITE_FAULT)));
    let done = rig.write(&mut pair, &target, 0, 512, &pattern(256 << 10, 1));
    assert_eq!(done.result, Err(IoError::Status(status::WRITE_FAULT)));
    assert!(
        pair.stats().commands < 32,
        "what was not submitted yet is not submitted any more"
    );
    assert_eq!(pair.outstanding(), 0);
    drop((pair, done));
    rig.check();
}

#[test]
fn a_queue_pair_dropped_with_io_leaves_its_buffers_until_its_queue_is_gone() {
    let mut rig = Rig::new(FakeOptions::default(), quick());
    let (mut pair, target) = (rig.pair(), rig.target(1));
    rig.fake.inject(Fault::always(Match::queue(1), Wrong::Lost));
    for lba in 0..3 {
        let io = Io::new(IoKind::Read, lba, 1).with_buf(rig.buf(&[0; 512]));
        pair.submit(&target, io).map_err(|(_, why)| why).unwrap();
    }
    pair.poll(rig.now(), |_| ());
    rig.fake.step();
    drop(pair);
    assert_eq!(
        rig.pool.available(),
        rig.pool.count() - 3,
        "the device may still write to them"
    );
    assert!(
        rig.controller.queue_pair().is_err(),
        "nor may anybody have the queue"
    );
    rig.fake.clear_faults();
    (0..10).for_each(|_| rig.turn());
    rig.check();
    let mut pair = rig.pair();
    assert_eq!(
        rig.write(&mut pair, &target, 0, 1, &pattern(512, 1)).result,
        Ok(())
    );
}
