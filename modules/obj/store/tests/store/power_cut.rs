//! Power cuts: concurrent work is cut at any completed request, the medium takes any legal state, and what was
//! acknowledged must be there, whole; what was not may be there, whole, or not at all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use obj_store::{FormatOptions, OpenOptions, Store, StoreError, probe};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use crate::sim::{
    Block, CONT, Medium, Sim, SimDev, add_container, format, format_options, fresh, open, open_with,
};
use crate::workload::{bytes, get, names, payload, put, reclaim_all, units};

type Content = Rc<Vec<u8>>;

/// What each name may hold: the acknowledged content, and what is being done to it.
#[derive(Clone, Default)]
struct Ledger {
    sure: BTreeMap<String, Content>,
    maybe: BTreeMap<String, Option<Content>>,
}

/// One writer of its own names.
async fn writer(
    store: Store<SimDev>,
    ledger: Rc<RefCell<Ledger>>,
    who: u64,
    seed: u64,
    steps: u32,
) {
    let mut rng = StdRng::seed_from_u64(seed ^ who);
    for step in 0..steps {
        let name = format!("w{who}/{}", rng.random_range(0..4u32));
        let fresh = seed ^ who << 40 ^ u64::from(step) << 8;
        let have = ledger.borrow().sure.contains_key(&name);
        let kind = rng.random_range(0..10);
        let content = match kind {
            0..=2 if have => None,
            3 => Some(Rc::new(Vec::new())),
            _ => Some(Rc::new(bytes(fresh, rng.random_range(1..30_000)))),
        };
        ledger
            .borrow_mut()
            .maybe
            .insert(name.clone(), content.clone());
        match &content {
            None => store.remove(&CONT, &name).await.unwrap(),
            Some(data) if kind >= 8 && data.len() > 2 => upload(&store, &name, data).await,
            Some(data) => put(&store, &name, data).await.unwrap(),
        }
        let mut ledger = ledger.borrow_mut();
        ledger.maybe.remove(&name);
        match content {
            None => ledger.sure.remove(&name),
            Some(data) => ledger.sure.insert(name, data),
        };
    }
}

/// An object in two pieces of half its size.
async fn upload(store: &Store<SimDev>, name: &str, data: &[u8]) {
    let version = store.begin(&CONT, name, 1).await.unwrap();
    store.open_version(&CONT, version).unwrap();
    let (a, b) = data.split_at(data.len() / 2);
    for (i, part) in [a, b].into_iter().enumerate() {
        store
            .put_piece(&CONT, name, version, i as u32, payload(part))
            .await
            .unwrap();
    }
    store.seal_version(&CONT, version).unwrap();
    let shape = (data.len() as u64, 2);
    store
        .commit_upload(&CONT, name, version, shape, 1)
        .await
        .unwrap();
}

async fn read(store: &Store<SimDev>, name: &str) -> Vec<u8> {
    let info = store.stat(&CONT, name).unwrap();
    if info.pieces < 2 {
        return get(store, name).await.unwrap();
    }
    let half = info.size / 2;
    let mut data = Vec::new();
    for (piece, len) in [(0, half), (1, info.size - half)] {
        let part = store
            .get_piece(&CONT, name, (info.version, piece), (0, len as u32))
            .await;
        let part = part.unwrap();
        data.extend_from_slice(&part.buf[..part.len]);
    }
    data
}

/// Opens what a cut left, and compares. Then goes on working on it, to see that the store is fit for use.
fn check(blocks: Vec<Block>, block_size: u32, ledger: &Ledger, seed: u64) {
    let dev = SimDev::with(blocks, block_size, seed);
    let (sim, store, _) = open(&dev).unwrap();
    let (s, ledger) = (store.clone(), ledger.clone());
    sim.run(async move {
        reclaim_all(&s).await;
        let mut live = Vec::new();
        let mut wanted: BTreeSet<String> = ledger.sure.keys().cloned().collect();
        wanted.extend(names(&s));
        for name in wanted {
            let sure = ledger.sure.get(&name).cloned();
            let maybe = ledger.maybe.get(&name).cloned();
            let found = match s.stat(&CONT, &name) {
                Ok(_) => Some(Rc::new(read(&s, &name).await)),
                Err(StoreError::NoObject { .. }) => None,
                Err(other) => panic!("{other}"),
            };
            if let Some(data) = &found {
                let spread = s.stat(&CONT, &name).unwrap().pieces == 2;
                let cut = if spread { data.len() / 2 } else { 0 };
                live.extend([cut, data.len() - cut]);
            }
            let legal = found == sure || maybe.is_some_and(|m| m == found);
            assert!(
                legal,
                "'{name}' is neither what was acknowledged nor what was under way"
            );
        }
        let space = s.space();
        let used = units(live) * obj_store::UNIT as u64;
        assert_eq!(
            space.total - space.free,
            used,
            "space of what is not there is not free"
        );
        put(&s, "after", &bytes(1, 5000)).await.unwrap();
        assert!(get(&s, "after").await.unwrap() == bytes(1, 5000));
    });
}

