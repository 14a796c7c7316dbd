//! DAOS's rules one by one.

use crate::model::{MS, Model, pool};
use engine_sched::{Admission, Attr, Class, Flags, Medium, Options, Scheduler};

fn update() -> Attr {
    Attr::new(pool(1), Class::Update)
}

fn flag(raw: u32) -> Flags {
    Flags::from_raw(raw).0
}

const NO_DELAY: u32 = 1;
const PERIODIC: u32 = 2;
const NO_REJECT: u32 = 4;

#[test]
fn below_the_limit_everything_is_kicked_within_the_cycle() {
    let mut model = Model::new(Options {
        max_in_service: 0,
        ..Options::default()
    });
    for _ in 0..1_000 {
        model.enqueue(update()).unwrap();
        model
            .enqueue(Attr {
                class: Class::Fetch,
                ..update()
            })
            .unwrap();
    }
    assert_eq!(model.cycle().len(), 2_000);
}

#[test]
fn more_than_6400_weights_are_scaled_to_6400() {
    let mut model = Model::new(Options {
        max_in_service: 0,
        ..Options::default()
    });
    // 12,000 weights of updates, all before 4,000 of fetches.
    for _ in 0..6_000 {
        model.enqueue(update()).unwrap();
    }
    for _ in 0..4_000 {
        model
            .enqueue(Attr {
                class: Class::Fetch,
                ..update()
            })
            .unwrap();
    }
    let kicks = model.cycle();
    let of = |class| kicks.iter().filter(|(attr, _)| attr.class == class).count();
    assert_eq!((of(Class::Update), of(Class::Fetch)), (2_400, 1_600));
}

#[test]
fn a_request_older_than_its_time_out_less_128_ms_is_kicked_whatever_the_limits() {
    let mut model = Model::new(Options {
        max_in_service: 2,
        ..Options::default()
    });
    model.enqueue(update()).unwrap();
    assert_eq!(model.cycle().len(), 1);
    model
        .enqueue(Attr {
            timeout_ms: 1_000,
            ..update()
        })
        .unwrap();
    model
        .enqueue(Attr {
            timeout_ms: 128,
            flags: flag(NO_REJECT),
            ..update()
        })
        .unwrap();
    model.now += 872 * MS;
    assert_eq!(model.cycle().len(), 0);
    model.now += MS;
    let kicks = model.cycle();
    assert!(matches!(kicks[..], [(Attr { timeout_ms: 1_000, .. }, kick)] if kick.urgent));
    model.now += 1_000 * MS;
    assert_eq!(
        model.cycle().len(),
        0,
        "128 ms leave no time to kick it early"
    );
}

#[test]
fn no_delay_is_kicked_always() {
    let mut model = Model::new(Options {
        max_in_service: 2,
        ..Options::default()
    });
    model.enqueue(update()).unwrap();
    model.enqueue(update()).unwrap();
    model
        .enqueue(Attr {
            flags: flag(NO_DELAY),
            ..update()
        })
        .unwrap();
    let kicks = model.cycle();
    assert_eq!(kicks.len(), 1, "it comes first and fills the service");
    assert!(kicks[0].1.urgent);
}

#[test]
fn what_cannot_be_done_in_time_is_refused_with_an_advice_and_comes_back_in_its_place() {
    let mut model = Model::new(Options {
        max_in_service: 2,
        ..Options::default()
    });
    for _ in 0..100_000 {
        model.enqueue(update()).unwrap();
    }
    let first = model
        .enqueue(Attr {
            timeout_ms: 1_727,
            ..update()
        })
        .unwrap_err();
    let second = model
        .enqueue(Attr {
            timeout_ms: 1_000,
            ..update()
        })
        .unwrap_err();
    assert_eq!((first, second), (100_001, 100_002));
    assert_eq!(
        model.enqueue(Attr {
            timeout_ms: 1_727,
            flags: flag(NO_REJECT),
            ..update()
        }),
        Ok(())
    );
    assert_eq!(
        model
            .enqueue(Attr {
                timeout_ms: 1_727,
                ..update()
            })
            .unwrap_err(),
        100_004
    );
    assert_eq!(model.stats().class(Class::Update).rejected, 3);
    for enqueue_id in [second, first] {
        model
            .enqueue(Attr {
                enqueue_id,
                ..update()
            })
            .unwrap();
    }
    model.enqueue(update()).unwrap();
    let mut ids = Vec::new();
    while model.waiting() > 0 {
        ids.extend(model.cycle().iter().map(|(_, kick)| kick.enqueue_id));
        model.finish(1);
    }
    assert!(
        ids.is_sorted(),
        "by id: those that came back before younger ones"
    );
    assert_eq!(model.stats().class(Class::Update).resent, 2);
}

