//! kill -9 under write load, again and again: what was acknowledged is there, byte for byte; what was not is old or new, whole.
//!
//! The seed of a run is in its failure; `KEEL_CRASH_SEED` repeats its choices, `KEEL_CRASH_ROUNDS` their number. The
//! moment of each kill is the machine's, not the seed's.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::io::Cursor;
use std::sync::mpsc;
use std::time::Duration;

use daos_errno::Der;
use harness::{Config, Engine, Kind, bytes, eventually};
use obj_client::{Container, GetOptions, ObjError, PutOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const WORKERS: usize = 4;
const NAMES: usize = 8;
/// In each round the kill comes this long after the first acknowledgement, at most.
const LOAD_MS: u64 = 120;

/// Seed and length of an object's bytes; `None`: there is no such object.
type Content = Option<(u64, usize)>;

/// What is known about one name.
struct Slot {
    name: String,
    acknowledged: Content,
    /// What a request without an answer would have made of it.
    unanswered: Option<Content>,
}

/// What all rounds came to.
#[derive(Default)]
struct Tally {
    acknowledged: u64,
    unanswered: u64,
    took_effect: u64,
    starts_killed: u64,
}

fn from_env(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

fn size(rng: &mut SmallRng) -> usize {
    match rng.random_range(0..10) {
        0 => 0,
        1..5 => rng.random_range(1..64 << 10),
        5..8 => rng.random_range(64 << 10..=1 << 20),
        _ => rng.random_range((1 << 20) + 1..=(3 << 20) + 17),
    }
}

fn slots() -> Vec<Vec<Slot>> {
    let slot = |worker, nr| Slot {
        name: format!("worker {worker}/object {nr}"),
        acknowledged: None,
        unanswered: None,
    };
    let of_worker = |worker| (0..NAMES).map(|nr| slot(worker, nr)).collect();
    (0..WORKERS).map(of_worker).collect()
}

/// The engine is gone, or says that it goes.
fn is_end(error: &ObjError) -> bool {
    matches!(error, ObjError::Transport(_)) || error.der() == Der::SHUTDOWN
}

/// Puts, replaces and removes until the engine is gone. Says after the first acknowledgement that it works.
fn work(
    address: &str,
    seed: u64,
    slots: &mut [Slot],
    works: &mpsc::Sender<()>,
) -> Result<u64, ObjError> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let found = obj_client::Engine::connect(address)
        .and_then(|engine| engine.pool("pool")?.container("cont"));
    let cont = match found {
        Ok(cont) => cont,
        Err(error) if is_end(&error) => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut acknowledged = 0;
    loop {
        let slot = &mut slots[rng.random_range(0..NAMES)];
        let remove = slot.acknowledged.is_some() && rng.random_ratio(1, 4);
        let new = (!remove).then(|| (rng.random(), size(&mut rng)));
        slot.unanswered = Some(new);
        let result = match new {
            None => cont.remove(&slot.name).map(drop),
            Some((seed, len)) => {
                let mut source = Cursor::new(bytes(seed, len));
                cont.put(&slot.name, &mut source, PutOptions::default())
                    .map(drop)
            }
        };
        match result {
            Ok(()) => {
                slot.acknowledged = new;
                slot.unanswered = None;
                acknowledged += 1;
                let _ = works.send(());
            }
            Err(error) if is_end(&error) => return Ok(acknowledged),
            Err(error) => return Err(error),
        }
    }
}

fn content(cont: &Container, slot: &Slot) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    match cont.get(&slot.name, &mut data, GetOptions::default()) {
        Ok(info) => {
            assert_eq!(info.size, data.len() as u64, "{}", slot.name);
            Some(data)
        }
        Err(error) if error.der() == Der::NONEXIST => None,
        Err(error) => panic!("get of `{}`: {error}", slot.name),
    }
}

/// Compares everything with what is known, and learns what became of the unanswered.
fn verify(engine: &Engine, workers: &mut [Vec<Slot>], tally: &mut Tally) {
    let cont = engine.connect().pool("pool").unwrap();
    let cont = cont.container("cont").unwrap();
    for slot in workers.iter_mut().flatten() {
        let found = content(&cont, slot);
        let is = |wanted: Content| found == wanted.map(|(seed, len)| bytes(seed, len));
        if let Some(new) = slot.unanswered.take() {
            tally.unanswered += 1;
            if is(new) {
                slot.acknowledged = new;
                tally.took_effect += 1;
            }
        }
        assert!(
            is(slot.acknowledged),
            "`{}` has {:?} bytes that are neither what was acknowledged ({:?}) nor what was asked for last",
            slot.name,
            found.map(|data| data.len()),
            slot.acknowledged,
        );
    }
}

/// Load on a running engine, and in the middle of it its end.
fn end_under_load(
    engine: Engine,
    end: impl FnOnce(Engine),
    rng: &mut SmallRng,
    workers: &mut [Vec<Slot>],
    tally: &mut Tally,
) {
    let address = engine.rpc_address();
    let wait = Duration::from_millis(rng.random_range(0..LOAD_MS));
    let seeds: Vec<u64> = workers.iter().map(|_| rng.random()).collect();
    let (sender, works) = mpsc::channel();
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter_mut()
            .zip(seeds)
            .map(|(slots, seed)| {
                let (address, sender) = (address.clone(), sender.clone());
                scope.spawn(move || work(&address, seed, slots, &sender))
            })
            .collect();
        works.recv_timeout(harness::PATIENCE).expect("a worker");
        std::thread::sleep(wait);
        end(engine);
        for thread in threads {
            tally.acknowledged += thread.join().expect("a worker").expect("no other error");
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_the_engine_is_killed() {
    let seed = from_env("KEEL_CRASH_SEED", rand::random());
    let rounds = from_env("KEEL_CRASH_ROUNDS", 50);
    let ran = std::panic::catch_unwind(|| run(seed, rounds));
    if let Err(panic) = ran {
        #[expect(clippy::print_stderr, reason = "to repeat it")]
        {
            eprintln!("seed: KEEL_CRASH_SEED={seed}");
        }
        std::panic::resume_unwind(panic);
    }
}

fn run(seed: u64, rounds: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut config = Config::new(2, Kind::File);
    config.size = 160 << 20;
    let (mut workers, mut tally) = (slots(), Tally::default());
    for round in 0..rounds {
        if round > 0 && rng.random_ratio(1, 5) {
            // Recovery is killed, too, wherever it is.
            let engine = config.spawn();
            std::thread::sleep(Duration::from_millis(rng.random_range(0..80)));
            engine.kill();
            tally.starts_killed += 1;
        }
        let engine = config.start();
        if round == 0 {
            let pool = engine.connect().create_pool("pool", 256 << 20).unwrap();
            pool.create_container("cont").unwrap();
        }
        verify(&engine, &mut workers, &mut tally);
        end_under_load(
            engine,
            |engine| drop(engine.kill()),
            &mut rng,
            &mut workers,
            &mut tally,
        );
    }
    let engine = config.start();
    verify(&engine, &mut workers, &mut tally);
    #[expect(clippy::print_stdout, reason = "what the run was worth")]
    {
        println!(
            "{rounds} kills, {} during start: {} requests acknowledged, {} unanswered, of which {} had taken effect",
            tally.starts_killed, tally.acknowledged, tally.unanswered, tally.took_effect
        );
    }
    assert!(tally.acknowledged >= rounds && tally.unanswered > 0);
    all_space_comes_back(&engine, &workers);
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn nothing_acknowledged_is_lost_when_the_engine_is_stopped_under_load() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut config = Config::new(2, Kind::File);
    config.size = 160 << 20;
    let (mut workers, mut tally) = (slots(), Tally::default());
    for round in 0..4 {
        let engine = config.start();
        if round == 0 {
            let pool = engine.connect().create_pool("pool", 256 << 20).unwrap();
            pool.create_container("cont").unwrap();
        }
        verify(&engine, &mut workers, &mut tally);
        let stop = |engine: Engine| engine.terminate().expect(0, "stopped");
        end_under_load(engine, stop, &mut rng, &mut workers, &mut tally);
    }
    let engine = config.start();
    verify(&engine, &mut workers, &mut tally);
    all_space_comes_back(&engine, &workers);
    assert_eq!(engine.terminate().code, Some(0));
}

/// Half-done uploads of killed engines must not hold space for ever.
fn all_space_comes_back(engine: &Engine, workers: &[Vec<Slot>]) {
    let pool = engine.connect().pool("pool").unwrap();
    let cont = pool.container("cont").unwrap();
    let left = |slot: &&Slot| slot.acknowledged.is_some();
    for slot in workers.iter().flatten().filter(left) {
        cont.remove(&slot.name).unwrap();
    }
    assert_eq!(cont.list("").count(), 0);
    eventually("all space is free again", || {
        (pool.status().unwrap().pool.used == 0).then_some(())
    });
}
