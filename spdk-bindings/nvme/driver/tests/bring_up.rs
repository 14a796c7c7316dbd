//! From power-on to queues: what is accepted, and how the rest is refused.
#![allow(missing_docs, reason = "tests")]

mod rig;

use nvme_fake::{
    FakeController, FakeOptions, Fault, Match, NamespaceOptions, RegisterFault, Wrong,
};
use nvme_spec::opcode::admin;
use nvme_spec::{register, status};
use rig::{Rig, pattern, quick};
use spdk_nvme::{Controller, ControllerState, NvmeErrorKind, Options};

fn refused(fake: FakeOptions) -> String {
    let error = Rig::try_new(fake, quick())
        .err()
        .expect("the controller was to be refused");
    error.to_string()
}

#[test]
fn eight_queue_pairs_come_up_with_what_the_controller_says() {
    let options = Options {
        queue_pairs: 8,
        ..quick()
    };
    let rig = Rig::new(FakeOptions::default(), options);
    assert_eq!(rig.controller.state(), ControllerState::Ready);
    let identity = rig.controller.identity().unwrap();
    assert_eq!(
        (identity.serial.as_str(), identity.model.as_str()),
        ("FAKE0001", "Keel emulated NVMe")
    );
    assert_eq!(rig.fake.io_queues(), 8);
    let pairs: Vec<_> = (0..8).map(|_| rig.pair()).collect();
    assert_eq!(
        pairs.iter().map(|p| p.id()).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7, 8]
    );
    let error = rig.controller.queue_pair().err().unwrap();
    assert_eq!(
        error.kind,
        NvmeErrorKind::NoQueuePair {
            count: 8,
            granted: 8
        }
    );
    drop(pairs);
    assert!(
        rig.controller.queue_pair().is_ok(),
        "a dropped queue pair is free again"
    );
}

#[test]
fn fewer_queues_than_asked_for_are_used() {
    let fake = FakeOptions {
        queue_pairs: 2,
        ..FakeOptions::default()
    };
    let rig = Rig::new(
        fake,
        Options {
            queue_pairs: 16,
            ..quick()
        },
    );
    assert_eq!(rig.controller.queue_pairs().unwrap().count(), 2);
}

#[test]
fn a_device_that_another_driver_left_enabled_is_started_over() {
    let mut first = Rig::new(FakeOptions::default(), quick());
    // As after kill -9: nobody disables it. The memory of the first driver is still mapped, and must not be used.
    let mut second = Rig::bare(first.fake.clone(), quick());
    second.attach().unwrap();
    assert_eq!(first.fake.observed().enables, 2);
    let (mut pair, target) = (second.pair(), second.target(1));
    let data = pattern(512, 1);
    assert_eq!(second.write(&mut pair, &target, 3, 1, &data).result, Ok(()));
    assert_eq!(second.fake.peek(1, 3, 512), data);
    first.turn();
}

#[test]
fn csts_that_never_becomes_ready_ends_in_time() {
    let fake = FakeController::new(FakeOptions::default());
    fake.inject_register(RegisterFault::Value {
        offset: register::CSTS,
        value: 0,
    });
    let mut rig = Rig::bare(fake, quick());
    let error = rig.attach().unwrap_err();
    assert_eq!(
        error.kind,
        NvmeErrorKind::NotReady {
            wanted: 1,
            ms: 1000
        }
    );
    assert_eq!(
        error.to_string(),
        "nvme fake0: CSTS.RDY did not become 1 within 1000 ms after CC.EN: the controller hangs; power-cycle the device"
    );
    assert!(rig.now() < 3_000 * rig::MS);
}

#[test]
fn csts_stuck_ready_and_fatal_are_told_apart() {
    let fake = FakeController::new(FakeOptions::default());
    fake.inject_register(RegisterFault::Value {
        offset: register::CSTS,
        value: 1,
    });
    let error = Rig::bare(fake, quick()).attach().unwrap_err();
    assert_eq!(
        error.kind,
        NvmeErrorKind::NotReady {
            wanted: 0,
            ms: 1000
        }
    );

    let fake = FakeController::new(FakeOptions::default());
    fake.inject_register(RegisterFault::Value {
        offset: register::CSTS,
        value: 2,
    });
    let error = Rig::bare(fake, quick()).attach().unwrap_err();
    assert_eq!(error.kind, NvmeErrorKind::Fatal("starts"));
}

#[test]
fn an_absent_device_is_gone_wherever_it_goes() {
    for reads in 0..40 {
        let fake = FakeController::new(FakeOptions::default());
        fake.inject_register(RegisterFault::AllOnesAfter(reads));
        let mut rig = Rig::bare(fake, quick());
        match rig.attach() {
            Ok(()) => rig.until(&ControllerState::Failed(spdk_nvme::NvmeError {
                device: "fake0".into(),
                kind: NvmeErrorKind::Gone,
            })),
            Err(error) => assert_eq!(error.kind, NvmeErrorKind::Gone, "after {reads} reads"),
        }
    }
}

