//! What operators and their tools see of a running engine: Keel's own dRPC methods, the metrics port, the note.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::io::{Cursor, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use drpc_wire::{keel, methods, modules};
use harness::{Config, Engine, Kind, is_over_spdk};
use obj_client::PutOptions;

fn start() -> (Config, Engine) {
    let mut config = Config::new(2, Kind::Malloc);
    config.metrics = true;
    let engine = config.start();
    (config, engine)
}

fn ask<T: drpc_wire::Message + Default>(engine: &Engine, method: i32) -> T {
    engine.ask(modules::KEEL, method, &())
}

#[test]
fn the_status_names_targets_xstreams_and_phases() {
    let (config, engine) = start();
    // The phases are told after the last one, which is the one that makes it ready.
    let status = harness::eventually("the start is over", || {
        Some(engine.status()).filter(|status| !status.phases.is_empty())
    });
    assert_eq!((status.pid, status.state.as_str()), (engine.pid(), "ready"));
    assert_eq!(
        (status.system.as_str(), status.provider.as_str()),
        ("keel", if is_over_spdk() { "libspdk" } else { "native" })
    );
    assert_eq!(status.drpc_socket, config.socket.display().to_string());
    let targets: Vec<_> = status
        .targets
        .iter()
        .map(|t| (t.id, t.device.as_str(), t.bytes_total))
        .collect();
    assert_eq!(targets, [(0, "d0", 64 << 20), (1, "d1", 64 << 20)]);
    let roles: Vec<_> = status.xstreams.iter().map(|x| x.role.as_str()).collect();
    assert_eq!(roles, ["system", "main", "main"]);
    assert!(status.xstreams.iter().all(|x| x.turns > 0), "{status:?}");
    for phase in [
        "config",
        "devices",
        "module init",
        "xstreams",
        "drpc",
        "module setup",
    ] {
        assert!(
            status.phases.iter().any(|p| p.name == phase),
            "{phase}: {status:?}"
        );
    }
    let list: keel::ModulesList = ask(&engine, methods::MODULES_LIST);
    let names: Vec<_> = list
        .modules
        .iter()
        .map(|m| (m.name.as_str(), m.id, m.state.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            ("obj", 4, "serving"),
            ("mgmt", 1, "serving"),
            ("hello", 32, "serving")
        ]
    );
    assert_eq!(list.modules[1].needs, ["obj"]);
    let effective: keel::ConfigEffective = ask(&engine, methods::CONFIG_EFFECTIVE);
    assert!(effective.toml.contains("targets = 2"), "{}", effective.toml);
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn devices_tasks_and_metrics_show_what_was_done() {
    let (_config, engine) = start();
    let pool = engine.connect().create_pool("tank", 64 << 20).unwrap();
    let cont = pool.create_container("cont").unwrap();
    let mut source = Cursor::new(vec![1; 3 << 20]);
    cont.put("object", &mut source, PutOptions::default())
        .unwrap();
    engine.drpc().call(modules::TEST, 1, b"").unwrap();

    let devices: keel::Devices = ask(&engine, methods::DEVICES);
    assert_eq!(devices.devices.len(), 2);
    let written = |device: &keel::Device| {
        let bytes = device.counters.iter().find(|c| c.name == "write_bytes");
        bytes.map_or(0, |counter| counter.value)
    };
    let all: u64 = devices.devices.iter().map(written).sum();
    assert!(all >= 3 << 20, "{devices:?}");
    let tasks: keel::Tasks = ask(&engine, methods::TASKS);
    assert!(tasks.tasks.iter().any(|t| t.module == "obj"), "{tasks:?}");
    let metrics: keel::Metrics = ask(&engine, methods::METRICS);
    let line = metrics
        .text
        .lines()
        .find(|l| l.starts_with("keel_hello_calls"));
    assert!(line.is_some_and(|line| line.ends_with(" 1")), "{line:?}");

    let mut http = TcpStream::connect(engine.status().metrics_address).unwrap();
    http.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut page = String::new();
    http.read_to_string(&mut page).unwrap();
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("keel_hello_calls"),
        "{page}"
    );
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn a_slow_request_and_the_io_done_for_it_carry_one_number() {
    let mut config = Config::new(1, Kind::File);
    config.slow_us = 1;
    let engine = config.start();
    let pool = engine.connect().create_pool("tank", 32 << 20).unwrap();
    let cont = pool.create_container("cont").unwrap();
    let mut source = Cursor::new(vec![1; 300_000]);
    cont.put("object", &mut source, PutOptions::default())
        .unwrap();
    // What is stored is written before the answer, which comes in a later turn: both take longer than a microsecond.
    let list: keel::SlowList = ask(&engine, methods::SLOW);
    let put = list
        .records
        .iter()
        .find(|record| record.kind == "request" && record.what == "objects::put")
        .unwrap_or_else(|| panic!("no put in {list:?}"));
    assert!(put.trace != 0 && put.took_us >= 1, "{put:?}");
    assert!(put.place.starts_with("tag 1 from 127.0.0.1:"), "{put:?}");
    let written = |record: &&keel::SlowRecord| {
        record.kind == "io" && record.trace == put.trace && record.what.starts_with("write of ")
    };
    let io = list.records.iter().find(written);
    let io = io.unwrap_or_else(|| panic!("no write for {put:?} in {list:?}"));
    assert_eq!(io.place, "device d0");
    assert!(io.took_us <= put.took_us, "{io:?} {put:?}");
    // The log says the same. (It leaves out I/Os when there are many.)
    let number = format!("trace {:016x}", put.trace);
    harness::eventually("the request's line", || {
        let log = engine.log();
        let mut lines = log.lines();
        lines
            .any(|line| line.contains("slow request: objects::put") && line.contains(&number))
            .then_some(())
    });
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn the_note_and_the_socket_are_the_owners_and_go_with_the_engine() {
    let (config, engine) = start();
    let note = config.path().join(format!("run/{}.engine", engine.pid()));
    assert_eq!(
        std::fs::read_to_string(&note).unwrap(),
        config.socket.display().to_string()
    );
    let mode = std::fs::metadata(&config.socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(engine.terminate().code, Some(0));
    assert!(!note.exists() && !config.socket.exists());
}
