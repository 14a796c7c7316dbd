use super::*;

const QUIET: Situation = Situation {
    busy: false,
    quiet_ns: u64::MAX,
    deadline_in: None,
    needs_polling: false,
};

const MS: u64 = 1_000_000;

fn governor(us: u64) -> Governor {
    Governor::new(IdleGoal::from_micros(us))
}

#[test]
fn without_a_goal_it_always_polls() {
    assert_eq!(
        Governor::new(IdleGoal::ALWAYS_POLL).decide(0, QUIET),
        Rest::Poll
    );
}

#[test]
fn polls_while_busy_then_pauses_for_the_goal_then_sleeps() {
    let mut governor = governor(20);
    let mut decide = |situation| governor.decide(0, situation);
    let busy = Situation {
        busy: true,
        ..QUIET
    };
    let quiet = |quiet_ns| Situation { quiet_ns, ..QUIET };
    assert_eq!(decide(busy), Rest::Poll);
    assert_eq!(decide(quiet(19_999)), Rest::Pause);
    assert_eq!(decide(quiet(20_000)), Rest::Sleep(None));
    let long = Governor::new(IdleGoal::from_micros(10_000)).decide(0, quiet(50_000));
    assert_eq!(long, Rest::Sleep(None), "a long goal is no licence to burn");
}

#[test]
fn sleeps_to_the_deadline_and_no_longer_than_the_goal_where_something_must_be_polled() {
    let mut governor = governor(20);
    let mut decide = |deadline_in, needs_polling| {
        let situation = Situation {
            deadline_in,
            needs_polling,
            ..QUIET
        };
        governor.decide(0, situation)
    };
    assert_eq!(decide(Some(7_000), false), Rest::Sleep(Some(7_000)));
    assert_eq!(decide(Some(7_000), true), Rest::Sleep(Some(7_000)));
    assert_eq!(decide(Some(70_000), true), Rest::Sleep(Some(20_000)));
    assert_eq!(decide(Some(70_000), false), Rest::Sleep(Some(70_000)));
    assert_eq!(decide(None, true), Rest::Sleep(Some(20_000)));
    assert_eq!(decide(Some(0), false), Rest::Poll, "already due");
}

#[test]
fn naps_are_shortened_by_what_a_wake_up_takes() {
    let mut governor = governor(50);
    (0..200).for_each(|_| governor.overslept(10_000));
    let napping = Situation {
        needs_polling: true,
        ..QUIET
    };
    let Rest::Sleep(Some(nap)) = governor.decide(0, napping) else {
        panic!("no nap");
    };
    assert!((38_000..=40_100).contains(&nap), "{nap}");
    // However slow the machine, a nap stays one.
    (0..200).for_each(|_| governor.overslept(5 * MS));
    assert_eq!(governor.decide(0, napping), Rest::Sleep(Some(12_500)));
}

#[test]
fn a_deadline_nearer_than_a_wake_up_is_paused_for() {
    let mut governor = governor(100);
    (0..200).for_each(|_| governor.overslept(10_000));
    let due_in = |ns| Situation {
        deadline_in: Some(ns),
        ..QUIET
    };
    assert_eq!(governor.decide(0, due_in(5_000)), Rest::Pause);
    assert_eq!(
        governor.decide(0, due_in(30_000)),
        Rest::Sleep(Some(30_000))
    );
}

#[test]
fn one_late_wake_up_in_a_hundred_is_within_the_goal() {
    let mut governor = governor(50);
    for round in 0..100_000u64 {
        governor.rang(round, if round % 100 == 99 { 60_000 } else { 10_000 });
        assert_eq!(governor.decide(round, QUIET), Rest::Sleep(None), "{round}");
    }
    assert_eq!(governor.holds(), 0);
}

/// Just after work.
const LINGERING: Situation = Situation {
    quiet_ns: 1_000_000,
    ..QUIET
};

/// A machine whose wake-ups take longer than the goal: the reactor stays awake after work, tries to sleep again when enough work
/// has come on time and the hold is over, and holds longer the next time.
#[test]
fn a_machine_that_wakes_too_late_is_kept_awake() {
    let mut governor = governor(50);
    let mut now = 0;
    let mut holds = Vec::new();
    for _ in 0..12 {
        // Each trial costs three late wake-ups, and no more.
        for late in 0..3 {
            assert_eq!(governor.decide(now, LINGERING), Rest::Sleep(None), "{late}");
            governor.rang(now, 80_000);
        }
        let began = now;
        while governor.decide(now, LINGERING) == Rest::Pause {
            governor.paused(1_000);
            governor.was_on_time();
            now += MS;
        }
        holds.push((now - began) / MS);
    }
    // 300 messages, one each millisecond, have to come on time first.
    assert_eq!(
        holds,
        [
            300, 300, 300, 300, 300, 320, 640, 1280, 2560, 5120, 10_000, 10_000
        ]
    );
    assert_eq!(governor.holds(), 12);
}

