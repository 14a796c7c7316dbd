//! What must be so for all tests together.

use std::collections::BTreeSet;

use test_vm::Profile;

use super::{ALL, OVER_SPDK, Test};

/// Findings that cannot be put into a machine that is emulated here.
const NOT_PLANTED: [(&str, &str); 0] = [];

/// The tests that ask the doctor.
const ASKING: [&str; 2] = [include_str!("faults.rs"), include_str!("node.rs")];

fn all() -> impl Iterator<Item = &'static Test> {
    ALL.iter().chain(OVER_SPDK)
}

#[test]
fn every_machine_is_used() {
    let mut used: BTreeSet<&str> = ALL.iter().map(|test| test.profile).collect();
    used.insert(crate::bench::PROFILE);
    let known = Profile::names().unwrap();
    let idle: Vec<&String> = known
        .iter()
        .filter(|name| !used.contains(name.as_str()))
        .collect();
    assert!(idle.is_empty(), "no test uses {idle:?}: use or remove them");
    let missing: Vec<&&str> = used
        .iter()
        .filter(|name| !known.iter().any(|known| known == **name))
        .collect();
    assert!(missing.is_empty(), "there is no profile {missing:?}");
}

#[test]
fn names_are_unique() {
    let names: BTreeSet<&str> = all().map(|test| test.name).collect();
    assert_eq!(names.len(), all().count());
}

#[test]
fn every_finding_of_the_doctor_is_found_in_a_machine() {
    let table = include_str!("../../../../docs/operating/doctor.md");
    let codes: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| KN").map(|_| &line[2..7]))
        .collect();
    assert!(codes.len() > 25, "{codes:?}");
    let is_excused = |code: &str| NOT_PLANTED.iter().any(|(excused, _)| *excused == code);
    for code in codes {
        let is_asked = ASKING
            .iter()
            .any(|text| text.contains(&format!("\"{code}")));
        assert!(
            is_asked != is_excused(code),
            "{code} is found in no machine"
        );
    }
}

#[test]
fn the_table_of_what_is_tested_names_tests() {
    let readme = include_str!("../../../README.md");
    let begins = readme.find("| what must hold |").expect("the table");
    let table = readme[begins..].split("\n\n").next().unwrap_or_default();
    let mut named = 0;
    for word in table.split('`').skip(1).step_by(2) {
        assert!(all().any(|test| test.name == word), "`{word}` is no test");
        named += 1;
    }
    assert!(named > 15, "{table}");
    for test in all() {
        assert!(
            table.contains(&format!("`{}`", test.name)),
            "{} is not in the table",
            test.name
        );
    }
}
