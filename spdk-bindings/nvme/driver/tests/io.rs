//! I/O that goes well: data, splitting, order, doorbells, durability.
#![allow(missing_docs, reason = "tests")]

mod rig;

use nvme_fake::{CompletionOrder, FakeOptions, NamespaceOptions};
use nvme_spec::status;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rig::{Rig, pattern, quick};
use spdk_env::DmaBuf;
use spdk_nvme::{Io, IoError, IoKind, Options, Refusal};

#[test]
fn every_operation_against_a_byte_vector() {
    for (sgl, shadow_doorbells, order) in [
        (false, false, CompletionOrder::Submission),
        (true, false, CompletionOrder::Reversed),
        (false, true, CompletionOrder::Reversed),
        (true, true, CompletionOrder::Submission),
    ] {
        let blocks = 1024u64;
        let namespaces = vec![
            NamespaceOptions::new(blocks, 9),
            NamespaceOptions::new(blocks, 12),
        ];
        let fake = FakeOptions {
            sgl,
            shadow_doorbells,
            order,
            namespaces,
            ..FakeOptions::default()
        };
        let mut rig = Rig::new(fake, quick());
        let mut pair = rig.pair();
        four_hundred_rounds(&mut rig, &mut pair, blocks);
        assert_eq!(rig.fake.observed().sgl_commands > 0, sgl);
        drop(pair);
        rig.check();
    }
}

fn four_hundred_rounds(rig: &mut Rig, pair: &mut rig::Pair, blocks: u64) {
    let mut rng = StdRng::seed_from_u64(7);
    let mut models = [vec![0u8; 1024 << 9], vec![0u8; 1024 << 12]];
    for round in 0..400 {
        let which = rng.random_range(0..2usize);
        let (target, shift) = (rig.target(which as u32 + 1), [9, 12][which]);
        let most = (256 << 10) >> shift;
        let count = rng.random_range(1..=most.min(200)) as u32;
        let lba = rng.random_range(0..=blocks - u64::from(count));
        let range = (lba as usize) << shift..(lba as usize + count as usize) << shift;
        let model = &mut models[which];
        match rng.random_range(0..6) {
            0 | 1 => {
                let data = pattern(range.len(), round);
                assert_eq!(rig.write(pair, &target, lba, count, &data).result, Ok(()));
                model[range].copy_from_slice(&data);
            }
            2 | 3 => assert_eq!(
                rig.read(pair, &target, lba, count, range.len()),
                model[range]
            ),
            4 => {
                let kind = if round % 2 == 0 {
                    IoKind::WriteZeroes
                } else {
                    IoKind::Deallocate
                };
                assert_eq!(
                    rig.one(pair, &target, Io::new(kind, lba, count)).result,
                    Ok(())
                );
                model[range].fill(0);
            }
            _ => {
                let mut data = model[range].to_vec();
                let differs = round % 3 == 0;
                if differs {
                    data[0] ^= 1;
                }
                let io = Io::new(IoKind::Compare, lba, count).with_buf(rig.buf(&data));
                let expected = if differs {
                    Err(IoError::Status(status::COMPARE_FAILURE.with_dnr()))
                } else {
                    Ok(())
                };
                assert_eq!(rig.one(pair, &target, io).result, expected);
            }
        }
    }
}

#[test]
fn a_long_io_is_split_at_mdts_and_a_boundary() {
    let mut bounded = NamespaceOptions::new(4096, 9);
    bounded.optimal_boundary = 33;
    let namespaces = vec![NamespaceOptions::new(4096, 9), bounded];
    let mut rig = Rig::new(
        FakeOptions {
            mdts: 3,
            namespaces,
            ..FakeOptions::default()
        },
        quick(),
    );
    let mut pair = rig.pair();
    let data = pattern(200 << 10, 3);
    let target = rig.target(1);
    assert_eq!(rig.write(&mut pair, &target, 7, 400, &data).result, Ok(()));
    assert_eq!(
        (pair.stats().commands, rig.fake.observed().largest_transfer),
        (7, 32 << 10)
    );
    assert_eq!(rig.fake.peek(1, 7, data.len()), data);
    let target = rig.target(2);
    assert_eq!(rig.write(&mut pair, &target, 7, 400, &data).result, Ok(()));
    // 26 blocks to the first boundary at 33, then 33 at a time: buffers start anywhere within their pages.
    assert_eq!(pair.stats().commands, 7 + 1 + 12);
    assert_eq!(rig.read(&mut pair, &target, 7, 400, data.len()), data);
    drop(pair);
    rig.check();
}

