//! Random loads: nothing lost, nothing twice, nobody late, refused only by the rule, memory bounded.

use crate::model::{MS, Model, pool};
use crate::seeds;
use engine_sched::{Attr, Class, Flags, Medium, Options};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn random_attr(rng: &mut StdRng, pools: u64, refused: &mut Vec<(Attr, u64)>) -> Attr {
    if !refused.is_empty() && rng.random_bool(0.3) {
        let (attr, id) = refused.swap_remove(rng.random_range(0..refused.len()));
        return Attr {
            enqueue_id: id,
            ..attr
        };
    }
    let class = Class::ALL[rng.random_range(0..5)];
    // A few pools are asked for much more often than the rest.
    let number = rng.random_range(0..pools).min(rng.random_range(0..pools));
    let (flags, _) = Flags::from_raw(match rng.random_range(0..40) {
        0 => 1,
        1 => 2,
        2 => 4,
        3 => rng.random(),
        _ => 0,
    });
    Attr {
        pool: pool(number),
        class,
        flags,
        timeout_ms: match rng.random_range(0..10) {
            0..4 => 0,
            4 => rng.random_range(1..300),
            _ => rng.random_range(300..30_000),
        },
        enqueue_id: if rng.random_bool(0.01) {
            rng.random()
        } else {
            0
        },
        slice: !class.is_io() && rng.random_bool(0.8),
    }
}

fn random_space(rng: &mut StdRng) -> [Medium; 2] {
    let medium = |rng: &mut StdRng| Medium {
        total: rng.random_range(0..1000),
        free: rng.random_range(0..1200),
        reserved: rng.random_range(0..100),
    };
    [medium(rng), medium(rng)]
}

#[test]
fn whatever_comes_everything_is_kicked_once_and_in_time() {
    seeds(40, |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let pools = [1, 7, 300, 6000][rng.random_range(0..4)];
        let options = Options {
            max_in_service: [0, 8, 512][rng.random_range(0..3)],
            kick_limit: [16, 600, 6400][rng.random_range(0..3)],
            max_queued: [50, 1 << 20][rng.random_range(0..2)],
            max_wait_ms: 2_000,
            max_pools: 4096,
            prepared: 64,
        };
        let mut model = Model::new(options);
        let mut refused = Vec::new();
        for _ in 0..2_000 {
            let burst = if rng.random_bool(0.02) {
                500
            } else {
                rng.random_range(0..8)
            };
            for _ in 0..burst {
                let attr = random_attr(&mut rng, pools, &mut refused);
                if let Err(id) = model.enqueue(attr) {
                    refused.push((attr, id));
                }
            }
            if rng.random_bool(0.1) {
                let (at, media) = (rng.random_range(0..pools), random_space(&mut rng));
                model
                    .sched
                    .report_space(pool(at), &media, rng.random_range(0..2) * 3_000);
            }
            if rng.random_bool(0.05) {
                model.sched.pool_gone(pool(rng.random_range(0..pools)));
            }
            model.cycle();
            model.finish(rng.random_range(0..20));
            model.now += match rng.random_range(0..200) {
                0 => rng.random_range(0..40_000) * MS,
                1..20 => rng.random_range(0..50) * MS,
                _ => rng.random_range(0..100_000),
            };
        }
        assert!(model.stats().pools <= 4096);
        model.drain();
        assert!(
            model.kicked > 1_000,
            "the run did something: {}",
            model.kicked
        );
    });
}

#[test]
fn a_million_queued_requests_come_out_and_their_memory_is_reused() {
    let mut model = Model::new(Options::default());
    model.many_deadlines = true;
    let fill = |model: &mut Model, count: u64| {
        for number in 0..count {
            let class = if number % 3 == 0 {
                Class::Fetch
            } else {
                Class::Update
            };
            assert_eq!(
                model.enqueue(Attr::new(pool(number % 5_000), class)),
                Ok(())
            );
        }
    };
    fill(&mut model, 1 << 20);
    let more = Attr::new(pool(1), Class::Update);
    assert!(model.enqueue(more).is_err(), "one more than 2^20");
    let (flags, _) = Flags::from_raw(4);
    let must = Attr { flags, ..more };
    assert_eq!(model.enqueue(must), Ok(()), "it must not be refused");
    let slice = Attr::slice(pool(1), Class::Gc);
    assert_eq!(model.enqueue(slice), Ok(()));
    let bytes = model.stats().bytes;
    assert!(bytes < 160 << 20, "{bytes} bytes for a million");
    model.drain();
    fill(&mut model, 1 << 16);
    model.drain();
    assert_eq!(model.stats().bytes, bytes);
}