/// With work that comes evenly, no more than one in a hundred is late in the long run.
#[test]
fn the_goal_holds_at_the_99th_percentile_whatever_the_machine() {
    for one_in in [1, 2, 10, 40] {
        let mut governor = governor(50);
        let (mut on_time, mut late, mut wakes) = (0u64, 0u64, 0u64);
        for round in 0..200_000u64 {
            let now = round * 100_000;
            if let Rest::Sleep(_) = governor.decide(now, LINGERING) {
                wakes += 1;
                let slow = wakes.is_multiple_of(one_in);
                late += u64::from(slow);
                on_time += u64::from(!slow);
                governor.rang(now, if slow { 200_000 } else { 10_000 });
            } else {
                on_time += 1;
                governor.was_on_time();
                (0..100).for_each(|_| governor.paused(1_000));
            }
        }
        assert!(
            late * 100 <= on_time + late,
            "1 in {one_in}: {late} late, {on_time} on time"
        );
    }
}

#[test]
fn without_work_a_hold_costs_no_more_than_the_linger() {
    let mut governor = governor(50);
    (0..3).for_each(|_| governor.rang(0, 80_000));
    let after = |quiet_ns| Situation { quiet_ns, ..QUIET };
    assert_eq!(governor.decide(MS, after(LINGER_NS - 1)), Rest::Pause);
    assert_eq!(governor.decide(MS, after(LINGER_NS)), Rest::Sleep(None));
}

/// Work that comes each 20 ms, always late and always after the linger: waiting awake for it is futile, and is tried less and less.
#[test]
fn rare_work_does_not_burn_the_core() {
    let mut governor = governor(50);
    let mut lingered = 0;
    let rounds = 100_000u64;
    for round in 0..rounds {
        let now = round * 2 * LINGER_NS;
        lingered += u64::from(governor.decide(now, LINGERING) == Rest::Pause);
        assert_eq!(governor.decide(now + LINGER_NS, QUIET), Rest::Sleep(None));
        governor.rang(now, 80_000);
    }
    // Each linger is half of a round.
    let percent = lingered as f64 * 50.0 / rounds as f64;
    assert!(percent < 1.0, "{percent} % of the time");
}

/// Where other programs take the core away, pausing is as late as sleeping, and dearer.
#[test]
fn a_core_that_others_use_is_not_burnt() {
    let mut governor = governor(50);
    (0..1000).for_each(|_| governor.paused(1_000));
    governor.paused(4 * MS);
    (0..30).for_each(|_| governor.rang(0, 4 * MS));
    assert_eq!(governor.decide(0, LINGERING), Rest::Sleep(None));
    assert_eq!(governor.holds(), 0);
    // It is left alone again: the next late sleeps count.
    (0..2_000_000).for_each(|_| governor.paused(1_000));
    (0..3).for_each(|_| governor.rang(0, 80_000));
    assert_eq!(governor.decide(0, LINGERING), Rest::Pause);
}

/// Losing the core now and then is still much better than being late always.
#[test]
fn pausing_need_not_be_perfect() {
    let mut governor = governor(20);
    (0..980).for_each(|_| governor.paused(1_000));
    governor.paused(30_000);
    (0..3).for_each(|_| governor.rang(0, 80_000));
    assert_eq!(governor.decide(0, LINGERING), Rest::Pause);
}

#[test]
fn holds_become_shorter_again_on_a_machine_that_got_better() {
    let mut governor = governor(50);
    let pay = |governor: &mut Governor| (0..1000).for_each(|_| governor.was_on_time());
    for round in 0..5 {
        let now = round * 100_000 * MS;
        assert_eq!(governor.decide(now, LINGERING), Rest::Sleep(None));
        (0..3).for_each(|_| governor.rang(now, 80_000));
        pay(&mut governor);
    }
    let later = 1_000_000 * MS;
    assert_eq!(governor.decide(later, LINGERING), Rest::Sleep(None));
    (0..10 * WINDOW).for_each(|_| governor.rang(later, 10_000));
    // Bad again: so many late ones that the good window is no excuse.
    let holds = governor.holds();
    while governor.holds() == holds {
        governor.rang(later, 80_000);
    }
    (0..10).for_each(|_| pay(&mut governor));
    assert_eq!(governor.decide(later + 9 * MS, LINGERING), Rest::Pause);
    assert_eq!(
        governor.decide(later + 10 * MS, LINGERING),
        Rest::Sleep(None)
    );
}
