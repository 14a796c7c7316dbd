//! The stages, and how one runs: its output is passed on line by line and read for counts on the way.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result};

use super::counts::{Counts, SKIPPED_BECAUSE, skipped};
use super::etcd;
use crate::cargo::{cargo, target};

/// How a program says that it could not test anything here: this exit code (automake's), and a line with the reason.
const SKIPPED: i32 = 77;

/// One step of the test run.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    work: Work,
}

enum Work {
    /// The static checks, in this process.
    Check,
    /// A cargo command; `needs` names a cargo subcommand without which it is skipped.
    Cargo {
        args: &'static [&'static str],
        env: Vec<(&'static str, OsString)>,
        needs: Option<&'static str>,
    },
    /// etcd, which tests of membership start: installed if that can be done without asking, and else named.
    Etcd,
    /// A cargo command over C SPDK: skipped where it is not installed. A process for each test, which nextest gives.
    OverSpdk(&'static [&'static str]),
}

/// How a stage ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Tests that passed; for a stage without tests, the stage itself.
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Why it did not run.
    pub(crate) skipped: Option<String>,
    /// Why tests of it had nothing to test on this machine, and ended at once.
    pub(crate) unable: Vec<String>,
}

impl Outcome {
    pub(crate) fn failed() -> Outcome {
        Outcome {
            passed: 0,
            failed: 1,
            skipped: None,
            unable: Vec::new(),
        }
    }

