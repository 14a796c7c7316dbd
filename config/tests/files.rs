//! Files that cannot be a configuration, and the checks that look at a real file system.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use engine_config::{Config, ConfigErrors, Document, Kind, Machine, Provider};

fn host() -> Machine {
    let cpus = Machine::described(8).cpus;
    Machine::host(cpus, BTreeMap::new(), vec![Provider::Native])
}

fn said(result: Result<Config, ConfigErrors>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn what_cannot_be_read_says_why() {
    let dir = tempfile::tempdir().unwrap();
    assert!(said(Config::load(dir.path().join("none.toml"))).contains("No such file"));
    assert!(said(Config::load(dir.path())).contains("it is not a file"));

    let latin1 = dir.path().join("latin1.toml");
    std::fs::write(&latin1, b"# fine\n# gr\xf6\xdfe\n").unwrap();
    assert!(said(Config::load(&latin1)).contains("line 2 is not UTF-8"));

    let big = dir.path().join("big.toml");
    std::fs::write(&big, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(said(Config::load(&big)).contains("more than 1 MiB"));
}

#[test]
fn the_same_file_by_two_names_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (image, link) = (dir.path().join("a.img"), dir.path().join("link.img"));
    std::fs::File::create(&image)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    symlink(&image, &link).unwrap();
    let text = format!(
        "[engine]\ntargets = 2\nstorage_dir = {dir:?}\n[modules]\nload = []\n[drpc]\nsocket = {:?}\n\
         [[device]]\nname = \"a\"\nkind = \"file\"\npath = {image:?}\n[[device]]\nname = \"b\"\nkind = \"file\"\npath = {link:?}\n",
        dir.path().join("engine.sock"),
        dir = dir.path(),
    );
    let config = Config::parse("engine.toml", &text).unwrap();
    let errors = config.check(&host()).unwrap_err();
    let kinds: Vec<_> = errors
        .iter()
        .map(|error| (error.kind(), error.key().to_owned()))
        .collect();
    assert_eq!(
        kinds,
        [(Kind::Conflict, "device[1].path".to_owned())],
        "{errors}"
    );
    assert_eq!(
        errors.iter().next().unwrap().place(),
        Some(("engine.toml", 15, 8))
    );
}

#[test]
fn a_sound_configuration_passes_on_this_host() {
    let dir = tempfile::tempdir().unwrap();
    let mut document = Document::parse(
        "engine.toml",
        "[modules]\nload = []\n[[device]]\nname = \"a\"\nkind = \"file\"\nsize = \"64MiB\"\ncreate = true\n",
    )
    .unwrap();
    let storage = dir.path().join("storage");
    document.apply_set(&format!("engine.storage_dir={}", storage.display()));
    document.apply_set(&format!(
        "drpc.socket={}",
        storage.join("engine.sock").display()
    ));
    document.apply_set(&format!(
        "device.0.path={}",
        storage.join("a.img").display()
    ));
    document
        .finish(Some(&host()))
        .unwrap_or_else(|errors| panic!("{errors}"));
    assert!(!storage.exists(), "a check creates nothing");
}

#[test]
fn a_configuration_made_in_memory_is_checked_too() {
    let mut config = Config::default();
    config.engine.targets = 3;
    let errors = config.check(&Machine::described(8)).unwrap_err();
    assert!(
        errors
            .to_string()
            .contains("there is no device for 3 targets")
    );
    assert_eq!(
        errors
            .iter()
            .filter(|error| error.place().is_some())
            .count(),
        0
    );
}
