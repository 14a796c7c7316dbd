//! Damage of every region, each with its exact outcome.

use obj_store::{OpenOptions, ScrubCursor, Store, StoreError, UNIT};
use uuid::Uuid;

use crate::sim::{CONT, ENGINE, POOL, Sim, SimDev, format, format_options, fresh, open, open_with};
use crate::workload::{bytes, get, names, put};

const HALF_UNITS: u64 = 32;
const HALF_START: [u64; 2] = [256, 256 + HALF_UNITS];
const DATA_START: u64 = 256 + 2 * HALF_UNITS;

/// A closed store with objects a, b and c of two units each, put one after the other.
fn three_objects() -> SimDev {
    let (sim, store) = fresh(1024, 4096, 3);
    let dev = sim.dev.clone();
    sim.run(async move {
        for name in ["a", "b", "c"] {
            put(&store, name, &bytes(7, 8000)).await.unwrap();
        }
        store.close().await;
    });
    dev
}

fn open_error(dev: &SimDev) -> StoreError {
    match open(dev) {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

fn flip(dev: &SimDev, unit: u64, byte: u64) {
    dev.corrupt(unit * UNIT as u64 + byte, 0x10);
}

#[test]
fn one_superblock_copy_is_repaired_from_the_other() {
    for (copy, unit) in [(0, 0), (1, 255)] {
        for byte in [0, 12, 30, 4095] {
            let dev = three_objects();
            flip(&dev, unit, byte);
            let (_, store, report) = open(&dev).unwrap();
            assert_eq!(report.repaired_copy, Some(copy));
            assert_eq!(names(&store), ["a", "b", "c"]);
            let (_, _, report) = open(&dev).unwrap();
            assert_eq!(report.repaired_copy, None, "it was written again");
        }
    }
}

#[test]
fn both_superblock_copies_damaged_is_refused() {
    let dev = three_objects();
    flip(&dev, 0, 100);
    flip(&dev, 255, 100);
    assert!(matches!(open_error(&dev), StoreError::SuperblockDamaged));
    let again = format(&dev, format_options());
    assert!(
        matches!(again, Err(StoreError::SuperblockDamaged)),
        "not without force"
    );
    let store = Uuid::from_u128(0xf0);
    format(
        &dev,
        obj_store::FormatOptions {
            store,
            force: true,
            ..format_options()
        },
    )
    .unwrap();
    let (_, store, _) = open(&dev).unwrap();
    assert!(store.pools().is_empty());
}

/// Frames after the format: pool, container, a, b, c: units 1 to 5 of half 0.
#[test]
fn a_log_record_with_later_ones_behind_it_is_refused_and_named() {
    for unit in 1..5 {
        for byte in [0, 8, 40, 63, 70] {
            let dev = three_objects();
            flip(&dev, HALF_START[0] + unit, byte);
            match open_error(&dev) {
                StoreError::LogDamaged {
                    half: 0, unit: at, ..
                } => {
                    assert_eq!(at, HALF_START[0] + unit);
                }
                other => panic!("{other}"),
            }
        }
    }
}

#[test]
fn the_last_log_record_counts_as_torn() {
    let dev = three_objects();
    flip(&dev, HALF_START[0] + 5, 70);
    let (sim, store, _) = open(&dev).unwrap();
    assert_eq!(names(&store), ["a", "b"]);
    sim.run(async move {
        put(&store, "d", &bytes(9, 100)).await.unwrap();
        assert!(get(&store, "a").await.unwrap() == bytes(7, 8000));
    });
}

#[test]
fn a_damaged_checkpoint_that_is_in_use_is_refused() {
    let dev = three_objects();
    flip(&dev, HALF_START[0], 3);
    assert!(matches!(
        open_error(&dev),
        StoreError::LogDamaged { half: 0, .. }
    ));
}

/// Works until a checkpoint has moved the log to half 1, and a few records more.
fn moved_log() -> SimDev {
    let (sim, store) = fresh(1024, 4096, 5);
    let dev = sim.dev.clone();
    sim.run(async move {
        let mut i = 0;
        while store.stats().checkpoints == 0 {
            put(&store, &format!("o{}", i % 5), &bytes(i, 5000))
                .await
                .unwrap();
            i += 1;
        }
        for name in ["x", "y"] {
            put(&store, name, &bytes(1, 10)).await.unwrap();
        }
        store.close().await;
    });
    dev
}

#[test]
fn every_unit_of_the_log_in_use_matters_and_no_other() {
    let (_, store, _) = open(&moved_log()).unwrap();
    let all = names(&store);
    for (half, start) in HALF_START.into_iter().enumerate() {
        for unit in 0..HALF_UNITS {
            let dev = moved_log();
            flip(&dev, start + unit, 20);
            match open(&dev) {
                Ok((_, store, _)) => {
                    let found = names(&store);
                    let torn = all[..all.len() - 1] == found[..];
                    assert!(found == all || torn, "{found:?}");
                    let in_use = half == 1 && unit < 3;
                    assert!(!in_use, "damage of unit {unit} went unseen");
                }
                Err(StoreError::LogDamaged { half: found, .. }) => {
                    assert_eq!((half, found), (1, 1), "unit {unit}");
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn damaged_data_fails_that_object_and_names_it() {
    let dev = three_objects();
    flip(&dev, DATA_START + 2, 5);
    let (sim, store, _) = open(&dev).unwrap();
    sim.run(async move {
        assert!(get(&store, "a").await.unwrap() == bytes(7, 8000));
        assert!(get(&store, "c").await.unwrap() == bytes(7, 8000));
        match get(&store, "b").await {
            Err(StoreError::Csum(damage)) => {
                assert_eq!((damage.pool, damage.cont), (POOL, CONT));
                assert_eq!((&*damage.object, damage.piece, damage.chunk), ("b", 0, 0));
                assert_eq!(damage.unit, DATA_START + 2);
            }
            other => panic!("{other:?}"),
        }
        let mut cursor = ScrubCursor::default();
        let mut found = Vec::new();
        let mut bytes_read = 0;
        while let Some(step) = store.scrub_one(cursor).await {
            cursor = step.next;
            bytes_read += step.bytes;
            found.extend(step.damage.map(|d| d.to_string()));
        }
        assert_eq!((found.len(), bytes_read), (1, 24_000));
        assert!(found[0].contains("object 'b'"), "{}", found[0]);
        assert_eq!(store.stats().csum_errors, 2);
        put(&store, "b", &bytes(8, 8000)).await.unwrap();
        assert!(
            get(&store, "b").await.unwrap() == bytes(8, 8000),
            "it can be replaced"
        );
    });
}

#[test]
fn strangers_and_misplaced_devices_are_refused_untouched() {
    let try_open = |dev: &SimDev, engine, target| {
        let options = OpenOptions { engine, target };
        open_with(&Sim::new(dev.clone()), options)
            .map(drop)
            .unwrap_err()
    };
    let dev = SimDev::new(1024, 4096, 1);
    assert!(matches!(
        try_open(&dev, None, None),
        StoreError::NotFormatted
    ));
    dev.corrupt(77, 1);
    assert!(matches!(
        try_open(&dev, None, None),
        StoreError::Foreign { .. }
    ));
    let again = format(&dev, format_options());
    assert!(matches!(again, Err(StoreError::Foreign { .. })));
    let dev = SimDev::new(1024, 4096, 1);
    dev.corrupt(100 * UNIT as u64, 1);
    assert!(
        matches!(try_open(&dev, None, None), StoreError::Foreign { .. }),
        "first MiB"
    );

    let dev = three_objects();
    let before = dev.contents();
    let other = Uuid::from_u128(99);
    assert!(matches!(
        try_open(&dev, Some(other), None),
        StoreError::OtherEngine { .. }
    ));
    let target = Some((2, 4));
    assert!(matches!(
        try_open(&dev, Some(ENGINE), target),
        StoreError::OtherTarget { .. }
    ));
    let target = Some((1, 5));
    assert!(matches!(
        try_open(&dev, Some(ENGINE), target),
        StoreError::OtherTarget { .. }
    ));
    assert!(matches!(
        format(&dev, format_options()),
        Err(StoreError::NotEmpty)
    ));
    assert!(dev.contents() == before);
    let cut = SimDev::with(before[..1000].to_vec(), 4096, 1);
    assert!(matches!(
        try_open(&cut, None, None),
        StoreError::Shrunk { .. }
    ));
}

#[test]
fn devices_that_cannot_hold_a_store_are_refused() {
    let format_on = |units, block| {
        let dev = SimDev::new(units, block, 1);
        format(&dev, format_options()).unwrap_err()
    };
    assert!(matches!(format_on(100, 4096), StoreError::TooSmall { .. }));
    assert!(matches!(format_on(500, 4096), StoreError::TooSmall { .. }));
    let dev = SimDev::with(vec![vec![0; 8192].into(); 1000], 8192, 1);
    let sim = Sim::new(dev.clone());
    let result = sim.run(async move { Store::format(dev, &format_options()).await });
    assert!(matches!(result, Err(StoreError::BlockSize { found: 8192 })));
}