#[test]
fn a_doorbell_is_rung_once_for_all_that_was_submitted() {
    let rig = Rig::new(FakeOptions::default(), quick());
    let (mut pair, target) = (rig.pair(), rig.target(1));
    let before = rig.fake.observed().doorbell_writes;
    for lba in 0..32 {
        pair.submit(&target, Io::new(IoKind::WriteZeroes, lba, 1))
            .map_err(|(_, why)| why)
            .unwrap();
    }
    pair.poll(1, |_| panic!("nothing is done yet"));
    assert_eq!(rig.fake.observed().doorbell_writes - before, 1);
    rig.fake.step();
    assert_eq!(pair.poll(2, |done| assert_eq!(done.result, Ok(()))), 32);
    assert_eq!(pair.poll(3, |_| panic!("all are done")), 0);
    assert_eq!(
        rig.fake.observed().doorbell_writes - before,
        2,
        "one for the tail, and, as nothing else came, one for the head"
    );
}

#[test]
fn the_head_is_told_a_quarter_of_the_queue_late_or_when_the_queue_is_quiet() {
    let options = Options {
        queue_entries: 64,
        ..quick()
    };
    let rig = Rig::new(FakeOptions::default(), options);
    let (mut pair, target) = (rig.pair(), rig.target(1));
    let before = rig.fake.observed().doorbell_writes;
    let told = || rig.fake.observed().doorbell_writes - before;
    for round in 1..=170 {
        pair.submit(&target, Io::new(IoKind::WriteZeroes, round, 1))
            .map_err(|(_, why)| why)
            .unwrap();
        pair.poll(round, |_| panic!("nothing is done yet"));
        rig.fake.step();
        assert_eq!(pair.poll(round, |done| assert_eq!(done.result, Ok(()))), 1);
        assert_eq!(told(), round + round / 17);
    }
    for _ in 0..2 {
        pair.poll(171, |_| panic!("all are done"));
        assert_eq!(told(), 170 + 10, "all were told with the last");
    }
    pair.submit(&target, Io::new(IoKind::WriteZeroes, 0, 1))
        .map_err(|(_, why)| why)
        .unwrap();
    pair.ring();
    rig.fake.step();
    pair.poll(172, |done| assert_eq!(done.result, Ok(())));
    assert_eq!(told(), 181);
    // Whoever goes tells, too: the next one goes on from there.
    drop(pair);
    assert_eq!(told(), 182);
}

#[test]
fn shadow_doorbells_spare_register_writes_and_lose_nothing() {
    let run = |shadow_doorbells| {
        let fake = FakeOptions {
            shadow_doorbells,
            burst: 2,
            ..FakeOptions::default()
        };
        let rig = Rig::new(
            fake,
            Options {
                queue_entries: 64,
                depth: 32,
                ..quick()
            },
        );
        let (mut pair, target) = (rig.pair(), rig.target(1));
        let before = rig.fake.observed().doorbell_writes;
        let (mut submitted, mut finished) = (0u64, 0);
        while finished < 3000 {
            while submitted < 3000
                && pair
                    .submit(&target, Io::new(IoKind::WriteZeroes, submitted % 1000, 1))
                    .is_ok()
            {
                submitted += 1;
            }
            finished += pair.poll(0, |done| assert_eq!(done.result, Ok(())));
            rig.fake.step();
        }
        rig.fake.observed().doorbell_writes - before
    };
    let (plain, shadowed) = (run(false), run(true));
    assert!(
        shadowed * 10 < plain,
        "{shadowed} register writes with shadows, {plain} without"
    );
}

