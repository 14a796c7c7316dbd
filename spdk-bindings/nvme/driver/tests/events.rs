//! Asynchronous events, logs, namespace changes, shutdown.
#![allow(missing_docs, reason = "tests")]

mod rig;

use nvme_fake::{FakeOptions, Fault, Match, NamespaceOptions, Wrong};
use nvme_spec::feature::AsyncEvent;
use nvme_spec::opcode::admin;
use nvme_spec::status;
use rig::{Rig, pattern, quick, tick};
use spdk_nvme::{ControllerState, Event, Io, IoError, IoKind, Options};

#[test]
fn namespaces_come_change_and_go() {
    let mut rig = Rig::new(FakeOptions::default(), quick());
    rig.turn();
    rig.fake.set_namespace(2, NamespaceOptions::new(64, 12));
    (0..20).for_each(|_| rig.turn());
    let added = rig.events();
    assert!(
        matches!(&added[..], [Event::NamespaceAdded(ns)] if ns.nsid == 2 && ns.block_size() == 4096),
        "{added:?}"
    );
    rig.fake.set_namespace(1, NamespaceOptions::new(262_144, 9));
    (0..20).for_each(|_| rig.turn());
    let changed = rig.events();
    assert!(
        matches!(&changed[..], [Event::NamespaceChanged(ns)] if ns.blocks == 262_144),
        "{changed:?}"
    );
    rig.fake.remove_namespace(1);
    (0..20).for_each(|_| rig.turn());
    assert_eq!(rig.events(), [Event::NamespaceRemoved(1)]);
    // The target of before still names it: the device refuses.
    let mut pair = rig.pair();
    let target = rig.target(2);
    assert_eq!(
        rig.write(&mut pair, &target, 0, 1, &pattern(4096, 1))
            .result,
        Ok(())
    );
    assert_eq!(rig.controller.namespaces().len(), 1);
}

#[test]
fn a_health_warning_comes_with_the_log_and_again_when_it_comes_again() {
    let mut rig = Rig::new(FakeOptions::default(), quick());
    rig.turn();
    for spare in [9, 8] {
        rig.fake.set_smart(|smart| smart.available_spare = spare);
        rig.fake.raise(AsyncEvent::SPARE_BELOW_THRESHOLD);
        (0..20).for_each(|_| rig.turn());
        let events = rig.events();
        assert!(
            matches!(&events[..], [Event::Health(AsyncEvent::SPARE_BELOW_THRESHOLD, smart)] if smart.available_spare == spare),
            "{events:?}"
        );
    }
    rig.fake.raise(AsyncEvent::FIRMWARE_ACTIVATION);
    rig.fake.raise(AsyncEvent::INVALID_DOORBELL);
    (0..20).for_each(|_| rig.turn());
    let events = rig.events();
    for event in [
        Event::Notice(AsyncEvent::FIRMWARE_ACTIVATION),
        Event::DeviceError(AsyncEvent::INVALID_DOORBELL),
    ] {
        assert!(events.len() == 2 && events.contains(&event), "{events:?}");
    }
    rig.check();
}

#[test]
fn logs_say_what_happened() {
    let mut rig = Rig::new(FakeOptions::default(), quick());
    let (mut pair, target) = (rig.pair(), rig.target(1));
    rig.fake.inject(Fault::once(
        Match::queue(1),
        Wrong::Status(status::UNRECOVERED_READ),
    ));
    let failed = rig.one(&mut pair, &target, Io::new(IoKind::WriteZeroes, 77, 1));
    assert_eq!(
        failed.result,
        Err(IoError::Status(status::UNRECOVERED_READ))
    );
    let (clock, fake) = (&rig.clock, &rig.fake);
    let turn = || tick(clock, fake);
    let question = rig.controller.smart_log();
    let smart = rig.controller.drive(question, turn).unwrap();
    assert_eq!(
        (
            smart.media_errors,
            smart.error_log_entries,
            smart.temperature
        ),
        (1, 1, 310)
    );
    let question = rig.controller.error_log();
    let errors = rig.controller.drive(question, turn).unwrap();
    assert_eq!(errors.len(), 1);
    assert_eq!(
        (errors[0].lba, errors[0].queue, errors[0].status >> 1),
        (77, 1, status::UNRECOVERED_READ.0)
    );
    let question = rig.controller.firmware_slots();
    let slots = rig.controller.drive(question, turn).unwrap();
    assert_eq!((slots.active, slots.revisions[0].as_str()), (1, "1.0"));
    let question = rig.controller.telemetry();
    assert_eq!(
        rig.controller
            .drive(question, turn)
            .unwrap()
            .unwrap()
            .last_block,
        [2; 3]
    );
}

