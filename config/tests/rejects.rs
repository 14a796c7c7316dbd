//! One wrong file for each rule, and the exact text that an operator sees for it.
//!
//! `rejects/NAME.toml` is a wrong file, `rejects/NAME.txt` what is said about it. Lines that begin with `#!` say what surrounds it:
//! `cores N`, `libspdk` (built in), `offline CPU`, `forbidden CPU`, `dir PATH` and `file PATH LENGTH` describe a machine (without `cores` none is looked at), `set KEY=VALUE` is an override.
//! `UPDATE_SNAPSHOTS=1 cargo test -p engine_config` writes the texts anew; read the difference before you commit it.

use std::path::{Path, PathBuf};

use engine_config::{ConfigErrors, Document, Machine, PathKind, Provider, UnusableCpu};

fn surroundings(text: &str) -> (Option<Machine>, Vec<&str>) {
    let (mut machine, mut sets) = (None::<Machine>, Vec::new());
    for line in text.lines().filter_map(|line| line.strip_prefix("#! ")) {
        let words: Vec<&str> = line.split(' ').collect();
        machine = match (words.as_slice(), machine) {
            (["cores", n], _) => {
                let mut described = Machine::described(n.parse().unwrap());
                described.module_dirs = vec!["/usr/lib/keel".into()];
                Some(described)
            }
            (["libspdk"], Some(mut machine)) => {
                machine.providers.push(Provider::Libspdk);
                Some(machine)
            }
            (["offline", cpu], Some(machine)) => Some(without(machine, cpu, "it is switched off")),
            (["forbidden", cpu], Some(machine)) => {
                Some(without(machine, cpu, "cgroup /keel leaves CPUs 0-2"))
            }
            (["dir", path], Some(machine)) => Some(machine.with_path(path, PathKind::Directory, 0)),
            (["file", path, len], Some(machine)) => {
                Some(machine.with_path(path, PathKind::File, len.parse().unwrap()))
            }
            (["set", argument], machine) => {
                sets.push(*argument);
                machine
            }
            (other, _) => panic!("unknown line {other:?}"),
        };
    }
    (machine, sets)
}

fn without(mut machine: Machine, cpu: &str, why: &str) -> Machine {
    let cpu = cpu.parse().unwrap();
    machine.cpus.remove(&cpu);
    let (why, cure) = (why.into(), "CURE".into());
    machine.unusable.insert(cpu, UnusableCpu { why, cure });
    machine
}

fn errors_of(name: &str, text: &str) -> ConfigErrors {
    let (machine, sets) = surroundings(text);
    let mut document = match Document::parse(name, text) {
        Ok(document) => document,
        Err(errors) => return errors,
    };
    sets.iter().for_each(|set| document.apply_set(set));
    match document.finish(machine.as_ref()) {
        Ok(_) => panic!("{name} is accepted"),
        Err(errors) => errors,
    }
}

fn cases() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rejects");
    let paths = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .collect();
    cases.sort();
    cases
}

#[test]
fn each_mistake_has_its_text() {
    let update = std::env::var_os("UPDATE_SNAPSHOTS").is_some();
    let mut wrong = Vec::new();
    for path in cases() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let said = format!("{}\n", errors_of(name, &text));
        let expected = path.with_extension("txt");
        if update {
            std::fs::write(&expected, &said).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("--- {name} now says:\n{said}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n(UPDATE_SNAPSHOTS=1 accepts this)",
        wrong.join("\n")
    );
}

#[test]
fn each_text_belongs_to_a_case() {
    for path in cases() {
        assert!(
            path.with_extension("txt").exists(),
            "{} has no text",
            path.display()
        );
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rejects");
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        assert!(
            path.with_extension("toml").exists(),
            "{} has no case",
            path.display()
        );
    }
}

#[test]
fn every_error_has_a_cure_or_a_range_in_its_label() {
    for path in cases() {
        let text = std::fs::read_to_string(&path).unwrap();
        for error in errors_of("case", &text).iter() {
            let shown = errors_of("case", &text).to_string();
            let pointed = error.cure().is_some()
                || shown.contains("allowed: ")
                || shown.contains("expected ");
            assert!(
                pointed || error.kind() == engine_config::Kind::Syntax,
                "{}: {error}",
                path.display()
            );
        }
    }
}

#[test]
fn as_a_diagnostic_each_error_is_related_and_labelled() {
    use miette::Diagnostic;
    let errors = errors_of(
        "two.toml",
        "[engine]\ntargets = 0\nhelpers = 999\n[[device]]\nname=\"d\"\nkind=\"null\"\nsize=\"1GiB\"\n",
    );
    let related: Vec<_> = errors.related().unwrap().collect();
    assert_eq!(related.len(), 2);
    let label = related[0].labels().unwrap().next().unwrap();
    assert_eq!(
        (label.offset(), label.len(), label.label()),
        (19, 1, Some("allowed: 1 to 256"))
    );
    assert_eq!(
        related[0].code().unwrap().to_string(),
        "keel::config::out_of_range"
    );
    assert!(related[0].source_code().is_some());
}
