//! Full devices, full pools, full logs; and everything given back.

use obj_store::{ContainerInfo, NoSpace, PoolInfo, StoreError, UNIT};
use uuid::Uuid;

use crate::sim::{CONT, POOL, Sim, SimDev, add_container, format, format_options, fresh, open};
use crate::workload::{bytes, get, names, put, reclaim_all};

fn pool(uuid: u128, label: &str, quota: u64) -> PoolInfo {
    PoolInfo {
        uuid: Uuid::from_u128(uuid),
        label: label.into(),
        quota,
        used: 0,
        created: 1,
    }
}

fn cont(uuid: u128, pool: Uuid, label: &str) -> ContainerInfo {
    ContainerInfo {
        uuid: Uuid::from_u128(uuid),
        pool,
        label: label.into(),
        created: 1,
    }
}

#[test]
fn a_full_pool_refuses_puts_reads_on_and_recovers() {
    let (sim, store) = fresh(1024, 4096, 1);
    let empty = store.space();
    let s = store.clone();
    sim.run(async move {
        let mut n = 0;
        let error = loop {
            match put(&s, &format!("o{n}"), &bytes(n, 100_000)).await {
                Ok(()) => n += 1,
                Err(error) => break error,
            }
        };
        assert!(
            matches!(error, StoreError::NoSpace(NoSpace::Quota { .. })),
            "{error}"
        );
        for i in 0..n {
            assert!(get(&s, &format!("o{i}")).await.unwrap() == bytes(i, 100_000));
        }
        let replaced = put(&s, "o0", &bytes(99, 100_000)).await;
        assert!(
            matches!(replaced, Err(StoreError::NoSpace(_))),
            "needs room for both"
        );
        assert!(get(&s, "o0").await.unwrap() == bytes(0, 100_000));
        s.remove(&CONT, "o1").await.unwrap();
        put(&s, "o0", &bytes(99, 100_000)).await.unwrap();
        assert!(get(&s, "o0").await.unwrap() == bytes(99, 100_000));
        for name in names(&s) {
            s.remove(&CONT, &name).await.unwrap();
        }
    });
    assert_eq!(store.space(), empty);
}

#[test]
fn pools_are_promised_their_size() {
    let dev = SimDev::new(1024, 4096, 1);
    format(&dev, format_options()).unwrap();
    let (sim, store, _) = open(&dev).unwrap();
    let total = store.space().total;
    let s = store.clone();
    sim.run(async move {
        s.create_pool(&pool(1, "a", total / 2)).await.unwrap();
        s.create_pool(&pool(1, "a", total / 2)).await.unwrap();
        let other = s.create_pool(&pool(2, "a", 4096)).await;
        assert!(matches!(other, Err(StoreError::Exists { .. })));
        let more = s.create_pool(&pool(2, "b", total / 2 + 1)).await;
        assert!(matches!(
            more,
            Err(StoreError::NoSpace(NoSpace::Promised { .. }))
        ));
        s.create_pool(&pool(2, "b", total - total / 2))
            .await
            .unwrap();
        assert_eq!(s.space().unpromised, 0);
        s.create_container(&cont(7, Uuid::from_u128(1), "c"))
            .await
            .unwrap();
        s.create_container(&cont(8, Uuid::from_u128(2), "c"))
            .await
            .unwrap();
        let twice = s.create_container(&cont(9, Uuid::from_u128(2), "c")).await;
        assert!(matches!(twice, Err(StoreError::Exists { .. })));
        let nowhere = s.create_container(&cont(9, Uuid::from_u128(3), "c")).await;
        assert!(matches!(nowhere, Err(StoreError::NoPool(_))));
        s.destroy_pool(&Uuid::from_u128(1)).await.unwrap();
        assert_eq!(s.containers(None).len(), 1);
        assert_eq!(s.space().unpromised, total / 2);
    });
}

