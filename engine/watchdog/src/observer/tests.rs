use super::*;
use spdk_thread::UnitKind;

const MS: u64 = 1_000_000;

const LIMITS: Limits = Limits {
    period: 8 * MS,
    unit: 32 * MS,
    stall: 1000 * MS,
    nudge: 100 * MS,
};

fn unit(name: &'static str) -> Option<Unit> {
    Some(Unit {
        kind: UnitKind::Task,
        name,
        sequence: 0,
    })
}

/// An observer, and a clock of the observed thread.
#[derive(Default)]
struct Watch {
    observer: Observer,
    times: OsThreadTimes,
}

impl Watch {
    /// A look after `passed`, of which the thread spent `used` on the core and `delayed` waiting for it.
    fn look_at(
        &mut self,
        passed: u64,
        used: u64,
        delayed: u64,
        turns: u64,
        unit: Option<Unit>,
    ) -> Vec<Finding> {
        self.times.cpu_ns += used;
        self.times.delayed_ns += delayed;
        let times = self.times;
        let mut found = Vec::new();
        let pulse = PulseReading { turns, unit };
        self.observer
            .look(LIMITS, passed, pulse, || Some(times), |f| found.push(f));
        found
    }

    /// The same, of long units only.
    fn long_at(&mut self, passed: u64, used: u64, delayed: u64, name: &'static str) -> usize {
        let mut found = self.look_at(passed, used, delayed, 1, unit(name));
        found.retain(|f| matches!(f, Finding::LongUnit { .. }));
        found.len()
    }

    /// A look after a period that the thread spent on the core.
    fn look(&mut self, turns: u64, unit: Option<Unit>) -> Vec<Finding> {
        self.times.runnable = true;
        self.look_at(8 * MS, 8 * MS, 0, turns, unit)
    }
}

fn long(ran_ms: u64, first: bool) -> Vec<Finding> {
    vec![Finding::LongUnit {
        unit: unit("obj:scrub").expect("one"),
        ran_ns: ran_ms * MS,
        first,
    }]
}

#[test]
fn a_unit_that_runs_past_the_limit_is_found_once_then_ever_more_rarely() {
    let mut watch = Watch::default();
    let mut found = Vec::new();
    for look in 0..=2000u64 {
        let at = watch.look(1, unit("obj:scrub"));
        found.extend(
            at.into_iter()
                .filter(|f| matches!(f, Finding::LongUnit { .. }))
                .map(|f| (look * 8, f)),
        );
    }
    let times: Vec<u64> = found.iter().map(|(ms, _)| *ms).collect();
    assert_eq!(times, [32, 2000, 4000, 8000, 16_000]);
    assert_eq!(vec![found[0].1], long(32, true));
    assert_eq!(vec![found[1].1], long(2000, false));
    assert_eq!(
        watch.observer.running().map(|(_, ns)| ns),
        Some(16_000 * MS)
    );
}

#[test]
fn turns_and_other_units_are_no_long_unit() {
    let mut watch = Watch::default();
    for turns in 1..1000 {
        assert_eq!(watch.look(turns, unit("same name")), []);
    }
    for look in 0..12 {
        let other = Unit {
            sequence: look,
            ..unit("same name").expect("one")
        };
        assert_eq!(watch.look(2000, Some(other)), [], "a long turn of many");
    }
    assert_eq!(watch.look(2001, None), []);
    assert_eq!(watch.observer.running(), None);
}

#[test]
fn a_unit_that_does_not_get_the_core_is_not_blamed() {
    let mut watch = Watch::default();
    watch.times.runnable = true;
    watch.long_at(8 * MS, 0, 0, "starved");
    for _ in 0..100 {
        // It wants to run; others have the core. The kernel has counted none of the delay yet.
        assert_eq!(watch.long_at(8 * MS, 0, 0, "starved"), 0);
    }
    watch.times.runnable = false;
    for _ in 0..10 {
        assert_eq!(watch.long_at(8 * MS, MS, 7 * MS, "starved"), 0);
    }
}

#[test]
fn a_unit_that_blocks_in_the_kernel_is_found() {
    let mut watch = Watch::default();
    let looks: Vec<usize> = (0..5)
        .map(|_| watch.look_at(8 * MS, 0, 0, 1, unit("obj:scrub")).len())
        .collect();
    assert_eq!(looks, [0, 0, 0, 0, 1]);
}

#[test]
fn a_clock_that_jumps_is_neither_a_long_unit_nor_a_stall() {
    let mut watch = Watch::default();
    watch.look(1, unit("innocent"));
    // The machine was suspended for an hour in the middle of a unit.
    assert_eq!(watch.look_at(3_600_000 * MS, 0, 0, 1, unit("innocent")), []);
    assert_eq!(watch.look(2, None), []);
}

#[test]
fn one_that_sleeps_is_nudged_and_one_that_is_stuck_is_reported_and_recovers() {
    let mut watch = Watch::default();
    let mut all = Vec::new();
    for look in 0..=200u64 {
        all.extend(watch.look(7, None).into_iter().map(|f| (look * 8, f)));
        assert_eq!(watch.observer.is_stalled(), look >= 125);
    }
    let stalled = Finding::Stalled {
        still_ns: 1000 * MS,
    };
    // The first look only learns the number of turns.
    assert_eq!(all, [(104, Finding::Nudge), (1000, stalled)]);
    let recovered = Finding::Recovered {
        still_ns: 1600 * MS,
    };
    assert_eq!(watch.look(8, None), [recovered]);
    assert_eq!(watch.look(9, None), []);
}

#[test]
fn limits_of_zero_are_off() {
    let off = Limits {
        unit: 0,
        stall: 0,
        nudge: 0,
        ..LIMITS
    };
    let mut observer = Observer::default();
    for _ in 0..10_000 {
        let pulse = PulseReading {
            turns: 1,
            unit: unit("for ever"),
        };
        observer.look(off, 8 * MS, pulse, || None, |f| panic!("{f:?}"));
    }
}
