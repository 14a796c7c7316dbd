//! Ends and starts: what stays, who is refused, and what is never overwritten.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::io::Cursor;
use std::os::unix::fs::FileExt;

use drpc_wire::{keel, methods, modules};
use harness::{Config, Kind, bytes, eventually, is_over_spdk};
use obj_client::{Container, GetOptions, PutOptions};

fn put(cont: &Container, name: &str, data: &[u8]) {
    cont.put(name, &mut Cursor::new(data), PutOptions::default())
        .unwrap_or_else(|error| panic!("put of `{name}`: {error}"));
}

fn get(cont: &Container, name: &str) -> Vec<u8> {
    let mut data = Vec::new();
    cont.get(name, &mut data, GetOptions::default())
        .unwrap_or_else(|error| panic!("get of `{name}`: {error}"));
    data
}

/// Names as long and as odd as they may be, around every border of size.
fn objects() -> Vec<(String, Vec<u8>)> {
    let sizes = [
        0,
        1,
        4095,
        4096,
        4097,
        1 << 20,
        (1 << 20) + 1,
        (5 << 20) + 3,
    ];
    let mut objects: Vec<_> = (0..)
        .zip(sizes)
        .map(|(seed, len)| (format!("größe/{len}"), bytes(seed, len)))
        .collect();
    objects.push(("n".repeat(4096), bytes(99, 10)));
    objects.push((" \t\n\"'\\ \u{202e}語\u{1f600}".to_owned(), bytes(98, 20)));
    objects
}

