//! Bugs that the simulator must find. Each is planted into a copy of the sources of `engine_iv`, which is compiled together with the
//! simulator and run over seeds until a rule breaks. Several were real once: the simulator found them first.

#![allow(missing_docs, reason = "a test")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Seeds that break no rule without a planted bug.
const SOUND_SEEDS: &str = "0..4000";
/// Seeds that a planted bug has to show itself in; the first one that it does ends the run.
const SEEDS: &str = "0..20000";

struct Mutation {
    name: &'static str,
    /// File below `engine/iv/src`, what stands there, what stands there instead.
    edits: &'static [(&'static str, &'static str, &'static str)],
    /// A part of the rule that finds it.
    found_by: &'static str,
}

const fn bug(
    name: &'static str,
    edits: &'static [(&'static str, &'static str, &'static str)],
    found_by: &'static str,
) -> Mutation {
    Mutation {
        name,
        edits,
        found_by,
    }
}

const MUTATIONS: &[Mutation] = &[
    bug(
        "an answer of the old tree counts in the new one (was real)",
        &[
            (
                "spread.rs",
                "for (_, mut spread) in spreads {",
                "for (token, mut spread) in spreads {",
            ),
            (
                "spread.rs",
                "let token = self.number();\n                if let Some(space)",
                "if let Some(space)",
            ),
        ],
        "still serves",
    ),
    bug(
        "a change that starts again in a new tree confirms what has been replaced (was real)",
        &[(
            "spread.rs",
            "&& entry.version > spread.news.version",
            "&& false",
        )],
        "",
    ),
    bug(
        "a leader that the group left out thinks that all have its changes (was real)",
        &[(
            "space.rs",
            "self.leader == Some(me) && self.group.contains(me)",
            "self.leader == Some(me)",
        )],
        "",
    ),
    bug(
        "versions go back",
        &[
            ("entry.rs", "if version < self.version {", "if false {"),
            ("spread.rs", "if news.version < heard {", "if false {"),
        ],
        "went back",
    ),
    bug(
        "an eager update returns before those below have it",
        &[
            ("spread.rs", "let waits = news.wait;", "let waits = false;"),
            (
                "spread.rs",
                "if news.wait { parent } else { Up::Nobody }",
                "Up::Nobody",
            ),
        ],
        "still serves",
    ),
    bug(
        "a change that comes twice takes effect twice",
        &[(
            "window.rs",
            "Ok(origin.seen.get(&request.number).copied())",
            "Ok(None)",
        )],
        "took effect twice",
    ),
    bug(
        "a rank that was left out for a while trusts what it kept",
        &[(
            "namespaces.rs",
            "let doubts = !throughout || group.version() != space.group.version() + 1;",
            "let doubts = !throughout;",
        )],
        "",
    ),
    bug(
        "group versions are not compared",
        &[("iv.rs", "message.group != space.group.version() || ", "")],
        "",
    ),
    bug(
        "operations do not end at their deadline",
        &[(
            "iv.rs",
            "Timer::Deadline(op) => self.expire(op),",
            "Timer::Deadline(_) => {}",
        )],
        "",
    ),
    bug(
        "a fetch whose question was lost is never asked again",
        &[(
            "iv.rs",
            "Timer::Miss(ns, key, token) => self.miss_is_silent(now, ns, key, token),",
            "Timer::Miss(..) => {}",
        )],
        "all is well again",
    ),
    bug(
        "news of anybody and of any term are believed",
        &[(
            "spread.rs",
            "if space.parent != Some(from) || news.version.term != space.term {",
            "if false {",
        )],
        "no leader has had",
    ),
    bug(
        "leases never end",
        &[
            ("fetch.rs", "&& (root || now < entry.fresh_until)", ""),
            ("fetch.rs", "entry.fresh_until - now", "class.lease()"),
            (
                "iv.rs",
                "entry.confirmed && now < fresh_until && class",
                "entry.confirmed && class",
            ),
        ],
        "all is well again",
    ),
    bug(
        "of several who wait only the first is answered",
        &[(
            "fetch.rs",
            "for waiter in miss.waiters {\n            let newest",
            "for waiter in miss.waiters.into_iter().take(1) {\n            let newest",
        )],
        "",
    ),
    bug(
        "a new root takes what it kept for the truth",
        &[(
            "namespaces.rs",
            "let doubts = space.is_root(me) || leader == me;",
            "let doubts = space.is_root(me);",
        )],
        "",
    ),
    bug(
        "a former root serves on",
        &[(
            "namespaces.rs",
            "let doubts = space.is_root(me) || leader == me;",
            "let doubts = leader == me;",
        )],
        "",
    ),
    bug(
        "a k-ary parent forgets its last child",
        &[(
            "tree.rs",
            "(first..first.saturating_add(ratio).min(size))",
            "(first..first.saturating_add(ratio - 1).min(size))",
        )],
        "",
    ),
    bug(
        "who changes a variable goes on with its own old copy",
        &[(
            "update.rs",
            "if self.entry(ns, key)?.outdate(stamp.version) {",
            "if false {",
        )],
        "went back",
    ),
    bug(
        "a change is confirmed before the rank's xstreams have taken it",
        &[(
            "feed.rs",
            "if self.states.iter().enumerate().all(taken) {",
            "let _: bool = self.states.iter().enumerate().all(taken);\n        if true {",
        )],
        "xstream",
    ),
    bug(
        "only the first xstream is waited for",
        &[(
            "feed.rs",
            "if self.states.iter().enumerate().all(taken) {",
            "if self.states.iter().enumerate().take(1).all(taken) {",
        )],
        "xstream",
    ),
    bug(
        "of those who have a variable only the first is told",
        &[(
            "feed.rs",
            "for reader in (0..self.states.len()).filter(|at| bits[at / 64] & 1 << (at % 64) != 0) {",
            "for reader in (0..self.states.len()).filter(|at| bits[at / 64] & 1 << (at % 64) != 0).take(1) {",
        )],
        "xstream",
    ),
    bug(
        "who asked for a variable hears nothing of it afterwards",
        &[("feed.rs", "bits[reader / 64] |= 1 << (reader % 64);", "")],
        "xstream",
    ),
    bug(
        "what a full mailbox does not take is lost",
        &[(
            "feed.rs",
            "state.backlog.push_back((number, item));",
            "state.told -= 1; let _ = item;",
        )],
        "xstream",
    ),
    bug(
        "an xstream that is far behind keeps what it has",
        &[(
            "feed.rs",
            "state.backlog.push_back((number, Item::DropAll));",
            "state.backlog.push_back((number, item));",
        )],
        "xstream",
    ),
    bug(
        "xstreams hear nothing of another group or leader",
        &[(
            "feed.rs",
            "self.tell(reader, Item::DropSpace(ns));",
            "let _ = reader;",
        )],
        "xstream",
    ),
    bug(
        "a change waits for xstreams past its deadline",
        &[
            (
                "feed.rs",
                "deadline(output).is_some_and(|end| end <= now)",
                "false && deadline(output).is_some_and(|end| end <= now)",
            ),
            // Nor does it ask to be woken for it.
            (
                "feed.rs",
                "ends.filter_map(|(_, output)| deadline(output)).min()",
                "ends.filter_map(|(_, output)| deadline(output)).min().filter(|_| false)",
            ),
        ],
        "past its deadline",
    ),
    bug(
        "xstreams serve what their rank may not serve any longer",
        &[(
            "cache.rs",
            "            .get(&(ns, *key))\n            .filter(|kept| now < kept.fresh_until)?;",
            "            .get(&(ns, *key))?;",
        )],
        "",
    ),
];

