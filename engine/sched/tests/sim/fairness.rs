//! Shares: between pools, between clients and background work, and within background work.

use crate::model::{MS, Model, pool};
use crate::seeds;
use engine_sched::{Attr, Class, Medium, Options};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;

/// Keeps `depth` requests of each of these waiting for so many cycles and tells the weights kicked of each.
fn keep_busy(
    model: &mut Model,
    load: &[(u64, Class, usize)],
    cycles: usize,
    served: usize,
) -> Vec<u32> {
    let rows = load
        .iter()
        .enumerate()
        .map(|(at, row)| ((pool(row.0), row.1), at));
    let rows: HashMap<_, usize> = rows.collect();
    let attr = |&(number, class, _): &(u64, Class, usize)| Attr {
        slice: !class.is_io(),
        ..Attr::new(pool(number), class)
    };
    let mut weights = vec![0; load.len()];
    for row in load {
        for _ in 0..row.2 {
            model.enqueue(attr(row)).unwrap();
        }
    }
    for _ in 0..cycles {
        for (kicked, _) in model.cycle() {
            let at = rows[&(kicked.pool, kicked.class)];
            weights[at] += kicked.class.weight();
            model.enqueue(attr(&load[at])).unwrap();
        }
        model.finish(served);
        model.now += MS / 100;
    }
    weights
}

fn percent(of: &[u32], all: &[u32]) -> f64 {
    f64::from(of.iter().sum::<u32>()) * 100.0 / f64::from(all.iter().sum::<u32>())
}

#[test]
fn pools_that_wait_get_the_same_however_much_they_ask_for() {
    seeds(4, |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let pools = [2, 50, 1_000][rng.random_range(0..3)];
        let mut model = Model::new(Options {
            max_in_service: [64, 512][rng.random_range(0..2)],
            max_wait_ms: 1_000_000,
            ..Options::default()
        });
        let load: Vec<_> = (0..pools)
            .map(|number| {
                let class = if number % 2 == 0 {
                    Class::Update
                } else {
                    Class::Fetch
                };
                // The first asks for a hundred times as much.
                (number, class, if number == 0 { 9_000 } else { 90 })
            })
            .collect();
        let cycles = 200 + 8 * pools as usize;
        let weights = keep_busy(&mut model, &load, cycles, 32);
        let (least, most) = (
            *weights.iter().min().unwrap(),
            *weights.iter().max().unwrap(),
        );
        assert!(least > 0, "a pool got nothing");
        assert!(
            most - least <= 2 * 64 + 4,
            "from {least} to {most}: more than a quantum apart each way"
        );
    });
}

#[test]
fn a_newcomer_does_not_wait_behind_what_another_pool_has_queued() {
    let mut model = Model::new(Options::default());
    for _ in 0..100_000 {
        model.enqueue(Attr::new(pool(1), Class::Update)).unwrap();
    }
    model.cycle();
    model.enqueue(Attr::new(pool(2), Class::Update)).unwrap();
    model.finish(256);
    let kicks = model.cycle();
    let place = kicks
        .iter()
        .position(|(attr, _)| attr.pool == pool(2))
        .expect("in the next cycle");
    assert!(
        place <= 64,
        "after one quantum of the other pool, not {place} requests"
    );
}

#[test]
fn clients_keep_90_percent_beside_scrub_and_gc_and_70_beside_migration() {
    let busy = |load: &[(u64, Class, usize)]| {
        let mut model = Model::new(Options {
            max_wait_ms: 1_000_000,
            ..Options::default()
        });
        keep_busy(&mut model, load, 3_000, 16);
        keep_busy(&mut model, load, 10_000, 16)
    };
    let shares = busy(&[
        (1, Class::Update, 600),
        (1, Class::Fetch, 600),
        (1, Class::Gc, 50),
        (1, Class::Scrub, 50),
    ]);
    let io = percent(&shares[..2], &shares);
    assert!((88.0..92.0).contains(&io), "{io} % for clients: {shares:?}");
    assert!(shares[3] > 0, "scrub goes on: {shares:?}");
    let shares = busy(&[
        (1, Class::Update, 600),
        (1, Class::Gc, 50),
        (1, Class::Scrub, 50),
        (1, Class::Migrate, 50),
    ]);
    let io = percent(&shares[..1], &shares);
    assert!((68.0..72.0).contains(&io), "{io} % for clients: {shares:?}");
    let (gc, migrate) = (f64::from(shares[1]) / 4.0, f64::from(shares[3]) / 2.0);
    assert!(
        (0.8..1.25).contains(&(gc / migrate)),
        "gc and migrate take turns: {shares:?}"
    );
    assert!(shares[2] > 0, "scrub goes on: {shares:?}");
}