#[test]
fn a_clean_restart_keeps_everything_and_deleting_gives_the_space_back() {
    let config = Config::new(3, Kind::File);
    let engine = config.start();
    let pool = engine.connect().create_pool("tank", 96 << 20).unwrap();
    let cont = pool.create_container("cont").unwrap();
    for (name, data) in &objects() {
        put(&cont, name, data);
    }
    engine.terminate().expect(0, "stopped");

    let engine = config.start();
    let pool = engine.connect().pool("tank").unwrap();
    let cont = pool.container("cont").unwrap();
    let mut names: Vec<_> = cont.list("").map(|object| object.unwrap().name).collect();
    for (name, data) in &objects() {
        assert!(get(&cont, name) == *data, "`{name}` is another");
    }
    let mut wanted: Vec<_> = objects().into_iter().map(|(name, _)| name).collect();
    wanted.sort();
    names.sort();
    assert_eq!(names, wanted);
    for name in &names {
        cont.remove(name).unwrap();
    }
    eventually("the space is free", || {
        (pool.status().unwrap().pool.used == 0).then_some(())
    });
    let _: keel::Ack = engine.ask(
        modules::KEEL,
        methods::ENGINE_SHUTDOWN,
        &keel::ShutdownReq::default(),
    );
    engine.exited().expect(0, "stopped");

    let engine = config.start();
    let pool = engine.connect().pool("tank").unwrap();
    assert_eq!(pool.container("cont").unwrap().list("").count(), 0);
    assert_eq!(pool.status().unwrap().pool.used, 0);
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn a_second_engine_on_the_same_storage_directory_is_told_the_firsts_pid() {
    let config = Config::new(1, Kind::File);
    let first = config.start();
    let said = format!(
        "another engine (pid {}) runs on storage directory {}",
        first.pid(),
        config.storage().display()
    );
    config.fails().expect(73, &said);
    assert_eq!(first.status().state, "ready");
    assert_eq!(first.terminate().code, Some(0));
}

#[test]
fn a_second_engine_on_the_same_device_file_is_told_the_firsts_pid() {
    let config = Config::new(1, Kind::File);
    let first = config.start();
    let mut other = Config::new(1, Kind::File);
    other.device_dir = Some(config.path().to_owned());
    if is_over_spdk() {
        // SPDK locks no files: the label of the store says whose it is, a step later.
        let second = other.spawn();
        second.wait_log("setup failed; correct the cause");
        second.wait_log("the device belongs to engine ");
        assert_eq!(second.terminate().code, Some(0));
        assert_eq!(first.status().state, "ready");
        assert_eq!(first.terminate().code, Some(0));
        return;
    }
    let said = format!(
        "`{}` is in use by process {} (keel-engine): a device belongs to one engine at a time",
        config.device(0).display(),
        first.pid()
    );
    other.fails().expect(73, &said);
    assert_eq!(first.terminate().code, Some(0));
}

#[test]
fn the_socket_of_a_live_engine_is_refused_and_that_of_a_dead_one_replaced() {
    let config = Config::new(1, Kind::Malloc);
    let first = config.start();
    let mut other = Config::new(1, Kind::Malloc);
    other.socket = config.socket.clone();
    let said = format!(
        "dRPC socket {} is in use by process {}",
        config.socket.display(),
        first.pid()
    );
    other.fails().expect(73, &said);
    assert_eq!(first.status().state, "ready");
    first.kill();
    assert!(config.socket.exists(), "a killed engine leaves its socket");
    let other = other.start();
    assert_eq!(other.terminate().code, Some(0));
    assert!(!config.socket.exists(), "a stopped engine does not");
}

#[test]
fn a_foreign_device_is_never_overwritten_and_the_other_targets_serve() {
    let config = Config::new(2, Kind::File);
    let foreign = bytes(7, 1 << 20);
    let file = config.make_device(1, config.size);
    file.write_all_at(&foreign, 0).unwrap();
    let engine = config.start();
    engine.wait_log("target 1 is down: ");
    engine.wait_log("the device holds something that is not a Keel store");
    // What needs every target says which one is missing; what needs only the others would go on.
    let error = engine
        .connect()
        .create_pool("tank", 32 << 20)
        .unwrap_err()
        .to_string();
    assert!(error.contains("not a Keel store"), "{error}");
    assert_eq!(engine.terminate().code, Some(0));
    let mut found = vec![0; foreign.len()];
    file.read_exact_at(&mut found, 0).unwrap();
    assert!(found == foreign, "overwritten");
    assert_eq!(file.metadata().unwrap().len(), config.size);
}

#[test]
fn a_target_whose_device_is_overwritten_by_others_is_down_and_the_others_keep_their_objects() {
    let config = Config::new(2, Kind::File);
    let engine = config.start();
    let pool = engine.connect().create_pool("tank", 64 << 20).unwrap();
    let cont = pool.create_container("cont").unwrap();
    let names: Vec<_> = (0..16).map(|nr| format!("object {nr}")).collect();
    for name in &names {
        put(&cont, name, name.as_bytes());
    }
    assert_eq!(engine.terminate().code, Some(0));
    let file = std::fs::File::options()
        .write(true)
        .open(config.device(1))
        .unwrap();
    file.write_all_at(&bytes(1, 1 << 20), 0).unwrap();

    let engine = config.start();
    let pool = engine.connect().pool("tank").unwrap();
    let cont = pool.container("cont").unwrap();
    let (mut there, mut down) = (0, 0);
    for name in &names {
        let mut data = Vec::new();
        match cont.get(name, &mut data, GetOptions::default()) {
            Ok(_) => {
                assert_eq!(data, name.as_bytes());
                there += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("not a Keel store"), "{error}");
                down += 1;
            }
        }
    }
    assert!(there > 0 && down > 0, "{there} there, {down} down");
    assert!(pool.status().unwrap().targets[1].failure.is_some());
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn device_files_that_cannot_be_are_refused_before_anything_starts() {
    let mut config = Config::new(1, Kind::File);
    config.create = false;
    let path = config.device(0).display().to_string();
    // SPDK opens its files by itself, in words of its own.
    let [is_absent, is_small, is_odd] = if is_over_spdk() {
        [
            (78, format!("filename:{path}] open() failed")),
            (
                73,
                "device d0 has 1048576 bytes, too small for the targets [0] on it".to_owned(),
            ),
            (78, "Invalid argument".to_owned()),
        ]
    } else {
        [
            (78, format!("{path} is not there")),
            (
                78,
                format!("{path} has 1048576 bytes, too small for 1 target on it"),
            ),
            (
                78,
                format!("{path} has 67108865 bytes, which is not a whole number of blocks of 4096"),
            ),
        ]
    };
    config.fails().expect(is_absent.0, &is_absent.1);
    config.make_device(0, 1 << 20);
    config.fails().expect(is_small.0, &is_small.1);
    config.make_device(0, (64 << 20) + 1);
    config.fails().expect(is_odd.0, &is_odd.1);
    if !is_over_spdk() {
        assert!(!config.storage().exists(), "nothing was made");
    }
}

#[test]
fn the_device_of_another_engine_is_refused_and_stays_whole() {
    let config = Config::new(1, Kind::File);
    let engine = config.start();
    let pool = engine.connect().create_pool("tank", 32 << 20).unwrap();
    put(&pool.create_container("cont").unwrap(), "object", b"mine");
    assert_eq!(engine.terminate().code, Some(0));

    let mut other = Config::new(1, Kind::File);
    other.device_dir = Some(config.path().to_owned());
    let stranger = other.spawn();
    stranger.wait_log("setup failed; correct the cause");
    stranger.wait_log("the device belongs to engine ");
    let ready: keel::EngineReady = stranger.ask(modules::KEEL, methods::ENGINE_READY, &());
    assert!(!ready.ready);
    assert!(stranger.connect().pools().is_err(), "not open for business");
    assert_eq!(stranger.terminate().code, Some(0));

    let engine = config.start();
    let cont = engine.connect().pool("tank").unwrap().container("cont");
    assert_eq!(get(&cont.unwrap(), "object"), b"mine");
    assert_eq!(engine.terminate().code, Some(0));
}
