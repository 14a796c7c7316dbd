//! Whether etcd is there, which tests of membership start.

use std::process::{Command, Stdio};

use super::counts::Counts;
use super::stage::Outcome;

/// How it gets onto a Debian.
pub(super) const INSTALL: [&str; 5] = [
    "apt-get",
    "install",
    "-y",
    "--no-install-recommends",
    "etcd-server",
];

/// Only root may install packages; others are told, and the tests that need etcd say that they were skipped.
pub(super) fn stage() -> Outcome {
    let runs = |command: &[&str]| {
        let done = Command::new(command[0])
            .args(&command[1..])
            .env("DEBIAN_FRONTEND", "noninteractive")
            // The package starts a service, which the tests have no use for.
            .env("RUNLEVEL", "1")
            .stdin(Stdio::null())
            .output();
        done.is_ok_and(|output| output.status.success())
    };
    let there = || runs(&["etcd", "--version"]);
    // A machine whose lists of packages are old or not there yet knows of it after an update.
    let install = || runs(&INSTALL) || (runs(&["apt-get", "update"]) && runs(&INSTALL));
    if there() || (install() && there()) {
        return Outcome::of(true, Counts::default(), Vec::new());
    }
    Outcome::skipped(format!(
        "etcd is not installed, and tests of membership need it (sudo {})",
        INSTALL.join(" ")
    ))
}
