//! kill -9 under write load, again and again: what was acknowledged is there, byte for byte; what was not is old or new, whole.
//!
//! The seed of a run is in its failure; `KEEL_CRASH_SEED` repeats its choices, `KEEL_CRASH_ROUNDS` their number. The
//! moment of each kill is the machine's, not the seed's.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::time::Duration;

use harness::{Config, Kind};
use obj_load::{Load, Options};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// In each round the kill comes this long after the first acknowledgement, at most.
const LOAD_MS: u64 = 120;
/// Bytes of the pool.
const POOL: u64 = 256 << 20;

fn from_env(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
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
    let mut load = Load::new(rng.random(), Options::default());
    let mut starts_killed = 0;
    for round in 0..rounds {
        if round > 0 && rng.random_ratio(1, 5) {
            // Recovery is killed, too, wherever it is.
            let engine = config.spawn();
            std::thread::sleep(Duration::from_millis(rng.random_range(0..80)));
            engine.kill();
            starts_killed += 1;
        }
        let engine = config.start();
        let address = engine.rpc_address();
        if round == 0 {
            load.prepare(&address, POOL).unwrap();
        }
        load.verify(&address).unwrap();
        let wait = Duration::from_millis(rng.random_range(0..LOAD_MS));
        load.until_end(&address, |_| {
            std::thread::sleep(wait);
            engine.kill()
        });
    }
    let engine = config.start();
    load.verify(&engine.rpc_address()).unwrap();
    let tally = load.tally;
    #[expect(clippy::print_stdout, reason = "what the run was worth")]
    {
        println!(
            "{rounds} kills, {starts_killed} during start: {} requests acknowledged, {} unanswered, of which {} had taken effect",
            tally.acknowledged, tally.unanswered, tally.took_effect
        );
    }
    assert!(tally.acknowledged >= rounds && tally.unanswered > 0);
    load.remove_all(&engine.rpc_address()).unwrap();
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn nothing_acknowledged_is_lost_when_the_engine_is_stopped_under_load() {
    let mut config = Config::new(2, Kind::File);
    config.size = 160 << 20;
    let mut load = Load::new(1, Options::default());
    for round in 0..4 {
        let engine = config.start();
        let address = engine.rpc_address();
        if round == 0 {
            load.prepare(&address, POOL).unwrap();
        }
        load.verify(&address).unwrap();
        let wait = Duration::from_millis(round * 30);
        load.until_end(&address, |_| {
            std::thread::sleep(wait);
            engine.terminate().expect(0, "stopped");
        });
    }
    let engine = config.start();
    load.verify(&engine.rpc_address()).unwrap();
    load.remove_all(&engine.rpc_address()).unwrap();
    assert_eq!(engine.terminate().code, Some(0));
}
