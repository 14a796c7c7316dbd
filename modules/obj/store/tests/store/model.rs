//! Random operations on the store and on a `BTreeMap`, with reopening in between.

use std::collections::BTreeMap;

use obj_store::{Store, StoreError};
use proptest::prelude::*;

use crate::sim::{CONT, Sim, SimDev, fresh, open};
use crate::workload::{bytes, get, names, put, reclaim_all, units};

#[derive(Debug, Clone)]
enum Step {
    Put(u8, usize),
    Remove(u8),
    Get(u8),
    GetRange(u8, f64, f64),
    List,
    Upload(u8, Vec<usize>, bool),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0u8..12;
    let size = prop_oneof![Just(0usize), 1usize..9000, Just(4096), 30_000usize..70_000];
    prop_oneof![
        6 => (name.clone(), size).prop_map(|(n, s)| Step::Put(n, s)),
        3 => name.clone().prop_map(Step::Remove),
        3 => name.clone().prop_map(Step::Get),
        2 => (name.clone(), 0.0..1.0, 0.0..1.0).prop_map(|(n, a, b)| Step::GetRange(n, a, b)),
        1 => Just(Step::List),
        2 => (name, prop::collection::vec(1usize..20_000, 1..5), any::<bool>())
            .prop_map(|(n, p, c)| Step::Upload(n, p, c)),
        1 => Just(Step::Reopen),
    ]
}

fn name_of(n: u8) -> String {
    match n {
        0 => "é".repeat(2000),
        n => format!("dir-{}/{n}", n % 3),
    }
}

/// Content per name; an upload keeps its pieces apart, as only the sum of them is a whole multiple of a piece in life.
type Model = BTreeMap<String, Vec<Vec<u8>>>;

async fn upload(store: &Store<SimDev>, name: &str, pieces: &[Vec<u8>], commit: bool) {
    let version = store.begin(&CONT, name, 3).await.unwrap();
    store.open_version(&CONT, version).unwrap();
    for (i, data) in pieces.iter().enumerate() {
        let payload = crate::workload::payload(data);
        store
            .put_piece(&CONT, name, version, i as u32, payload)
            .await
            .unwrap();
    }
    let total: usize = pieces.iter().map(Vec::len).sum();
    let sealed = store.seal_version(&CONT, version).unwrap();
    assert_eq!(sealed, (pieces.len() as u32, total as u64));
    if commit {
        let shape = (total as u64, pieces.len() as u32);
        store
            .commit_upload(&CONT, name, version, shape, 4)
            .await
            .unwrap();
    } else {
        store.abort_upload(&CONT, name, version).await.unwrap();
    }
}

async fn check_object(store: &Store<SimDev>, name: &str, model: &Model) {
    let Some(pieces) = model.get(name) else {
        let missing = store.stat(&CONT, name);
        assert!(
            matches!(missing, Err(StoreError::NoObject { .. })),
            "{missing:?}"
        );
        return;
    };
    let info = store.stat(&CONT, name).unwrap();
    assert_eq!(info.size, pieces.iter().map(Vec::len).sum::<usize>() as u64);
    for (i, data) in pieces.iter().enumerate().filter(|(_, d)| !d.is_empty()) {
        let range = (0, data.len() as u32);
        let got = store
            .get_piece(&CONT, name, (info.version, i as u32), range)
            .await
            .unwrap();
        assert!(got.buf[..got.len] == data[..], "{name} piece {i}");
    }
}

async fn apply(store: Store<SimDev>, mut model: Model, step: Step, seed: u64) -> Model {
    match step {
        Step::Put(n, size) => {
            let data = bytes(seed, size);
            put(&store, &name_of(n), &data).await.unwrap();
            model.insert(name_of(n), vec![data]);
        }
        Step::Remove(n) => {
            let gone = store.remove(&CONT, &name_of(n)).await;
            assert_eq!(gone.is_ok(), model.remove(&name_of(n)).is_some());
        }
        Step::Get(n) => check_object(&store, &name_of(n), &model).await,
        Step::GetRange(n, a, b) => {
            if let Some([data]) = model.get(&name_of(n)).map(Vec::as_slice)
                && !data.is_empty()
            {
                let from = (a * data.len() as f64) as usize;
                let len = 1 + (b * (data.len() - from - 1) as f64) as usize;
                let version = store.stat(&CONT, &name_of(n)).unwrap().version;
                let range = (from as u32, len as u32);
                let got = store
                    .get_piece(&CONT, "", (version, 0), range)
                    .await
                    .unwrap();
                let start = from - got.offset as usize;
                assert!(got.buf[..got.len][start..start + len] == data[from..from + len]);
            }
        }
        Step::List => {
            assert_eq!(names(&store), model.keys().cloned().collect::<Vec<_>>());
            let dir: Vec<_> = model
                .keys()
                .filter(|n| n.starts_with("dir-1"))
                .cloned()
                .collect();
            let page = store.list(&CONT, "", "dir-1", 0).unwrap();
            assert_eq!(
                page.objects.into_iter().map(|o| o.name).collect::<Vec<_>>(),
                dir
            );
        }
        Step::Upload(n, sizes, commit) => {
            let pieces: Vec<_> = sizes
                .iter()
                .enumerate()
                .map(|(i, s)| bytes(seed + i as u64, *s))
                .collect();
            upload(&store, &name_of(n), &pieces, commit).await;
            if commit {
                model.insert(name_of(n), pieces);
            }
        }
        Step::Reopen => {}
    }
    reclaim_all(&store).await;
    model
}

fn reopen(sim: Sim, store: Store<SimDev>) -> (Sim, Store<SimDev>) {
    let dev = sim.dev.clone();
    let meta = store.space();
    let s = store.clone();
    sim.run(async move { s.close().await });
    drop((sim, store));
    let (sim, store, _) = open(&dev).unwrap();
    assert_eq!(
        store.space(),
        meta,
        "what is counted as it goes is what a replay counts"
    );
    (sim, store)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map(steps in prop::collection::vec(step(), 1..80), seed in any::<u64>(), small in any::<bool>()) {
        let (mut sim, mut store) = fresh(1024, if small { 512 } else { 4096 }, seed);
        let empty = store.space();
        let mut model = Model::new();
        for (i, step) in steps.into_iter().enumerate() {
            if matches!(step, Step::Reopen) {
                (sim, store) = reopen(sim, store);
            }
            model = sim.run(apply(store.clone(), model, step, seed ^ (i as u64) << 8));
            let live = units(model.values().flatten().map(Vec::len)) * 4096;
            prop_assert_eq!(store.space().free, empty.free - live);
        }
        let (sim, store) = reopen(sim, store);
        let (s, m) = (store.clone(), model.clone());
        sim.run(async move {
            for n in 0..12 {
                check_object(&s, &name_of(n), &m).await;
            }
            for name in m.keys() {
                s.remove(&CONT, name).await.unwrap();
            }
            reclaim_all(&s).await;
        });
        prop_assert_eq!(store.space(), empty);
    }
}

#[test]
fn get_reads_what_put_wrote() {
    let (sim, store) = fresh(1024, 4096, 1);
    let data = bytes(1, 1 << 20);
    sim.run(async move {
        put(&store, "a", &data).await.unwrap();
        assert!(get(&store, "a").await.unwrap() == data);
        put(&store, "a", b"").await.unwrap();
        assert_eq!(get(&store, "a").await.unwrap(), b"");
    });
}