#[test]
fn what_cannot_be_driven_is_refused_with_the_reason() {
    let with_cap = |low: u32, high: u32| {
        let fake = FakeController::new(FakeOptions::default());
        fake.inject_register(RegisterFault::Value {
            offset: 0,
            value: low,
        });
        fake.inject_register(RegisterFault::Value {
            offset: 4,
            value: high,
        });
        Rig::bare(fake, quick()).attach().unwrap_err().to_string()
    };
    assert_eq!(
        with_cap(0x0201_03ff, 0),
        "nvme fake0: it cannot be driven: it has no NVM command set (CAP is 0x00000000020103ff)"
    );
    assert_eq!(
        with_cap(0x0201_0000, 0x20),
        "nvme fake0: it cannot be driven: its I/O queues have one entry (CAP.MQES 0); NVMe requires two"
    );
    assert_eq!(
        refused(FakeOptions {
            mpsmin: 2,
            ..FakeOptions::default()
        }),
        "nvme fake0: it cannot be driven: its smallest memory page has 16384 bytes (CAP.MPSMIN 2); 4,096 is supported"
    );
}

#[test]
fn admin_commands_that_fail_or_hang_name_themselves() {
    let cases = [
        (admin::IDENTIFY, 0, "identify controller"),
        (admin::IDENTIFY, 1, "identify (active namespaces)"),
        (admin::IDENTIFY, 2, "identify namespace"),
        (admin::SET_FEATURES, 0, "set features (number of queues)"),
        (admin::CREATE_CQ, 0, "create I/O completion queue"),
        (admin::CREATE_SQ, 0, "create I/O submission queue"),
    ];
    for (opcode, skip, command) in cases {
        let fake = FakeController::new(FakeOptions::default());
        fake.inject(Fault::once(
            Match::admin(opcode).after(skip),
            Wrong::Status(status::INTERNAL_ERROR),
        ));
        let error = Rig::bare(fake, quick()).attach().unwrap_err();
        assert_eq!(
            error.kind,
            NvmeErrorKind::Command {
                command,
                status: status::INTERNAL_ERROR
            }
        );

        let fake = FakeController::new(FakeOptions::default());
        fake.inject(Fault::once(Match::admin(opcode).after(skip), Wrong::Lost));
        let error = Rig::bare(fake, quick()).attach().unwrap_err();
        assert_eq!(
            error.kind,
            NvmeErrorKind::CommandTimeout { command, ms: 200 }
        );
    }
}

#[test]
fn optional_things_may_be_missing() {
    let fake = FakeController::new(FakeOptions {
        shadow_doorbells: true,
        ..FakeOptions::default()
    });
    for opcode in [admin::DOORBELL_BUFFER, admin::ASYNC_EVENT] {
        fake.inject(Fault::always(
            Match::admin(opcode),
            Wrong::Status(status::INVALID_OPCODE),
        ));
    }
    // The second set features switches events on; the descriptors are the fourth identify.
    fake.inject(Fault::once(
        Match::admin(admin::SET_FEATURES).after(1),
        Wrong::Status(status::INVALID_FIELD),
    ));
    fake.inject(Fault::once(
        Match::admin(admin::IDENTIFY).after(3),
        Wrong::Status(status::INVALID_FIELD),
    ));
    let mut rig = Rig::bare(fake, quick());
    rig.attach().unwrap();
    assert_eq!(rig.controller.namespaces()[0].uuid, None);
}

#[test]
fn no_namespaces_is_a_controller_without_namespaces() {
    let rig = Rig::new(
        FakeOptions {
            namespaces: vec![],
            ..FakeOptions::default()
        },
        quick(),
    );
    assert_eq!(rig.controller.namespaces(), []);
}

#[test]
fn namespaces_that_cannot_be_used_say_why() {
    let mut with_metadata = NamespaceOptions::new(100, 12);
    with_metadata.metadata = 8;
    with_metadata.protection = 1;
    let mut zoned = NamespaceOptions::new(100, 12);
    zoned.command_set = 2;
    let namespaces = vec![
        NamespaceOptions::new(100, 12),
        with_metadata,
        zoned,
        NamespaceOptions::new(0, 9),
        NamespaceOptions::new(100, 8),
        NamespaceOptions::new(100, 17),
        NamespaceOptions::new(1 << 60, 12),
        NamespaceOptions::new(100, 16),
    ];
    // MDTS 2: 16 KiB at a time.
    let rig = Rig::new(
        FakeOptions {
            namespaces,
            mdts: 2,
            ..FakeOptions::default()
        },
        quick(),
    );
    let found = rig.controller.namespaces();
    let why: Vec<_> = found
        .iter()
        .map(|ns| ns.refused.as_deref().unwrap_or("used"))
        .collect();
    assert_eq!(
        why,
        [
            "used",
            "it is formatted with 8 bytes of metadata for each block (protection type 1), which is not supported: format it without (nvme format --lbaf=N with ms:0)",
            "its command set is 2 (zoned or key-value); only the NVM command set is supported",
            "it has no blocks",
            "its blocks have 2^8 bytes; 512 to 65,536 are supported: format it (nvme format)",
            "its blocks have 2^17 bytes; 512 to 65,536 are supported: format it (nvme format)",
            "it claims 1152921504606846976 blocks of 4096 bytes, more than 8 EiB",
            "its blocks have 65536 bytes and the controller moves at most 16384 at a time: format it with smaller ones",
        ]
    );
}

