//! Many seeds under all rules, the same run twice, and the numbers that a tree promises.

#![allow(missing_docs, reason = "a test")]

use engine_sim::{Scenario, Violation, run, scale};

#[test]
fn a_thousand_seeds_break_no_rule() {
    for seed in 0..1000 {
        if let Err(violation) = run(&Scenario::of(seed), false) {
            panic!("{violation}");
        }
    }
}

#[test]
fn a_seed_is_one_run() {
    for seed in [7, 135, 914] {
        let twice = [(); 2].map(|()| run(&Scenario::of(seed), false));
        assert_eq!(twice[0], twice[1]);
    }
    let reports: std::collections::BTreeSet<_> = (0..20)
        .map(|seed| run(&Scenario::of(seed), false).unwrap().virtual_ns)
        .collect();
    assert!(reports.len() > 15, "other seeds are other runs");
}

#[test]
fn seeds_cover_what_they_are_for() {
    let all: Vec<Scenario> = (0..1000).map(Scenario::of).collect();
    assert!(all.iter().filter(|scenario| scenario.is_calm()).count() > 100);
    assert!(
        all.iter().any(|scenario| scenario.ranks == 1)
            && all.iter().any(|scenario| scenario.ranks > 90)
    );
    let steps = |name: &str| {
        let named = |scenario: &&Scenario| {
            scenario
                .steps
                .iter()
                .any(|(_, step)| format!("{step:?}").starts_with(name))
        };
        all.iter().filter(named).count()
    };
    for name in [
        "Crash", "Restart", "Split", "Heal", "Elect", "Lie", "Weather",
    ] {
        assert!(steps(name) > 50, "{name}: {}", steps(name));
    }
}

#[test]
fn ten_thousand_ranks_hear_of_an_update_with_one_message_each() {
    let report = scale(10_000, 3).unwrap();
    assert_eq!(
        (report.counts.sync, report.counts.answers),
        (3 * 9_999, 3 * 9_999)
    );
}

#[test]
fn a_broken_rule_says_how_to_see_it_again() {
    let violation = Violation {
        seed: 12,
        at: 3_000_000,
        what: "rank 1 went back".to_owned(),
    };
    assert_eq!(
        violation.to_string(),
        "seed 12, after 3 ms: rank 1 went back\n  replay: cargo run -p engine_sim -- --seed 12 --trace"
    );
}