#[test]
fn labels_change_and_nothing_else_does() {
    let dev = SimDev::new(1024, 4096, 1);
    format(&dev, format_options()).unwrap();
    let (sim, store, _) = open(&dev).unwrap();
    let s = store.clone();
    let before = sim.run(async move {
        add_container(&s).await;
        put(&s, "kept", &bytes(1, 20_000)).await.unwrap();
        let before = s.space();
        for label in ["a much longer label than it had", "short"] {
            s.relabel_pool(&POOL, label).await.unwrap();
            s.relabel_container(&CONT, label).await.unwrap();
        }
        let nobody = s.relabel_pool(&Uuid::from_u128(99), "x").await;
        assert!(matches!(nobody, Err(StoreError::NoPool(_))));
        let nobody = s.relabel_container(&Uuid::from_u128(99), "x").await;
        assert!(matches!(nobody, Err(StoreError::NoContainer(_))));
        s.close().await;
        before
    });
    let (sim, store, _) = open(&dev).unwrap();
    let s = store.clone();
    sim.run(async move {
        assert_eq!(s.pool(&POOL).unwrap().label, "short");
        assert_eq!(s.containers(Some(&POOL))[0].label, "short");
        assert!(get(&s, "kept").await.unwrap() == bytes(1, 20_000));
        let after = s.space();
        assert_eq!(
            (after.free, after.unpromised),
            (before.free, before.unpromised)
        );
    });
}

#[test]
fn destroying_gives_everything_back_even_while_it_is_read() {
    let (sim, store) = fresh(2048, 4096, 1);
    let empty = store.space();
    let s = store.clone();
    sim.run(async move {
        for i in 0..40 {
            put(&s, &format!("o{i}"), &bytes(i, 20_000)).await.unwrap();
        }
        let used = s.pool(&POOL).unwrap().used;
        assert_eq!(used, 40 * 5 * UNIT as u64);
    });
    let reader = store.clone();
    sim.spawn(async move {
        assert!(get(&reader, "o7").await.unwrap() == bytes(7, 20_000));
        reader.scrub_one(Default::default()).await;
    });
    let s = store.clone();
    sim.run(async move {
        s.destroy_container(&CONT).await.unwrap();
        assert!(matches!(
            s.stat(&CONT, "o1"),
            Err(StoreError::NoContainer(_))
        ));
        assert!(matches!(
            put(&s, "x", b"y").await,
            Err(StoreError::NoContainer(_))
        ));
        s.create_container(&cont(5, POOL, "c")).await.unwrap();
        s.destroy_pool(&POOL).await.unwrap();
        add_container(&s).await;
        assert!(names(&s).is_empty());
        put(&s, "x", &bytes(1, 100)).await.unwrap();
        s.remove(&CONT, "x").await.unwrap();
    });
    assert_eq!(store.space(), empty);
}

/// A reader that is at it when its object is replaced reads the old bytes, never another object's.
#[test]
fn blocks_under_a_reader_are_not_given_to_others() {
    for seed in 0..100u64 {
        let (sim, store) = fresh(640, 4096, seed);
        let s = store.clone();
        sim.run(async move { put(&s, "a", &bytes(0, 20_000)).await.unwrap() });
        let reader = store.clone();
        let done = std::rc::Rc::new(std::cell::Cell::new(false));
        let seen = done.clone();
        sim.spawn(async move {
            let data = get(&reader, "a").await.unwrap();
            assert!((0..9).any(|i| data == bytes(i, 20_000)), "mixed");
            seen.set(true);
        });
        let s = store.clone();
        sim.run(async move {
            for i in 1..9 {
                put(&s, "a", &bytes(i, 20_000)).await.unwrap();
            }
            while !done.get() {
                put(&s, "beat", b"x").await.unwrap();
            }
        });
    }
}

#[test]
fn a_full_log_refuses_new_names_and_lets_old_ones_go() {
    let (sim, store) = fresh(4096, 4096, 1);
    let s = store.clone();
    sim.run(async move {
        let name = |n: u64| format!("{n:04}{}", "x".repeat(2000));
        let mut n = 0;
        let error = loop {
            match put(&s, &name(n), b"").await {
                Ok(()) => n += 1,
                Err(error) => break error,
            }
        };
        assert!(
            matches!(error, StoreError::NoSpace(NoSpace::Metadata { .. })),
            "{error}"
        );
        let began = s.begin(&CONT, &name(9999), 1).await;
        assert!(matches!(
            began,
            Err(StoreError::NoSpace(NoSpace::Metadata { .. }))
        ));
        assert!(n >= 20, "{n}");
        // Replacing and removing go on for ever: the log is compacted again and again.
        for round in 0..20 {
            s.remove(&CONT, &name(round)).await.unwrap();
            put(&s, &name(round), b"").await.unwrap();
        }
        assert!(s.stats().checkpoints > 1);
        for i in 0..n {
            s.remove(&CONT, &name(i)).await.unwrap();
        }
        put(&s, &name(0), b"").await.unwrap();
    });
}