/// Runs writers, and cuts the power `cuts` times in each of `every`-th steps.
fn run(seed: u64, block_size: u32, log_half: u64, writers: u64, steps: u32, every: u64, cuts: u32) {
    let dev = SimDev::new(1400, block_size, seed);
    let options = FormatOptions {
        log_half_bytes: Some(log_half),
        ..format_options()
    };
    format(&dev, options).unwrap();
    let (sim, store, _) = open(&dev).unwrap();
    let s = store.clone();
    sim.run(async move { add_container(&s).await });
    let ledger = Rc::new(RefCell::new(Ledger::default()));
    let frozen: Rc<RefCell<Vec<(Medium, Ledger)>>> = Rc::default();
    let (state, seen, taken) = (dev.clone(), ledger.clone(), frozen.clone());
    let mut step = seed % every;
    *sim.on_step.borrow_mut() = Some(Box::new(move || {
        step += 1;
        if step.is_multiple_of(every) {
            let medium = state.0.medium.borrow().clone();
            taken.borrow_mut().push((medium, seen.borrow().clone()));
        }
    }));
    let done = Rc::new(RefCell::new(0));
    for who in 0..writers {
        let (store, ledger, done) = (store.clone(), ledger.clone(), done.clone());
        sim.spawn(async move {
            writer(store, ledger, who, seed, steps).await;
            *done.borrow_mut() += 1;
        });
    }
    let (s, all) = (store.clone(), writers);
    sim.run(async move {
        while *done.borrow() < all {
            reclaim_all(&s).await;
            // A read is as good as any other way to let time pass.
            s.scrub_one(Default::default()).await;
            std::future::ready(()).await;
            yield_once().await;
        }
        s.close().await;
    });
    let mut rng = StdRng::seed_from_u64(seed);
    for (medium, ledger) in frozen.take() {
        for _ in 0..cuts {
            check(medium.cut(&mut rng), block_size, &ledger, seed);
        }
    }
    assert!(
        store.stats().checkpoints > 0 || log_half > 256 << 10,
        "no checkpoint was cut"
    );
    check(
        dev.0.medium.borrow().cut(&mut rng),
        block_size,
        &ledger.borrow(),
        seed,
    );
}

