//! A device that fails requests.

use std::cell::Cell;
use std::rc::Rc;

use obj_store::StoreError;

use crate::sim::{CONT, Kind, fresh, open};
use crate::workload::{bytes, get, names, put, reclaim_all};

const DATA_START: u64 = 256 + 64;

#[test]
fn a_failed_data_write_fails_that_put_and_nothing_else() {
    let (sim, store) = fresh(1024, 4096, 1);
    let free = store.space().free;
    *sim.dev.0.faults.borrow_mut() = Some(Box::new(|kind, lba| {
        kind == Kind::Write && lba >= DATA_START
    }));
    let s = store.clone();
    sim.run(async move {
        let failed = put(&s, "a", &bytes(1, 9000)).await;
        assert!(
            matches!(failed, Err(StoreError::Device { op: "write", .. })),
            "{failed:?}"
        );
        assert!(matches!(
            s.stat(&CONT, "a"),
            Err(StoreError::NoObject { .. })
        ));
    });
    *sim.dev.0.faults.borrow_mut() = None;
    assert_eq!(store.space().free, free);
    sim.run(async move {
        put(&store, "a", &bytes(2, 9000)).await.unwrap();
        assert!(get(&store, "a").await.unwrap() == bytes(2, 9000));
    });
}

#[test]
fn a_failed_read_is_an_error_of_that_read() {
    let (sim, store) = fresh(1024, 4096, 1);
    let s = store.clone();
    sim.run(async move { put(&s, "a", &bytes(1, 9000)).await.unwrap() });
    *sim.dev.0.faults.borrow_mut() = Some(Box::new(|kind, _| kind == Kind::Read));
    let s = store.clone();
    sim.run(async move {
        let failed = get(&s, "a").await;
        assert!(
            matches!(failed, Err(StoreError::Device { op: "read", .. })),
            "{failed:?}"
        );
    });
    *sim.dev.0.faults.borrow_mut() = None;
    sim.run(async move { assert!(get(&store, "a").await.unwrap() == bytes(1, 9000)) });
}

/// After the log or a flush failed the store is read-only; what was acknowledged is there, now and after a restart.
#[test]
fn a_failed_log_or_flush_makes_the_store_read_only_and_loses_nothing() {
    for (what, kind) in [("log", Kind::Write), ("flush", Kind::Flush)] {
        let (sim, store) = fresh(1024, 4096, 1);
        let s = store.clone();
        sim.run(async move { put(&s, "kept", &bytes(1, 9000)).await.unwrap() });
        *sim.dev.0.faults.borrow_mut() =
            Some(Box::new(move |k, lba| k == kind && lba < DATA_START));
        let s = store.clone();
        sim.run(async move {
            put(&s, "kept", &bytes(2, 9000)).await.unwrap_err();
            put(&s, "new", &bytes(3, 100)).await.unwrap_err();
        });
        *sim.dev.0.faults.borrow_mut() = None;
        let s = store.clone();
        sim.run(async move {
            for failed in [
                put(&s, "new", &bytes(3, 100)).await,
                s.remove(&CONT, "kept").await,
                s.begin(&CONT, "new", 1).await.map(drop),
                s.destroy_container(&CONT).await,
            ] {
                assert!(
                    matches!(failed, Err(StoreError::ReadOnly { .. })),
                    "{what}: {failed:?}"
                );
            }
            assert!(get(&s, "kept").await.unwrap() == bytes(1, 9000));
            s.close().await;
        });
        let dev = sim.dev.clone();
        drop((sim, store));
        let (sim, store, _) = open(&dev).unwrap();
        sim.run(async move {
            assert!(get(&store, "kept").await.unwrap() == bytes(1, 9000));
            put(&store, "new", &bytes(3, 100)).await.unwrap();
        });
    }
}

/// A checkpoint that the device refuses at first is tried again; one that it always refuses ends in read-only.
#[test]
fn a_checkpoint_survives_two_failed_writes() {
    let (sim, store) = fresh(1024, 4096, 1);
    let left = Rc::new(Cell::new(2));
    let plan = left.clone();
    *sim.dev.0.faults.borrow_mut() = Some(Box::new(move |kind, lba| {
        let hit = kind == Kind::Write && (288..320).contains(&lba) && plan.get() > 0;
        plan.set(plan.get() - u32::from(hit));
        hit
    }));
    let s = store.clone();
    sim.run(async move {
        for i in 0..200 {
            put(&s, &format!("o{}", i % 5), &bytes(i, 100))
                .await
                .unwrap();
        }
        s.close().await;
    });
    assert_eq!(left.get(), 0);
    assert!(store.stats().checkpoints > 3);
    let dev = sim.dev.clone();
    drop((sim, store));
    let (_, store, _) = open(&dev).unwrap();
    assert_eq!(names(&store).len(), 5);
}

#[test]
fn a_log_that_can_not_be_compacted_fills_up_and_loses_nothing() {
    let (sim, store) = fresh(1024, 4096, 1);
    *sim.dev.0.faults.borrow_mut() = Some(Box::new(|kind, lba| {
        kind == Kind::Write && (288..320).contains(&lba)
    }));
    let s = store.clone();
    let kept = sim.run(async move {
        let mut kept = 0;
        while put(&s, &format!("o{kept}"), &bytes(kept, 100))
            .await
            .is_ok()
        {
            kept += 1;
        }
        let failed = put(&s, "more", b"x").await;
        assert!(
            matches!(failed, Err(StoreError::ReadOnly { .. })),
            "{failed:?}"
        );
        s.close().await;
        kept
    });
    let dev = sim.dev.clone();
    *dev.0.faults.borrow_mut() = None;
    drop((sim, store));
    let (sim, store, _) = open(&dev).unwrap();
    sim.run(async move {
        for i in 0..kept {
            assert!(get(&store, &format!("o{i}")).await.unwrap() == bytes(i, 100));
        }
        reclaim_all(&store).await;
        put(&store, "more", b"x").await.unwrap();
    });
}
