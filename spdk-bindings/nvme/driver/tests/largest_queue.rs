//! The largest legal queue, full and round its end.
#![allow(missing_docs, reason = "tests")]

mod rig;

use nvme_fake::{FakeOptions, NamespaceOptions};
use rig::{Rig, quick};
use spdk_nvme::{Io, IoKind, Options};

#[test]
fn a_queue_of_65_536_entries_is_filled_and_wraps() {
    let mut namespace = NamespaceOptions::new(1 << 20, 9);
    namespace.discard = true;
    let fake = FakeOptions {
        max_queue_entries: 65_536,
        namespaces: vec![namespace],
        ..FakeOptions::default()
    };
    let options = Options {
        queue_entries: 65_536,
        depth: 65_535,
        ..quick()
    };
    let mut rig = Rig::new(fake, options);
    let (mut pair, target) = (rig.pair(), rig.target(1));
    assert_eq!(pair.depth(), 65_535);
    // Five rounds of the queue, the first completely full.
    let (mut submitted, mut expected) = (0u64, 0u64);
    for batch in [65_535, 1, 65_534, 30_000, 65_535, 65_535, 40_000] {
        for _ in 0..batch {
            let io = Io::new(IoKind::WriteZeroes, submitted % (1 << 20), 1).with_user(submitted);
            pair.submit(&target, io).map_err(|(_, why)| why).unwrap();
            submitted += 1;
        }
        if batch == 65_535 {
            assert!(
                pair.submit(&target, Io::new(IoKind::Flush, 0, 0)).is_err(),
                "full"
            );
        }
        for done in rig.finish(&mut pair, batch) {
            assert_eq!((done.io.user, done.result), (expected, Ok(())));
            expected += 1;
        }
    }
    assert_eq!((pair.outstanding(), pair.stats().nonsense), (0, 0));
    assert_eq!(rig.fake.observed().bad_doorbells, 0);
}

#[test]
fn queues_of_awkward_sizes_wrap() {
    for entries in [2, 3, 5, 255, 256, 257, 1000] {
        let rig = Rig::new(
            FakeOptions::default(),
            Options {
                queue_entries: entries,
                depth: 300,
                ..quick()
            },
        );
        let (mut pair, target) = (rig.pair(), rig.target(1));
        let mut finished = 0;
        let mut next = 0u64;
        while finished < 3000 {
            while pair
                .submit(&target, Io::new(IoKind::WriteZeroes, next % 1000, 1))
                .is_ok()
            {
                next += 1;
            }
            finished += pair.poll(0, |done| assert_eq!(done.result, Ok(())));
            rig.fake.step();
        }
        assert_eq!(pair.stats().nonsense, 0, "{entries} entries");
    }
}