    pub(super) fn skipped(why: String) -> Outcome {
        println!("{SKIPPED_BECAUSE}{why}");
        Outcome {
            passed: 0,
            failed: 0,
            skipped: Some(why),
            unable: Vec::new(),
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// A stage that fails with no failed test (it did not compile, it was killed) counts as one failure.
    pub(super) fn of(succeeded: bool, counts: Counts, unable: Vec<String>) -> Outcome {
        let passed = if succeeded && counts.passed == 0 {
            1
        } else {
            // Their programs count them among those.
            counts.passed.saturating_sub(unable.len())
        };
        let failed = if succeeded { 0 } else { counts.failed.max(1) };
        Outcome {
            passed,
            failed,
            skipped: None,
            unable,
        }
    }
}

/// A cargo command that every machine with a toolchain can run.
fn cargo_stage(name: &'static str, args: &'static [&'static str]) -> Stage {
    Stage {
        name,
        work: Work::Cargo {
            args,
            env: Vec::new(),
            needs: None,
        },
    }
}

fn tests() -> Stage {
    const NEXTEST: [&str; 4] = ["nextest", "run", "--workspace", "--no-fail-fast"];
    const PLAIN: [&str; 6] = [
        "test",
        "--workspace",
        "--lib",
        "--bins",
        "--tests",
        "--no-fail-fast",
    ];
    let args: &'static [&'static str] = if is_installed("nextest") {
        &NEXTEST
    } else {
        &PLAIN
    };
    cargo_stage("test", args)
}

/// What runs over C SPDK.
pub(crate) fn over_spdk() -> Vec<Stage> {
    const RUN: &[&str] = &[
        "nextest",
        "run",
        "--package=spdk_sys",
        "--package=spdk_provider",
        "--package=engine_xstream",
        "--package=engine_bench",
        "--package=engine",
        "--features=spdk_sys/libspdk,spdk_provider/libspdk,engine_xstream/libspdk,engine_bench/libspdk,engine/libspdk",
        "--filterset=package(spdk_sys) + package(spdk_provider) + package(engine_xstream) + package(engine) + test(over_spdk)",
        "--no-fail-fast",
    ];
    const DOC: &[&str] = &[
        "test",
        "--doc",
        "--package=spdk_sys",
        "--package=spdk_provider",
        "--features=spdk_sys/libspdk,spdk_provider/libspdk",
    ];
    const BUILD: &[&str] = &["build", "--workspace", "--features=engine/libspdk"];
    const VM: &[&str] = &["run", "--quiet", "--package", "vm_tests", "--", "run"];
    let stage = |name, args| Stage {
        name,
        work: Work::OverSpdk(args),
    };
    vec![
        // As below: programs must be there before tests start them.
        stage("build", BUILD),
        stage("test", RUN),
        stage("doctest", DOC),
        stage("vm", VM),
    ]
}

/// All stages in the order in which they run: quick answers first.
pub(crate) fn all(root: &Path) -> Vec<Stage> {
    let cargo = cargo_stage;
    let deny = &[
        "deny",
        "--workspace",
        "check",
        "bans",
        "licenses",
        "sources",
    ];
    vec![
        cargo("fmt", &["fmt", "--all", "--check"]),
        Stage {
            name: "check",
            work: Work::Check,
        },
        Stage {
            name: "deny",
            work: Work::Cargo {
                args: deny,
                env: Vec::new(),
                needs: Some("deny"),
            },
        },
        cargo(
            "clippy",
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        ),
        Stage {
            name: "libspdk",
            work: libspdk(),
        },
        Stage {
            name: "etcd",
            work: Work::Etcd,
        },
        // Tests start the daemon and load modules: programs and shared libraries must be there.
        cargo("build", &["build", "--workspace"]),
        tests(),
        cargo(
            "doctest",
            &["test", "--workspace", "--doc", "--no-fail-fast"],
        ),
        Stage {
            name: "loom",
            work: loom(root),
        },
        // Last: the slowest, and the one that wants all processors.
        cargo(
            "vm",
            &["run", "--quiet", "--package", "vm_tests", "--", "run"],
        ),
    ]
}

/// The Rust half of what links C SPDK: checked where there is no SPDK, so that it does not rot.
fn libspdk() -> Work {
    Work::Cargo {
        args: &[
            "clippy",
            "--package",
            "spdk_sys",
            "--package",
            "spdk_provider",
            "--package",
            "engine_xstream",
            "--package",
            "engine_bench",
            "--package",
            "engine",
            "--features",
            "spdk_sys/libspdk,spdk_provider/libspdk,engine_xstream/libspdk,engine_bench/libspdk,engine/libspdk",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        env: vec![("SPDK_CHECK_ONLY", "1".into())],
        needs: None,
    }
}

/// Rings, threads and the hand-over to sleep under loom's model checker: other flags, so a target directory of its own, or everything else would be rebuilt.
fn loom(root: &Path) -> Work {
    let target = target(root);
    let env = vec![
        ("RUSTFLAGS", "--cfg loom".into()),
        ("CARGO_TARGET_DIR", target.join("loom").into_os_string()),
    ];
    Work::Cargo {
        args: &[
            "test",
            "--package",
            "spdk_ring",
            "--package",
            "spdk_thread",
            "--test",
            "loom",
            "--no-fail-fast",
        ],
        env,
        needs: None,
    }
}

impl Stage {
    /// The command as one would type it.
    pub(crate) fn shown(&self) -> String {
        match &self.work {
            Work::Check => "cargo xtask check".into(),
            Work::Etcd => format!("etcd --version || {}", etcd::INSTALL.join(" ")),
            Work::OverSpdk(args) => format!("cargo {}", args.join(" ")),
            Work::Cargo { args, env, .. } => {
                let env: Vec<String> = env
                    .iter()
                    .map(|(key, value)| format!("{key}={:?} ", value.to_string_lossy()))
                    .collect();
                format!("{}cargo {}", env.concat(), args.join(" "))
            }
        }
    }

    pub(crate) fn run(&self, root: &Path) -> Result<Outcome> {
        match &self.work {
            Work::Check => {
                let failures = crate::check::run(root)?.show();
                Ok(Outcome::of(
                    failures == 0,
                    Counts {
                        passed: 0,
                        failed: failures,
                    },
                    Vec::new(),
                ))
            }
            Work::Etcd => Ok(etcd::stage()),
            Work::Cargo {
                needs: Some(tool), ..
            } if !is_installed(tool) => {
                let why = format!("cargo-{tool} is not installed (cargo install cargo-{tool})");
                Ok(Outcome::skipped(why))
            }
            Work::OverSpdk(_) if !has_spdk() => Ok(Outcome::skipped(
                "C SPDK is not installed here: SPDK_DIR is not set, and pkg-config does not know spdk_thread".to_owned(),
            )),
            Work::OverSpdk(["nextest", ..]) if !is_installed("nextest") => Ok(Outcome::skipped(
                "each test needs a process of its own, and cargo-nextest is not installed (cargo install cargo-nextest)".to_owned(),
            )),
            Work::OverSpdk(args) => {
                let mut command = cargo();
                // The daemon's tests: the same as ever, over SPDK.
                command.env("KEEL_TEST_PROVIDER", "libspdk");
                command.args(*args).current_dir(root);
                run(&mut command, io::stdout(), io::stderr())
            }
            Work::Cargo { args, env, .. } => {
                let mut command = cargo();
                command
                    .args(*args)
                    .envs(env.iter().cloned())
                    .current_dir(root);
                run(&mut command, io::stdout(), io::stderr())
            }
        }
    }
}

fn has_spdk() -> bool {
    let known = || {
        let asked = Command::new("pkg-config")
            .args(["--exists", "spdk_thread"])
            .status();
        asked.is_ok_and(|status| status.success())
    };
    std::env::var_os("SPDK_DIR").is_some() || known()
}

fn is_installed(subcommand: &str) -> bool {
    let version = cargo()
        .args([subcommand, "--version"])
        .stdin(Stdio::null())
        .output();
    version.is_ok_and(|output| output.status.success())
}

/// What was read from a command's output on the way.
#[derive(Default)]
struct Said {
    counts: Counts,
    skipped: Vec<String>,
}

/// Runs a command with its output passed through.
fn run(
    command: &mut Command,
    out: impl Write,
    err: impl Write + Send + 'static,
) -> Result<Outcome> {
    let colour = if io::stdout().is_terminal() {
        "always"
    } else {
        "never"
    };
    let mut child = command
        .env("CARGO_TERM_COLOR", colour)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    let stderr = child
        .stderr
        .take()
        .map(|pipe| thread::spawn(move || pass_on(pipe, err)));
    let Said {
        mut counts,
        mut skipped,
    } = child
        .stdout
        .take()
        .map(|pipe| pass_on(pipe, out))
        .unwrap_or_default();
    if let Some(stderr) = stderr {
        let said = stderr.join().unwrap_or_default();
        counts = counts.and(said.counts);
        skipped.extend(said.skipped);
    }
    let status = child.wait().context("cannot wait for the command")?;
    Ok(match (status.code(), skipped.last()) {
        // It has said so itself.
        (Some(SKIPPED), Some(why)) => Outcome {
            passed: 0,
            failed: 0,
            skipped: Some(why.clone()),
            unable: Vec::new(),
        },
        _ => Outcome::of(status.success(), counts, skipped),
    })
}

fn pass_on(from: impl Read, mut to: impl Write) -> Said {
    let mut said = Said::default();
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(from.read_until(b'\n', &mut line), Ok(n) if n > 0) {
        let text = String::from_utf8_lossy(&line);
        said.counts.read_line(&text);
        said.skipped.extend(skipped(&text));
        let _ = to.write_all(&line).and_then(|()| to.flush()); // a closed terminal does not stop the tests
        line.clear();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Outcome {
        run(
            Command::new("sh").args(["-c", script]),
            io::sink(),
            io::sink(),
        )
        .unwrap()
    }

    #[test]
    fn tests_are_counted_from_both_streams() {
        let outcome = shell(
            "echo 'test result: ok. 3 passed; 0 failed; 0 ignored'; \
             echo '     Summary [   0.1s] 4 tests run: 4 passed, 0 skipped' >&2",
        );
        assert_eq!(
            outcome,
            Outcome {
                passed: 7,
                failed: 0,
                skipped: None,
                unable: Vec::new(),
            }
        );
    }

    #[test]
    fn a_stage_is_skipped_when_it_says_why_and_with_the_code_for_that() {
        let says = "echo 'skipped: no qemu; install with: sudo apt-get install x'; exit";
        let why = "no qemu; install with: sudo apt-get install x";
        assert_eq!(
            shell(&format!("{says} 77")),
            Outcome {
                passed: 0,
                failed: 0,
                skipped: Some(why.to_owned()),
                unable: Vec::new(),
            }
        );
        let failed = Outcome {
            unable: vec![why.to_owned()],
            ..Outcome::failed()
        };
        assert_eq!(shell(&format!("{says} 1")), failed);
        assert_eq!(shell("exit 77"), Outcome::failed());
    }

    #[test]
    fn tests_that_had_nothing_to_test_on_are_not_among_those_that_passed() {
        // nextest shows what a test wrote, set in, on standard error.
        let outcome = shell(
            "echo '    skipped: network namespaces need root' >&2; \
             echo '     Summary [   0.1s] 4 tests run: 4 passed, 0 skipped' >&2",
        );
        assert_eq!(
            outcome,
            Outcome {
                passed: 3,
                failed: 0,
                skipped: None,
                unable: vec!["network namespaces need root".to_owned()],
            }
        );
    }

    #[test]
    fn a_stage_without_tests_counts_as_one() {
        assert_eq!(
            shell("exit 0"),
            Outcome {
                passed: 1,
                failed: 0,
                skipped: None,
                unable: Vec::new(),
            }
        );
        assert_eq!(
            shell("echo 'error: does not compile'; exit 101"),
            Outcome::failed()
        );
    }

    #[test]
    fn a_failure_is_a_failure_whatever_the_counts_say() {
        let outcome = shell("echo 'test result: ok. 3 passed; 0 failed'; exit 101");
        assert_eq!(
            outcome,
            Outcome {
                passed: 3,
                failed: 1,
                skipped: None,
                unable: Vec::new(),
            }
        );
        let outcome = shell("echo 'test result: FAILED. 3 passed; 2 failed'; exit 101");
        assert_eq!(
            outcome,
            Outcome {
                passed: 3,
                failed: 2,
                skipped: None,
                unable: Vec::new(),
            }
        );
    }

    #[test]
    fn loom_keeps_out_of_the_ordinary_target_directory() {
        let stages = all(Path::new("/top"));
        let loom = stages
            .iter()
            .find(|stage| stage.name == "loom")
            .unwrap()
            .shown();
        assert!(
            loom.contains("RUSTFLAGS=\"--cfg loom\"") && loom.contains("/loom\" cargo test"),
            "{loom}"
        );
    }
}
