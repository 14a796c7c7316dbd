//! `keel-vm` on a machine that can have no VM.
#![allow(missing_docs, reason = "a test")]

use std::process::{Command, Output};

/// With a PATH that has neither QEMU nor a way to get it.
fn keel_vm(args: &[&str]) -> Output {
    let nothing = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_keel-vm"));
    command.args(args).env("PATH", nothing.path());
    command.output().expect("keel-vm runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_test_run_is_skipped_and_says_what_to_install() {
    let output = keel_vm(&["run"]);
    let said = text(&output.stdout);
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("skipped: "))
        .unwrap_or_else(|| panic!("{output:?}"));
    assert!(
        line.contains("qemu-system-x86_64") && line.contains("qemu-system-x86 qemu-utils"),
        "{line}"
    );
    assert_eq!(output.status.code(), Some(77));
    assert!(!said.contains("test result"), "{said}");
}

#[test]
fn what_a_person_asks_for_is_an_error() {
    let output = keel_vm(&["exec", "true"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = text(&output.stderr);
    assert!(
        said.starts_with("error: qemu-system-x86_64, qemu-img not found"),
        "{said}"
    );
}

#[test]
fn what_does_not_exist_is_named() {
    for (args, words) in [
        (&["run", "no_such_test"][..], "no_such_test"),
        (&["exec", "--profile", "nonsense", "true"], "one_nvme"),
        (&["shell", "--profile", "nonsense"], "terminal"),
        (&["rnu"], "Usage: cargo xtask vm"),
    ] {
        let output = keel_vm(args);
        let said = text(&output.stderr);
        assert!(
            output.status.code() == Some(2) && said.contains(words),
            "{args:?}: {output:?}"
        );
    }
}

#[test]
fn tests_and_machines_are_listed() {
    let output = keel_vm(&["list"]);
    let said = text(&output.stdout);
    assert!(
        output.status.success() && said.contains("machine_one_nvme"),
        "{output:?}"
    );
}