#[test]
fn the_log_wraps_many_times_under_many_writers() {
    let (sim, store) = fresh(4096, 4096, 8);
    let empty = store.space();
    let done = std::rc::Rc::new(std::cell::Cell::new(0));
    for who in 0..16u64 {
        let (store, done) = (store.clone(), done.clone());
        sim.spawn(async move {
            for i in 0..120u64 {
                let name = format!("{who}/{}", i % 3);
                put(&store, &name, &bytes(i, 3000)).await.unwrap();
                if i % 7 == 0 {
                    store.remove(&CONT, &name).await.unwrap();
                }
            }
            done.set(done.get() + 1);
        });
    }
    let s = store.clone();
    sim.run(async move {
        while done.get() < 16 {
            put(&s, "beat", b"x").await.unwrap();
        }
        let stats = s.stats();
        assert!(stats.checkpoints >= 8, "{stats:?}");
        assert!(stats.frames * 2 < stats.commits, "group commit: {stats:?}");
        assert!(stats.flushes < stats.commits, "shared flushes: {stats:?}");
        for name in names(&s) {
            s.remove(&CONT, &name).await.unwrap();
        }
        reclaim_all(&s).await;
        s.close().await;
    });
    assert_eq!(store.space(), empty);
    let dev = sim.dev.clone();
    drop((sim, store));
    let (_, store, _) = open(&dev).unwrap();
    assert_eq!(store.space(), empty);
}

#[test]
fn fragments_and_small_devices_requests_are_put_together() {
    let dev = SimDev::limit_io(4, 1024, 4096, 1);
    format(&dev, format_options()).unwrap();
    let (sim, store, _) = open(&dev).unwrap();
    sim.run(async move {
        add_container(&store).await;
        let mut n = 0;
        while put(&store, &format!("o{n}"), &bytes(n, 12_000))
            .await
            .is_ok()
        {
            n += 1;
        }
        for i in (0..n).step_by(2) {
            store.remove(&CONT, &format!("o{i}")).await.unwrap();
        }
        let data = bytes(1, 150_000);
        put(&store, "pieces", &data).await.unwrap();
        assert!(get(&store, "pieces").await.unwrap() == data);
        let version = store.stat(&CONT, "pieces").unwrap().version;
        let part = store
            .get_piece(&CONT, "pieces", (version, 0), (70_000, 5_000))
            .await
            .unwrap();
        let at = 70_000 - part.offset as usize;
        assert!(part.buf[at..at + 5000] == data[70_000..75_000]);
    });
}

#[test]
fn a_wrong_checksum_or_size_is_refused_before_anything_is_written() {
    let (sim, store) = fresh(1024, 4096, 1);
    let _: &Sim = &sim;
    sim.run(async move {
        let mut bad = crate::workload::payload(&bytes(1, 40_000));
        bad.csums[1] ^= 1;
        let failed = store.put(&CONT, "a", bad, 1).await;
        assert!(
            matches!(failed, Err(StoreError::CsumOnWrite { chunk: 1 })),
            "{failed:?}"
        );
        let mut bad = crate::workload::payload(&bytes(1, 40_000));
        bad.csums.pop();
        assert!(matches!(
            store.put(&CONT, "a", bad, 1).await,
            Err(StoreError::Invalid { .. })
        ));
        let big = crate::workload::payload(&vec![0; (1 << 20) + 1]);
        assert!(matches!(
            store.put(&CONT, "a", big, 1).await,
            Err(StoreError::Invalid { .. })
        ));
        for name in [String::new(), "x".repeat(4097)] {
            let failed = put(&store, &name, b"x").await;
            assert!(matches!(failed, Err(StoreError::Invalid { .. })));
        }
        put(&store, &"x".repeat(4096), b"x").await.unwrap();
    });
}
