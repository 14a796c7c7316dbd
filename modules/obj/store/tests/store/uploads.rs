//! Uploads in several pieces: nothing of them is seen before they commit, nothing is left when they do not.

use obj_store::{Store, StoreError};

use crate::sim::{CONT, SimDev, fresh, open};
use crate::workload::{bytes, get, payload, put, reclaim_all};

async fn piece(store: &Store<SimDev>, version: u64, n: u32) -> Result<(), StoreError> {
    store
        .put_piece(&CONT, "big", version, n, payload(&bytes(n.into(), 10_000)))
        .await
}

#[test]
fn readers_see_the_old_object_until_the_commit() {
    let (sim, store) = fresh(1024, 4096, 1);
    let empty = store.space();
    let s = store.clone();
    sim.run(async move {
        put(&s, "big", b"old").await.unwrap();
        let version = s.begin(&CONT, "big", 1).await.unwrap();
        assert!(
            matches!(piece(&s, version, 0).await, Err(StoreError::Stale { .. })),
            "not open"
        );
        s.open_version(&CONT, version).unwrap();
        piece(&s, version, 0).await.unwrap();
        piece(&s, version, 1).await.unwrap();
        piece(&s, version, 1).await.unwrap();
        assert_eq!(get(&s, "big").await.unwrap(), b"old");
        assert_eq!(s.seal_version(&CONT, version).unwrap(), (2, 20_000));
        assert!(
            matches!(piece(&s, version, 2).await, Err(StoreError::Stale { .. })),
            "sealed"
        );
        let other = s
            .commit_upload(&CONT, "other", version, (20_000, 2), 1)
            .await;
        assert!(
            matches!(other, Err(StoreError::Stale { .. })),
            "another name's upload"
        );
        s.commit_upload(&CONT, "big", version, (20_000, 2), 1)
            .await
            .unwrap();
        let again = s.commit_upload(&CONT, "big", version, (20_000, 2), 1).await;
        assert!(
            matches!(again, Err(StoreError::Stale { .. })),
            "committed already"
        );
        assert_eq!(s.stat(&CONT, "big").unwrap().version, version);
        assert!(
            s.reclaims(9).is_empty(),
            "the old one was on this target only"
        );
        put(&s, "big", b"new").await.unwrap();
        assert_eq!(s.reclaims(9).len(), 1, "pieces may be on other targets");
        let old = s.get_piece(&CONT, "big", (version, 1), (0, 10)).await;
        assert!(
            old.is_ok(),
            "a reader that is at it goes on until the reclaim"
        );
        reclaim_all(&s).await;
        let old = s.get_piece(&CONT, "big", (version, 1), (0, 10)).await;
        assert!(matches!(old, Err(StoreError::Stale { .. })));
        s.remove(&CONT, "big").await.unwrap();
    });
    assert_eq!(store.space(), empty);
}

#[test]
fn aborted_and_abandoned_uploads_leave_nothing() {
    let (sim, store) = fresh(1024, 4096, 1);
    let empty = store.space();
    let s = store.clone();
    sim.run(async move {
        for _ in 0..2 {
            let version = s.begin(&CONT, "big", 1).await.unwrap();
            s.open_version(&CONT, version).unwrap();
            piece(&s, version, 0).await.unwrap();
        }
        let version = s.begin(&CONT, "big", 1).await.unwrap();
        s.open_version(&CONT, version).unwrap();
        piece(&s, version, 0).await.unwrap();
        s.abort_upload(&CONT, "big", version).await.unwrap();
        let again = s.abort_upload(&CONT, "big", version).await;
        assert!(matches!(again, Err(StoreError::Stale { .. })));
        reclaim_all(&s).await;
        assert!(matches!(
            piece(&s, version, 1).await,
            Err(StoreError::Stale { .. })
        ));
        s.close().await;
    });
    let dev = sim.dev.clone();
    drop((sim, store));
    let (sim, store, report) = open(&dev).unwrap();
    assert_eq!(report.reclaims, 2, "the two that a restart ended");
    let s = store.clone();
    sim.run(async move { reclaim_all(&s).await });
    assert_eq!(store.space(), empty);
}

#[test]
fn a_piece_that_races_with_the_drop_of_its_version_is_gone() {
    for seed in 0..40 {
        let (sim, store) = fresh(1024, 4096, seed);
        let empty = store.space();
        let s = store.clone();
        let version = sim.run(async move {
            let version = s.begin(&CONT, "big", 1).await.unwrap();
            s.open_version(&CONT, version).unwrap();
            version
        });
        let late = std::rc::Rc::new(std::cell::RefCell::new(None));
        let (s, out) = (store.clone(), late.clone());
        sim.spawn(async move {
            let result = piece(&s, version, 0).await;
            *out.borrow_mut() = Some(result);
        });
        let (s, seen) = (store.clone(), late.clone());
        sim.run(async move {
            s.abort_upload(&CONT, "big", version).await.unwrap();
            reclaim_all(&s).await;
            put(&s, "beat", b"").await.unwrap();
            while seen.borrow().is_none() {
                put(&s, "beat", b"").await.unwrap();
            }
            s.remove(&CONT, "beat").await.unwrap();
        });
        assert_eq!(store.space(), empty, "seed {seed}");
    }
}

#[test]
fn versions_are_never_used_twice() {
    let (sim, store) = fresh(1024, 4096, 1);
    let dev = sim.dev.clone();
    let s = store.clone();
    let first = sim.run(async move {
        let version = s.begin(&CONT, "a", 1).await.unwrap();
        s.abort_upload(&CONT, "a", version).await.unwrap();
        reclaim_all(&s).await;
        s.close().await;
        version
    });
    drop((sim, store));
    let (sim, store, _) = open(&dev).unwrap();
    let second = sim.run(async move { store.begin(&CONT, "a", 1).await.unwrap() });
    assert!(second > first);
    assert_eq!(second >> 48, 1, "the target that gave it out");
}
