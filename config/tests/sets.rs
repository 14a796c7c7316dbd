//! `--set KEY=VALUE`.

use std::path::PathBuf;

use engine_config::{ByteSize, Config, DeviceKind, Document, Provider};

const FILE: &str =
    "[engine]\ntargets = 1\n[[device]]\nname = \"d0\"\nkind = \"null\"\nsize = \"1GiB\"\n";

fn with(sets: &[&str]) -> Config {
    let mut document = Document::parse("engine.toml", FILE).unwrap();
    sets.iter().for_each(|set| document.apply_set(set));
    document
        .finish(None)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn a_value_needs_no_quotes() {
    let config = with(&[
        "engine.storage_dir=/tmp/a b",
        "engine.system=42",
        "rpc.listen=127.0.0.1:0",
        "drpc.max_message=1MiB",
        "telemetry.log_mask=WARN,rpc=DEBUG",
        "engine.oversubscribe=true",
        "engine.idle_latency_us = 7",
        "provider=native",
    ]);
    assert_eq!(config.engine.storage_dir, PathBuf::from("/tmp/a b"));
    assert_eq!(config.engine.system, "42");
    assert_eq!(config.rpc.listen.port(), 0);
    assert_eq!(config.drpc.max_message, ByteSize::mib(1));
    assert_eq!(config.telemetry.log_mask, "WARN,rpc=DEBUG");
    assert!(config.engine.oversubscribe);
    assert_eq!(config.engine.idle_latency_us, 7);
    assert_eq!(config.provider, Provider::Native);
}

#[test]
fn toml_works_too() {
    let config = with(&[
        "engine.system=\"quoted\"",
        "modules.load=[\"obj\"]",
        "engine.targets=0x1",
    ]);
    assert_eq!(config.engine.system, "quoted");
    assert_eq!(config.modules.load, ["obj"]);
}

#[test]
fn lists_may_be_plain() {
    let config = with(&[
        "modules.load=mgmt, obj",
        "drpc.allow_uids=1000,1001",
        "modules.path=",
    ]);
    assert_eq!(config.modules.load, ["mgmt", "obj"]);
    assert_eq!(config.drpc.allow_uids, [1000, 1001]);
    assert!(config.modules.path.is_empty());
}

#[test]
fn devices_are_changed_and_added_by_number() {
    let config = with(&[
        "device.0.size=2GiB",
        "device.1.name=d1",
        "device.1.kind=malloc",
        "device.1.size=64MiB",
        "engine.targets=2",
    ]);
    assert_eq!(config.device[0].size, Some(ByteSize::gib(2)));
    assert_eq!(config.device[1].kind, DeviceKind::Malloc);
    assert_eq!(config.device.len(), 2);
}

#[test]
fn a_key_without_end_is_refused() {
    let mut document = Document::parse("engine.toml", FILE).unwrap();
    document.apply_set(&format!("{}a=1", "a.".repeat(50_000)));
    let errors = document.finish(None).unwrap_err();
    assert!(errors.to_string().contains("too many parts"));
    assert!(
        errors
            .to_string()
            .lines()
            .all(|line| line.chars().count() < 400)
    );
}

#[test]
fn the_last_one_wins() {
    assert_eq!(
        with(&["engine.system=a", "engine.system=b"]).engine.system,
        "b"
    );
}

#[test]
fn a_section_that_the_file_lacks_is_made() {
    assert_eq!(
        with(&["telemetry.metrics_listen=127.0.0.1:9191"])
            .telemetry
            .metrics_listen
            .unwrap()
            .port(),
        9191
    );
}