/// What an edited copy is compiled with.
struct Workshop {
    rustc: PathBuf,
    sources: PathBuf,
    errno: PathBuf,
}

impl Workshop {
    fn open(folder: &Path) -> Workshop {
        let cargo = std::env::var_os("CARGO").map(PathBuf::from);
        let beside = cargo
            .map(|cargo| cargo.with_file_name("rustc"))
            .filter(|rustc| rustc.exists());
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut workshop = Workshop {
            rustc: beside.unwrap_or_else(|| "rustc".into()),
            errno: folder.join("libdaos_errno.rlib"),
            sources,
        };
        let errno = workshop.sources.join("errno/src/lib.rs");
        workshop.errno = workshop.compile("daos_errno", "rlib", &errno, folder, &[]);
        workshop
    }

    fn compile(
        &self,
        name: &str,
        kind: &str,
        root: &Path,
        folder: &Path,
        uses: &[(&str, &Path)],
    ) -> PathBuf {
        let out = folder.join(if kind == "bin" {
            name.to_owned()
        } else {
            format!("lib{name}.rlib")
        });
        let mut rustc = Command::new(&self.rustc);
        rustc.args([
            "--edition",
            "2024",
            "--cap-lints",
            "allow",
            "-C",
            "opt-level=1",
            "-C",
            "debuginfo=0",
        ]);
        rustc
            .args(["--crate-name", name, "--crate-type", kind])
            .arg("-o")
            .arg(&out)
            .arg(root);
        for (name, path) in uses {
            rustc
                .arg("--extern")
                .arg(format!("{name}={}", path.display()));
        }
        rustc.arg("-L").arg(folder);
        rustc.arg("-L").args(self.errno.parent());
        let output = rustc.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        out
    }