#[test]
fn completions_out_of_order_find_their_io() {
    let mut rig = Rig::new(
        FakeOptions {
            order: CompletionOrder::Reversed,
            ..FakeOptions::default()
        },
        quick(),
    );
    let (mut pair, target) = (rig.pair(), rig.target(1));
    for lba in 0..20 {
        let io = Io::new(IoKind::Write, lba, 1)
            .with_buf(rig.buf(&pattern(512, lba)))
            .with_user(lba);
        pair.submit(&target, io).map_err(|(_, why)| why).unwrap();
    }
    let users: Vec<u64> = rig
        .finish(&mut pair, 20)
        .iter()
        .map(|done| done.io.user)
        .collect();
    assert_eq!(users, (0..20).rev().collect::<Vec<_>>());
    (0..20).for_each(|lba| assert_eq!(rig.fake.peek(1, lba, 512), pattern(512, lba)));
}

#[test]
fn a_flush_or_fua_survives_a_power_cut_and_nothing_else() {
    let mut rig = Rig::new(
        FakeOptions {
            write_cache: true,
            ..FakeOptions::default()
        },
        quick(),
    );
    assert_eq!(rig.controller.identity().unwrap().vwc & 1, 1);
    let (mut pair, target) = (rig.pair(), rig.target(1));
    let data = pattern(512, 1);
    rig.write(&mut pair, &target, 0, 1, &data);
    assert_eq!(
        rig.one(&mut pair, &target, Io::new(IoKind::Flush, 0, 0))
            .result,
        Ok(())
    );
    rig.write(&mut pair, &target, 1, 1, &data);
    let fua = Io::new(IoKind::Write, 2, 1)
        .with_buf(rig.buf(&data))
        .with_fua();
    assert_eq!(rig.one(&mut pair, &target, fua).result, Ok(()));
    assert_eq!(
        rig.read(&mut pair, &target, 1, 1, 512),
        data,
        "the cache is read"
    );
    rig.fake.power_cut();
    let after: Vec<bool> = (0..3)
        .map(|lba| rig.fake.peek(1, lba, 512) == data)
        .collect();
    assert_eq!(after, [true, false, true]);
}

#[test]
fn what_cannot_be_done_comes_back_whole() {
    let mut rig = Rig::new(
        FakeOptions {
            oncs: 0,
            ..FakeOptions::default()
        },
        Options {
            depth: 2,
            ..quick()
        },
    );
    let (mut pair, target) = (rig.pair(), rig.target(1));
    let mut refused = |io: Io| {
        pair.submit(&target, io)
            .err()
            .map(|(io, why)| (io.buf.is_some(), why))
    };
    let buf = |bytes: usize| rig.buf(&vec![0; bytes]);
    assert_eq!(
        refused(Io::new(IoKind::Read, 0, 2).with_buf(buf(512))),
        Some((true, Refusal::Buffer))
    );
    assert_eq!(
        refused(Io::new(IoKind::Write, 0, 1)),
        Some((false, Refusal::Buffer))
    );
    assert_eq!(
        refused(Io::new(IoKind::Read, 131_072, 1).with_buf(buf(512))),
        Some((true, Refusal::Range))
    );
    assert_eq!(
        refused(Io::new(IoKind::Read, u64::MAX, 2).with_buf(buf(1024))),
        Some((true, Refusal::Range))
    );
    assert_eq!(
        refused(Io::new(IoKind::Read, 0, 0).with_buf(buf(512))),
        Some((true, Refusal::Range))
    );
    let heap = DmaBuf::alloc(512).unwrap();
    assert_eq!(
        refused(Io::new(IoKind::Read, 0, 1).with_buf(heap)),
        Some((true, Refusal::Unreachable))
    );
    for kind in [IoKind::WriteZeroes, IoKind::Deallocate] {
        assert_eq!(
            refused(Io::new(kind, 0, 1)),
            Some((false, Refusal::Unsupported))
        );
    }
    assert_eq!(
        refused(Io::new(IoKind::Compare, 0, 1).with_buf(buf(512))),
        Some((true, Refusal::Unsupported))
    );
    assert_eq!(refused(Io::new(IoKind::Flush, 0, 0)), None);
    assert_eq!(refused(Io::new(IoKind::Flush, 0, 0)), None);
    assert_eq!(
        refused(Io::new(IoKind::Flush, 0, 0)),
        Some((false, Refusal::Full))
    );
    rig.finish(&mut pair, 2);
    drop(pair);
    rig.check();
}

