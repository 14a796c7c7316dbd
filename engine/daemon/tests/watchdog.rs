//! A module that never returns, in a real engine: who sees it, and what becomes of systemd's watchdog.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use drpc_wire::{keel, methods, modules};
use faulty_modules::compile;
use harness::{Config, Engine, PATIENCE, eventually};
use rustix::process::Signal;

/// dRPC module of `modules/faulty/c/spins.c`.
const SPINS: i32 = 103;

fn config() -> Config {
    let mut config = Config::with_modules(&["mgmt", "obj", "spins"]);
    config.targets = 1;
    compile("spins", config.path());
    config
}

/// Lets the module spin on target 0, for ever. On a single core the answer cannot leave any more.
fn spin(engine: &Engine) {
    let mut client = engine.drpc();
    let call = std::thread::spawn(move || client.call(SPINS, 0, &[]));
    if has_two_cores() {
        let response = call.join().expect("no panic").expect("answered");
        assert_eq!(response.body, 0i32.to_le_bytes(), "the tasklet was taken");
    }
}

/// On one core the system xstream is stuck as well, and only the watchdog can tell.
fn has_two_cores() -> bool {
    spdk_env::cpu::allowed().expect("affinity").len() > 1
}

fn dumps(config: &Config) -> Vec<String> {
    let entries = fs::read_dir(config.storage()).expect("the storage directory");
    let mut texts: Vec<_> = entries
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("keel_dump_")
        })
        .collect();
    texts.sort_by_key(fs::DirEntry::file_name);
    texts
        .iter()
        .map(|entry| fs::read_to_string(entry.path()).expect("a dump"))
        .collect()
}

/// Sends the signal and waits for its dump.
fn dump(engine: &Engine, config: &Config, signal: Signal) -> String {
    let before = dumps(config).len();
    engine.signal(signal);
    eventually("a dump", || {
        let all = dumps(config);
        // It is there before it is whole.
        all.get(before)
            .filter(|text| text.contains("reactor keel_reactor_1") || !has_two_cores())
            .filter(|text| text.lines().last().is_some_and(|line| line.len() > 1))
            .cloned()
    })
}

#[test]
fn a_module_that_never_returns_is_named_in_log_list_and_dump() {
    let config = config();
    let engine = config.start();
    let healthy = dump(&engine, &config, Signal::USR1);
    for said in ["keel_sys_0", "keel_io_0", "ULTs", "pollers", "reactor "] {
        assert!(healthy.contains(said), "no `{said}` in:\n{healthy}");
    }
    assert!(!healthy.contains("no answer"), "{healthy}");

    spin(&engine);
    engine.wait_log("message spins of module spins has not returned for");
    if cfg!(target_arch = "x86_64") {
        engine.wait_log("spin_for_ever");
    }
    if has_two_cores() {
        let list: keel::Tasks = engine.ask(modules::KEEL, methods::TASKS, &());
        let stuck = list.tasks.iter().find(|task| task.xstream == "keel_io_0");
        let stuck = stuck.expect("the stuck xstream is in the list");
        assert_eq!(
            (
                stuck.name.as_str(),
                stuck.module.as_str(),
                stuck.state.as_str()
            ),
            ("spins", "spins", "stuck: does not return")
        );
        assert!(stuck.age_ms >= 32, "{stuck:?}");
        assert!(
            list.pollers
                .iter()
                .any(|poller| poller.xstream == "keel_sys_0"),
            "{list:?}"
        );
    }
    let text = dump(&engine, &config, Signal::USR2);
    for said in ["runs: message spins of module spins since", "no answer"] {
        assert!(text.contains(said), "no `{said}` in:\n{text}");
    }
    if cfg!(target_arch = "x86_64") {
        assert!(text.contains("spin_for_ever"), "{text}");
    }
    engine.kill();
}

#[test]
fn systemd_is_told_only_while_every_xstream_makes_progress() {
    let mut config = config();
    let path = config.path().join("notify.sock");
    let systemd = UnixDatagram::bind(&path).expect("a socket");
    let patience = Duration::from_millis(400);
    config.env = vec![
        ("NOTIFY_SOCKET", path.display().to_string()),
        ("WATCHDOG_USEC", patience.as_micros().to_string()),
    ];
    let engine = config.start();
    let next = |wait: Duration| {
        let mut text = [0; 256];
        systemd.set_read_timeout(Some(wait)).expect("a timeout");
        match systemd.recv(&mut text) {
            Ok(len) => Some(String::from_utf8_lossy(&text[..len]).into_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                None
            }
            Err(error) => panic!("{error}"),
        }
    };
    let mut fed = 0;
    let mut ready = false;
    while fed < 5 || !ready {
        let said = next(PATIENCE).expect("the engine feeds the watchdog");
        fed += u32::from(said.contains("WATCHDOG=1"));
        ready |= said.contains("READY=1");
    }
    spin(&engine);
    // The main thread lives on, answers signals, and must not be able to keep the watchdog quiet.
    while next(5 * patience).is_some() {}
    let text = dump(&engine, &config, Signal::USR1);
    assert!(text.contains("no answer"), "{text}");
    assert_eq!(next(Duration::from_millis(1)), None);
    engine.kill();
}

#[test]
fn a_fatal_stall_leaves_a_dump_and_ends_by_abort() {
    let mut config = config();
    config.more = "[watchdog]\nxstream_stall_max_s = 1\nstall_is_fatal = true\n".to_owned();
    let engine = config.start();
    spin(&engine);
    let exited = engine.exited();
    assert_eq!(exited.code, None, "by a signal\n{}", exited.log);
    // On a single core the system xstream is found first.
    for said in [": no progress for 1 s", "aborting for a core file"] {
        assert!(exited.log.contains(said), "no `{said}` in\n{}", exited.log);
    }
    let all = dumps(&config);
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(all[0].contains("STALLED"), "{}", all[0]);
}