#[test]
fn a_clock_that_jumps_kicks_what_is_overdue_and_nothing_else() {
    let mut model = Model::new(Options {
        max_in_service: 2,
        ..Options::default()
    });
    for timeout_ms in [0, 5_000, 60_000] {
        for _ in 0..10 {
            let attr = Attr::new(pool(1), Class::Update);
            assert_eq!(model.enqueue(Attr { timeout_ms, ..attr }), Ok(()));
        }
    }
    assert_eq!(
        model.cycle().len(),
        1,
        "one is in service, and that is all that may be"
    );
    model.sched.begin_cycle(model.now - 50 * MS);
    assert_eq!(model.sched.next(), None, "backwards is no time at all");
    model.now += 5_000 * MS;
    let urgent = model.cycle();
    assert_eq!(urgent.len(), 10, "those with 5 s");
    assert!(
        urgent
            .iter()
            .all(|(attr, kick)| kick.urgent && attr.timeout_ms == 5_000)
    );
    model.now += 5_001 * MS;
    assert_eq!(
        model.cycle().len(),
        9,
        "those without a time-out, after 10 s"
    );
    model.now += 365 * 24 * 3_600_000 * MS;
    assert_eq!(model.cycle().len(), 10);
}

#[test]
fn thousands_of_pools_are_bounded_and_forgotten() {
    let mut model = Model::new(Options {
        max_pools: 100,
        ..Options::default()
    });
    for number in 0..5_000 {
        assert_eq!(model.enqueue(Attr::new(pool(number), Class::Fetch)), Ok(()));
    }
    let full = model.stats();
    assert_eq!(full.pools, 100, "the rest shares a record");
    model.drain();
    for number in 10_000..20_000 {
        assert_eq!(model.enqueue(Attr::new(pool(number), Class::Fetch)), Ok(()));
        model.drain();
    }
    assert_eq!(
        model.stats().pools,
        100,
        "the pools that were unused for longest made room"
    );
    assert_eq!(model.stats().bytes, full.bytes);
    let busy = pool(19_999);
    model.sched.attach(busy, Class::Gc);
    model.sched.pool_gone(busy);
    assert_eq!(model.stats().pools, 100, "a ULT still works for it");
    model.sched.detach(busy, Class::Gc);
    assert_eq!(model.stats().pools, 99);
}

#[test]
fn stopping_lets_everything_out_and_refuses_nobody() {
    let mut model = Model::new(Options {
        max_in_service: 2,
        max_queued: 1 << 18,
        ..Options::default()
    });
    model.many_deadlines = true;
    model.sched.report_space(
        pool(3),
        &[Medium {
            total: 100,
            free: 0,
            reserved: 0,
        }],
        60_000,
    );
    for number in 0..100_000 {
        let class = Class::ALL[number as usize % 5];
        assert_eq!(model.enqueue(Attr::new(pool(number % 100), class)), Ok(()));
    }
    model.cycle();
    model.sched.stop();
    let attr = Attr::new(pool(1), Class::Update);
    assert_eq!(
        model.enqueue(Attr {
            timeout_ms: 1,
            ..attr
        }),
        Ok(())
    );
    let mut cycles = 0;
    while model.waiting() > 0 {
        assert!(
            !model.cycle().is_empty(),
            "each cycle lets some out, though none has been finished"
        );
        cycles += 1;
    }
    assert!(cycles <= 100_000 * 3 / 6_400 + 10, "{cycles} cycles");
}