#[test]
fn an_id_that_was_never_given_is_a_new_request() {
    let mut model = Model::new(Options::default());
    model
        .enqueue(Attr {
            enqueue_id: u64::MAX,
            ..update()
        })
        .unwrap();
    model.enqueue(update()).unwrap();
    let kicks = model.cycle();
    let ids: Vec<u64> = kicks.iter().map(|(_, kick)| kick.enqueue_id).collect();
    assert_eq!(ids, [1, 2]);
    assert_eq!(model.stats().class(Class::Update).resent, 0);
}

#[test]
fn under_pressure_updates_wait_for_gc_and_fetches_do_not() {
    let mut model = Model::new(Options::default());
    model.sched.report_space(
        pool(1),
        &[Medium {
            total: 100,
            free: 15,
            reserved: 0,
        }],
        0,
    );
    model.sched.attach(pool(1), Class::Gc);
    assert_eq!(model.sched.space_pressure(model.now, pool(1)), 3);
    let classes = |model: &mut Model| -> Vec<Class> {
        let kicks = model.cycle();
        kicks.iter().map(|(attr, _)| attr.class).collect()
    };
    for class in [Class::Update, Class::Fetch, Class::Migrate] {
        model
            .enqueue(Attr {
                class,
                slice: !class.is_io(),
                ..update()
            })
            .unwrap();
    }
    assert_eq!(classes(&mut model), [Class::Fetch], "gc runs at the moment");
    model.enqueue(Attr::slice(pool(1), Class::Gc)).unwrap();
    assert_eq!(classes(&mut model), [Class::Gc]);
    model.sched.set_asleep(pool(1), Class::Gc, true);
    assert_eq!(
        classes(&mut model),
        [Class::Migrate, Class::Update],
        "gc has nothing to do"
    );
}

#[test]
fn at_the_last_level_updates_go_on_after_the_gap_and_ten_seconds() {
    let mut model = Model::new(Options {
        max_wait_ms: 1_000_000,
        ..Options::default()
    });
    model.sched.report_space(
        pool(1),
        &[Medium {
            total: 100,
            free: 1,
            reserved: 0,
        }],
        20_000,
    );
    model.sched.attach(pool(1), Class::Gc);
    model.enqueue(update()).unwrap();
    assert_eq!(model.cycle().len(), 0);
    model.now += 30_000 * MS;
    assert_eq!(model.cycle().len(), 0);
    model.now += MS;
    assert_eq!(
        model.cycle().len(),
        1,
        "so that the client hears that there is no space"
    );
}

#[test]
fn gc_alone_is_unlimited_under_pressure() {
    let mut model = Model::new(Options::default());
    model.sched.report_space(
        pool(1),
        &[Medium {
            total: 100,
            free: 1,
            reserved: 0,
        }],
        0,
    );
    for _ in 0..1_600 {
        model.enqueue(Attr::slice(pool(1), Class::Gc)).unwrap();
    }
    assert_eq!(model.cycle().len(), 1_600);
}

#[test]
fn periodic_requests_are_no_activity_that_others_give_way_to() {
    for (raw, expected) in [(0, 4), (PERIODIC, 100)] {
        let mut model = Model::new(Options::default());
        model
            .enqueue(Attr {
                flags: flag(raw),
                ..update()
            })
            .unwrap();
        model.cycle();
        for _ in 0..100 {
            model.enqueue(Attr::slice(pool(1), Class::Gc)).unwrap();
        }
        assert_eq!(model.cycle().len(), expected, "flags {raw}");
    }
}

#[test]
fn a_cancelled_request_is_gone_and_its_ticket_is_stale() {
    let mut sched = Scheduler::new(Options::default());
    let mut tickets = Vec::new();
    for token in 0..3 {
        match sched.enqueue(0, &Attr::slice(pool(1), Class::Scrub), token) {
            Admission::Queued(ticket) => tickets.push(ticket),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sched.cancel(tickets[1]), Some(1));
    assert_eq!(sched.cancel(tickets[1]), None);
    sched.begin_cycle(0);
    let tokens: Vec<u64> = std::iter::from_fn(|| sched.next())
        .map(|kick| kick.token)
        .collect();
    assert_eq!(tokens, [0, 2]);
    let stale = |ticket| sched.cancel(ticket).is_none();
    assert!(tickets.into_iter().all(stale));
    assert!(sched.is_empty());
}