#[test]
fn clients_that_do_not_fill_the_xstream_keep_their_share_all_the_same() {
    let mut model = Model::new(Options {
        max_wait_ms: 1_000_000,
        ..Options::default()
    });
    let gc = Attr::slice(pool(1), Class::Gc);
    model.enqueue(gc).unwrap();
    let mut weights = [0u32; 2];
    // A cycle each 2 us, most of them idle; an update each 100 us.
    for cycle in 0..2_000_000u64 {
        if cycle % 50 == 0 {
            model.enqueue(Attr::new(pool(1), Class::Update)).unwrap();
        }
        for (kicked, _) in model.cycle() {
            if cycle > 500_000 {
                weights[usize::from(!kicked.class.is_io())] += kicked.class.weight();
            }
            if kicked.slice {
                model.enqueue(gc).unwrap();
            }
        }
        model.finish(usize::MAX);
        model.now += 2_000;
    }
    let io = percent(&weights[..1], &weights);
    assert!(
        (85.0..92.0).contains(&io),
        "{io} % for clients: {weights:?}"
    );
}

#[test]
fn background_work_of_many_pools_keeps_to_one_share() {
    let mut model = Model::new(Options {
        max_wait_ms: 1_000_000,
        ..Options::default()
    });
    let mut load = vec![(0, Class::Update, 600)];
    load.extend((1..200).map(|number| (number, Class::Gc, 20)));
    keep_busy(&mut model, &load, 3_000, 16);
    let shares = keep_busy(&mut model, &load, 20_000, 16);
    let io = percent(&shares[..1], &shares);
    assert!(
        (88.0..92.0).contains(&io),
        "{io} % for the client's pool, which has no gc of its own"
    );
    let (least, most) = (
        shares[1..].iter().min().unwrap(),
        shares[1..].iter().max().unwrap(),
    );
    assert!(
        *least > 0 && most - least <= 2 * 64 + 8,
        "from {least} to {most}"
    );
}

#[test]
fn a_pool_without_space_gives_gc_the_share_of_its_level() {
    for (free, share) in [(35, 30.0), (25, 45.0), (15, 60.0), (7, 75.0), (2, 90.0)] {
        let mut model = Model::new(Options {
            max_wait_ms: 1_000_000,
            max_in_service: 0,
            ..Options::default()
        });
        let space = [Medium {
            total: 100,
            free,
            reserved: 0,
        }];
        model.sched.report_space(pool(1), &space, 1_000_000);
        model.sched.attach(pool(1), Class::Gc);
        // What comes each cycle fits, so that limits decide and not the queue.
        let load = [(1, Class::Update, 8), (1, Class::Gc, 8)];
        keep_busy(&mut model, &load, 12_000, 64);
        let shares = keep_busy(&mut model, &load, 20_000, 64);
        let gc = percent(&shares[1..], &shares);
        assert!(
            (share - 6.0..share + 6.0).contains(&gc),
            "{free} % free: gc has {gc} % of {shares:?}"
        );
    }
}

#[test]
fn every_class_of_every_pool_progresses_under_any_mix() {
    seeds(10, |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let pools = rng.random_range(1..40);
        let mut model = Model::new(Options {
            max_wait_ms: 3_000,
            ..Options::default()
        });
        model.many_deadlines = true;
        let mut load = Vec::new();
        for number in 0..pools {
            for class in Class::ALL {
                load.push((number, class, rng.random_range(1..300)));
            }
            let free = rng.random_range(0..100);
            model.sched.report_space(
                pool(number),
                &[Medium {
                    total: 100,
                    free,
                    reserved: 0,
                }],
                100_000,
            );
            model.sched.attach(pool(number), Class::Gc);
        }
        let mut all: HashMap<(u64, Class), u32> = HashMap::new();
        // Ten seconds.
        for _ in 0..10 {
            let weights = keep_busy(&mut model, &load, 100, 8);
            model.now += 1_000 * MS;
            for ((number, class, _), weight) in load.iter().zip(weights) {
                *all.entry((*number, *class)).or_default() += weight;
            }
        }
        let stuck: Vec<_> = all.iter().filter(|(_, weight)| **weight == 0).collect();
        assert!(stuck.is_empty(), "never kicked: {stuck:?}");
    });
}