#[test]
fn more_io_than_the_queue_holds_waits_its_turn() {
    let fake = FakeOptions {
        burst: 1,
        mdts: 1,
        ..FakeOptions::default()
    };
    let mut rig = Rig::new(
        fake,
        Options {
            queue_entries: 4,
            depth: 64,
            ..quick()
        },
    );
    let (mut pair, target) = (rig.pair(), rig.target(1));
    // Each is 32 commands, and three fit the queue.
    for i in 0..30 {
        let io = Io::new(IoKind::Write, i * 512, 512)
            .with_buf(rig.buf(&pattern(256 << 10, i)))
            .with_user(i);
        pair.submit(&target, io).map_err(|(_, why)| why).unwrap();
    }
    let done = rig.finish(&mut pair, 30);
    assert_eq!(
        done.iter().map(|done| done.io.user).collect::<Vec<_>>(),
        (0..30).collect::<Vec<_>>()
    );
    for i in 0..30 {
        assert_eq!(rig.fake.peek(1, i * 512, 256 << 10), pattern(256 << 10, i));
    }
    drop((pair, done));
    rig.check();
}

#[test]
fn the_next_thread_goes_on_where_the_last_one_left_the_queue() {
    let mut rig = Rig::new(
        FakeOptions::default(),
        Options {
            queue_entries: 8,
            ..quick()
        },
    );
    let target = rig.target(1);
    for round in 0..30 {
        let mut pair = rig.pair();
        assert_eq!(pair.id(), 1);
        for lba in 0..round % 5 {
            let data = pattern(512, round + lba);
            assert_eq!(rig.write(&mut pair, &target, lba, 1, &data).result, Ok(()));
            assert_eq!(rig.fake.peek(1, lba, 512), data);
        }
    }
    rig.check();
}

#[test]
fn an_interrupt_wakes_whoever_sleeps_and_is_silent_while_polled() {
    use rustix_free::readable;
    let mut rig = Rig::new(
        FakeOptions {
            interrupts: 4,
            ..FakeOptions::default()
        },
        Options {
            interrupts: true,
            ..quick()
        },
    );
    let (mut pair, target) = (rig.pair(), rig.target(1));
    // The controller woke whoever might have slept when it began to run; reading takes that back.
    readable(pair.interrupt_fd().unwrap());
    rig.write(&mut pair, &target, 0, 1, &pattern(512, 0));
    assert!(
        !readable(pair.interrupt_fd().unwrap()),
        "masked while polled"
    );
    pair.submit(&target, Io::new(IoKind::Flush, 0, 0))
        .map_err(|(_, why)| why)
        .unwrap();
    pair.ring();
    assert!(pair.set_interrupts(true));
    assert!(!pair.has_completions());
    rig.fake.step();
    assert!(readable(pair.interrupt_fd().unwrap()) && pair.has_completions());
    assert!(pair.set_interrupts(false));
    assert_eq!(pair.poll(rig.now(), |_| ()), 1);
}

/// Whether a descriptor is readable, by the standard library alone.
mod rustix_free {
    use std::io::Read;
    use std::os::fd::BorrowedFd;

    pub(crate) fn readable(fd: BorrowedFd<'_>) -> bool {
        let mut file = std::fs::File::from(fd.try_clone_to_owned().unwrap());
        file.read(&mut [0; 8]).is_ok()
    }
}