    /// Plants a bug and says what the simulator says of it.
    fn run(&self, mutation: &Mutation, seeds: &str) -> (bool, String) {
        let folder = tempfile::TempDir::with_prefix("keel-mutation-").unwrap();
        let sources = folder.path().join("iv");
        std::fs::create_dir(&sources).unwrap();
        for file in std::fs::read_dir(self.sources.join("iv/src"))
            .unwrap()
            .flatten()
        {
            std::fs::copy(file.path(), sources.join(file.file_name())).unwrap();
        }
        for (file, old, new) in mutation.edits {
            let path = sources.join(file);
            let text = std::fs::read_to_string(&path).unwrap();
            assert_eq!(
                text.matches(old).count(),
                1,
                "`{}`: `{old}` in {file}",
                mutation.name
            );
            std::fs::write(&path, text.replace(old, new)).unwrap();
        }
        let at = folder.path();
        let errno = ("daos_errno", self.errno.as_path());
        let iv = self.compile("engine_iv", "rlib", &sources.join("lib.rs"), at, &[errno]);
        let uses = [errno, ("engine_iv", &iv)];
        let sim = self.compile(
            "engine_sim",
            "rlib",
            &self.sources.join("sim/src/lib.rs"),
            at,
            &uses,
        );
        let uses = [errno, ("engine_iv", &iv), ("engine_sim", &sim)];
        let program = self.compile(
            "keel_sim",
            "bin",
            &self.sources.join("sim/src/main.rs"),
            at,
            &uses,
        );
        let output = Command::new(program)
            .args(["--seeds", seeds])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    }
}

#[test]
fn every_planted_bug_is_found() {
    let folder = tempfile::TempDir::with_prefix("keel-mutations-").unwrap();
    let workshop = Workshop::open(folder.path());
    let sound = bug("none", &[], "");
    let (passes, said) = workshop.run(&sound, SOUND_SEEDS);
    assert!(passes, "without a bug no rule breaks: {said}");

    let next = Mutex::new(MUTATIONS.iter());
    let missed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(mutation) = next.lock().unwrap().next() else {
                break;
            };
            let (passes, said) = workshop.run(mutation, SEEDS);
            if passes || !said.contains(mutation.found_by) {
                missed
                    .lock()
                    .unwrap()
                    .push(format!("{}: {said}", mutation.name));
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}