#[test]
fn blocks_of_512_bytes_to_64_kib_work() {
    let namespaces = (9..=16)
        .map(|shift| NamespaceOptions::new(64, shift))
        .collect();
    let mut rig = Rig::new(
        FakeOptions {
            namespaces,
            ..FakeOptions::default()
        },
        quick(),
    );
    let mut pair = rig.pair();
    for (nsid, shift) in (1..).zip(9..=16) {
        let target = rig.target(nsid);
        let data = pattern(2 << shift, u64::from(nsid));
        assert_eq!(rig.write(&mut pair, &target, 5, 2, &data).result, Ok(()));
        assert_eq!(rig.read(&mut pair, &target, 5, 2, data.len()), data);
        assert_eq!(rig.fake.peek(nsid, 5, data.len()), data);
    }
    drop(pair);
    rig.check();
}

#[test]
fn mdts_of_nothing_one_and_far_too_much() {
    for (mdts, largest) in [
        (0, 256 << 10),
        (1, 8 << 10),
        (20, 256 << 10),
        (31, 256 << 10),
        (255, 256 << 10),
    ] {
        let mut rig = Rig::new(
            FakeOptions {
                mdts,
                ..FakeOptions::default()
            },
            quick(),
        );
        let (mut pair, target) = (rig.pair(), rig.target(1));
        let data = pattern(256 << 10, u64::from(mdts));
        assert_eq!(
            rig.write(&mut pair, &target, 0, 512, &data).result,
            Ok(()),
            "MDTS {mdts}"
        );
        assert_eq!(rig.read(&mut pair, &target, 0, 512, data.len()), data);
        assert_eq!(rig.fake.observed().largest_transfer, largest, "MDTS {mdts}");
    }
}

#[test]
fn the_smallest_queue_has_one_command_at_a_time() {
    // MQES 1: two entries.
    let mut rig = Rig::new(
        FakeOptions {
            max_queue_entries: 2,
            ..FakeOptions::default()
        },
        Options {
            depth: 32,
            ..quick()
        },
    );
    let (mut pair, target) = (rig.pair(), rig.target(1));
    let data = pattern(256 << 10, 9);
    assert_eq!(rig.write(&mut pair, &target, 0, 512, &data).result, Ok(()));
    for lba in 0..32 {
        let io = spdk_nvme::Io::new(spdk_nvme::IoKind::Read, lba, 1)
            .with_buf(rig.buf(&[0; 512]))
            .with_user(lba);
        assert!(pair.submit(&target, io).is_ok());
    }
    for (lba, done) in rig.finish(&mut pair, 32).into_iter().enumerate() {
        assert_eq!((done.io.user, done.result), (lba as u64, Ok(())));
        assert_eq!(done.io.buf.unwrap().as_slice(), &data[lba * 512..][..512]);
    }
    drop(pair);
    rig.check();
}

#[test]
fn a_controller_memory_buffer_and_wide_doorbells_change_nothing() {
    let fake = FakeOptions {
        memory_buffer: true,
        dstrd: 3,
        ..FakeOptions::default()
    };
    let mut rig = Rig::new(
        fake,
        Options {
            queue_pairs: 3,
            ..quick()
        },
    );
    let mut pairs: Vec<_> = (0..3).map(|_| rig.pair()).collect();
    let target = rig.target(1);
    for (i, pair) in pairs.iter_mut().enumerate() {
        let data = pattern(4096, i as u64);
        assert_eq!(
            rig.write(pair, &target, 8 * i as u64, 8, &data).result,
            Ok(())
        );
        assert_eq!(rig.fake.peek(1, 8 * i as u64, 4096), data);
    }
}

#[test]
fn a_slow_start_is_waited_for() {
    let mut rig = Rig::bare(
        FakeController::new(FakeOptions {
            ready_steps: 700,
            ..FakeOptions::default()
        }),
        quick(),
    );
    rig.attach().unwrap();
    let late = FakeOptions {
        ready_steps: 1_500,
        ..FakeOptions::default()
    };
    let error = Rig::bare(FakeController::new(late), quick())
        .attach()
        .unwrap_err();
    assert_eq!(
        error.kind,
        NvmeErrorKind::NotReady {
            wanted: 1,
            ms: 1000
        }
    );
}

#[test]
fn dropped_without_shutdown_the_device_is_cut_off() {
    let rig = Rig::new(FakeOptions::default(), quick());
    let Rig {
        fake, controller, ..
    } = rig;
    let pair = controller.queue_pair().unwrap().attach();
    drop::<Controller<_>>(controller);
    drop(pair);
    fake.step();
    assert_eq!(fake.observed().dma_faults, 0);
}