async fn yield_once() {
    let mut first = true;
    std::future::poll_fn(|cx| {
        if std::mem::take(&mut first) {
            cx.waker().wake_by_ref();
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(())
    })
    .await;
}

#[test]
fn whatever_was_acknowledged_survives_4k_blocks() {
    for seed in 0..12 {
        run(seed, 4096, 128 << 10, 4, 30, 7, 3);
    }
}

#[test]
fn whatever_was_acknowledged_survives_512_byte_blocks() {
    for seed in 100..106 {
        run(seed, 512, 128 << 10, 3, 25, 7, 3);
    }
}

#[test]
fn one_writer_cut_at_every_single_step() {
    run(777, 4096, 128 << 10, 1, 60, 1, 4);
}

/// Cut, opened, worked on, cut again, several times over: what one recovery leaves must not confuse the next.
#[test]
fn cuts_upon_cuts() {
    for seed in 0..20u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (sim, store) = fresh(1400, 4096, seed);
        let mut dev = sim.dev.clone();
        drop((sim, store));
        let mut sure: BTreeMap<String, Content> = BTreeMap::new();
        for round in 0..8u64 {
            let ledger = Ledger {
                sure: sure.clone(),
                maybe: BTreeMap::new(),
            };
            check(dev.contents(), 4096, &ledger, seed);
            let (sim, store, _) = open(&dev).unwrap();
            let ledger = Rc::new(RefCell::new(ledger));
            let work = writer(store.clone(), ledger.clone(), 1, seed ^ round << 20, 100);
            sim.spawn(work);
            // Stop in the middle of it.
            let steps = rng.random_range(1..400);
            let count = Rc::new(RefCell::new(0));
            let seen = count.clone();
            *sim.on_step.borrow_mut() = Some(Box::new(move || *seen.borrow_mut() += 1));
            let s = store.clone();
            sim.run(async move {
                while *count.borrow() < steps {
                    let cursor = Default::default();
                    s.scrub_one(cursor).await;
                    reclaim_all(&s).await;
                    yield_once().await;
                    if s.scrub_one(cursor).await.is_none() {
                        put(&s, "filler", b"x").await.unwrap();
                        s.remove(&CONT, "filler").await.unwrap();
                    }
                }
            });
            let blocks = dev.0.medium.borrow().cut(&mut rng);
            drop((sim, store));
            let ledger = ledger.borrow();
            dev = SimDev::with(blocks, 4096, seed ^ round);
            // The next round builds on what is there now.
            let (sim, store, _) = open(&dev).unwrap();
            sure = sim.run({
                let (ledger, store) = (ledger.clone(), store.clone());
                async move {
                    let mut sure = BTreeMap::new();
                    for name in names(&store).into_iter().filter(|n| n != "filler") {
                        sure.insert(name.clone(), Rc::new(read(&store, &name).await));
                    }
                    for (name, data) in &ledger.sure {
                        let kept = sure.get(name) == Some(data);
                        assert!(kept || ledger.maybe.contains_key(name), "'{name}' is lost");
                    }
                    store.close().await;
                    sure
                }
            });
        }
    }
}

/// Killed, not cut: what was not flushed is still in the device's cache, is replayed, and is built upon. A power cut
/// afterwards must not take away what the second process acknowledged.
#[test]
fn a_kill_and_then_a_cut() {
    for seed in 0..60u64 {
        let (sim, store) = fresh(1400, 4096, seed);
        let dev = sim.dev.clone();
        let ledger = Rc::new(RefCell::new(Ledger::default()));
        sim.spawn(writer(store.clone(), ledger.clone(), 1, seed, 100));
        let count = Rc::new(RefCell::new(0));
        let seen = count.clone();
        *sim.on_step.borrow_mut() = Some(Box::new(move || *seen.borrow_mut() += 1));
        let stop = seed * 3;
        sim.run(async move {
            while *count.borrow() < stop {
                yield_once().await;
            }
        });
        drop((sim, store));
        dev.kill();
        let (sim, store, _) = open(&dev).unwrap();
        let s = store.clone();
        // Without data there is no flush of data that would help out.
        sim.run(async move { put(&s, "second", b"").await.unwrap() });
        let mut ledger = ledger.take();
        ledger.sure.insert("second".into(), Rc::default());
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..4 {
            check(dev.0.medium.borrow().cut(&mut rng), 4096, &ledger, seed);
        }
    }
}

#[test]
fn an_interrupted_format_leaves_the_device_empty_or_as_it_was() {
    for seed in 0..30u64 {
        let old = seed % 2 == 0;
        let dev = SimDev::new(1400, 4096, seed);
        if old {
            format(&dev, format_options()).unwrap();
        }
        let sim = Sim::new(dev.clone());
        let frozen: Rc<RefCell<Vec<Medium>>> = Rc::default();
        let (state, taken) = (dev.clone(), frozen.clone());
        *sim.on_step.borrow_mut() = Some(Box::new(move || {
            taken.borrow_mut().push(state.0.medium.borrow().clone())
        }));
        let options = FormatOptions {
            store: Uuid::from_u128(2),
            force: old,
            ..format_options()
        };
        let d = dev.clone();
        sim.run(async move { Store::format(d, &options).await.unwrap() });
        let mut rng = StdRng::seed_from_u64(seed);
        for medium in frozen.take() {
            let cut = SimDev::with(medium.cut(&mut rng), 4096, seed);
            let d = cut.clone();
            match Sim::new(cut.clone()).run(async move { probe(d).await }) {
                Ok(None) => {}
                Ok(Some(_)) => {
                    open_with(&Sim::new(cut), OpenOptions::default()).unwrap();
                }
                // Part of the superblock area is zeroed already: it takes another forced format.
                Err(StoreError::Foreign { .. }) if old => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
}