#[test]
fn a_shutdown_deletes_the_queues_and_notifies_the_device() {
    let mut rig = Rig::new(
        FakeOptions {
            write_cache: true,
            ..FakeOptions::default()
        },
        Options {
            queue_pairs: 4,
            ..quick()
        },
    );
    let (mut pair, target) = (rig.pair(), rig.target(1));
    let data = pattern(512, 1);
    rig.write(&mut pair, &target, 0, 1, &data);
    rig.controller.shut_down();
    rig.until(&ControllerState::ShutDown);
    assert_eq!(rig.events(), [Event::ShutDown]);
    assert_eq!(
        (rig.fake.observed().shutdowns, rig.fake.io_queues()),
        (1, 0)
    );
    rig.fake.power_cut();
    assert_eq!(
        rig.fake.peek(1, 0, 512),
        data,
        "a shutdown writes the cache back"
    );
    let after = rig.one(&mut pair, &target, Io::new(IoKind::Flush, 0, 0));
    assert_eq!(after.result, Err(IoError::ShutDown));
    drop(pair);
    rig.check();
}

#[test]
fn an_admin_command_that_hangs_is_reported_and_leads_to_a_reset() {
    let mut rig = Rig::new(FakeOptions::default(), quick());
    rig.turn();
    rig.fake
        .inject(Fault::once(Match::admin(admin::GET_LOG_PAGE), Wrong::Lost));
    let question = rig.controller.smart_log();
    let (clock, fake) = (&rig.clock, &rig.fake);
    let error = rig
        .controller
        .drive(question, || tick(clock, fake))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "nvme fake0: get log page (health) did not complete within 200 ms"
    );
    (0..50).for_each(|_| rig.turn());
    assert_eq!(rig.controller.state(), ControllerState::Ready);
    assert!(matches!(
        rig.events()[..],
        [Event::ResetStarted(_), Event::ResetDone]
    ));
    let question = rig.controller.smart_log();
    let (clock, fake) = (&rig.clock, &rig.fake);
    rig.controller
        .drive(question, || tick(clock, fake))
        .unwrap();
    rig.check();
}

#[test]
fn four_threads_share_a_controller_through_resets() {
    let mut rig = Rig::new(
        FakeOptions::default(),
        Options {
            queue_pairs: 4,
            retries: 100,
            ..Options::default()
        },
    );
    let running = rig.fake.run();
    let (pairs, target, pool) = (
        rig.controller.queue_pairs().unwrap(),
        rig.target(1),
        rig.pool.clone(),
    );
    let start = std::time::Instant::now();
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let (pairs, pool) = (pairs.clone(), pool.clone());
            std::thread::spawn(move || {
                let mut pair = pairs.take().unwrap().attach();
                for round in 0..300u64 {
                    let lba = thread * 1000 + round;
                    let data = pattern(512, lba);
                    let mut buf = pool.get().unwrap();
                    buf.set_len(512);
                    buf.as_mut_slice().copy_from_slice(&data);
                    pair.submit(&target, Io::new(IoKind::Write, lba, 1).with_buf(buf))
                        .map_err(|(_, why)| why)
                        .unwrap();
                    let mut result = None;
                    while result.is_none() {
                        pair.poll(start.elapsed().as_nanos() as u64, |done| {
                            result = Some(done.result)
                        });
                        std::thread::yield_now();
                    }
                    assert_eq!(result, Some(Ok(())), "thread {thread} round {round}");
                }
            })
        })
        .collect();
    let mut turns = 0u32;
    while threads.iter().any(|thread| !thread.is_finished()) {
        rig.controller.poll(start.elapsed().as_nanos() as u64);
        turns += 1;
        if turns.is_multiple_of(200) && rig.controller.state() == ControllerState::Ready {
            rig.controller.request_reset();
        }
        std::thread::yield_now();
    }
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    drop(running);
    for lba in (0..4).flat_map(|thread| thread * 1000..thread * 1000 + 300) {
        assert_eq!(rig.fake.peek(1, lba, 512), pattern(512, lba));
    }
    rig.check();
}
