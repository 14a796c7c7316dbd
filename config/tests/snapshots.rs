//! Texts that change only on purpose: the schema, the defaults, the explanations.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test -p engine_config` writes them anew; read the difference before you commit it.

use std::path::Path;

use engine_config::{Config, explain, keys, schema_json};

fn compare(file: &str, now: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, now).unwrap();
    }
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let line = before
        .lines()
        .zip(now.lines())
        .position(|(before, now)| before != now);
    let line = line.unwrap_or_else(|| before.lines().count().min(now.lines().count()));
    assert!(
        before == now,
        "{file} is stale from line {} on: {:?} became {:?} (UPDATE_SNAPSHOTS=1 accepts this)",
        line + 1,
        before.lines().nth(line),
        now.lines().nth(line),
    );
}

#[test]
fn schema_file_is_fresh() {
    compare("schema/engine.schema.json", &schema_json());
}

#[test]
fn defaults_change_only_on_purpose() {
    compare(
        "tests/snapshots/defaults.toml",
        &Config::default().effective_toml(),
    );
}

#[test]
fn explanations_read_well() {
    let mut all = String::new();
    for key in [
        "",
        "engine",
        "device",
        "engine.targets",
        "device.size",
        "drpc.max_message",
        "provider",
        "modules.load",
    ] {
        all += &format!("$ keel config explain {key}\n{}\n", explain(key).unwrap());
    }
    compare("tests/snapshots/explain.txt", &all);
}

#[test]
fn every_key_is_explained() {
    for key in keys() {
        let text = explain(&key).unwrap();
        let doc = text.lines().nth(2).unwrap_or("");
        assert!(doc.len() > 20, "{key} has no doc comment: {text}");
        assert!(text.contains("default  "), "{key}: {text}");
    }
    assert_eq!(
        explain("device.3.path").unwrap(),
        explain("device.path").unwrap()
    );
}

#[test]
fn a_key_that_is_not_there_names_the_nearest() {
    let near = |key: &str| explain(key).unwrap_err().near;
    assert_eq!(near("engine.tragets").as_deref(), Some("engine.targets"));
    assert_eq!(near("max_message").as_deref(), Some("drpc.max_message"));
    assert_eq!(near("zzzzzzzzzzzzzzzz"), None);
    assert_eq!(
        explain("engine.tragets").unwrap_err().to_string(),
        "there is no key `engine.tragets`: did you mean `engine.targets`?"
    );
}
