//! Modules with one defect each, in a real engine: an exact message, a defined outcome.

#![allow(missing_docs, reason = "a test")]

mod harness;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use daos_errno::Der;
use drpc_wire::{Status, keel, methods, mgmt, modules};
use faulty_modules::compile;
use harness::{Config, Engine};

/// An engine's configuration that loads these, compiled.
fn config(names: &[&str]) -> Config {
    let config = Config::with_modules(names);
    for name in names
        .iter()
        .filter(|name| !["mgmt", "obj", "init_panics"].contains(name))
    {
        compile(name, config.path());
    }
    config
}

/// Loads these and fails unless the engine refuses to start with this message.
fn refused(names: &[&str], said: &str) {
    let config = config(names);
    let exited = config.fails();
    let said = said.replace("DIR", &config.path().display().to_string());
    exited.expect(78, &said);
    exited.expect(78, "cure: ");
    assert!(!config.socket.exists(), "{said}");
}

/// Modules to load, and what the engine says instead.
const DEFECTS: [(&[&str], &str); 17] = [
    (
        &["no_symbol"],
        "module `no_symbol`: DIR/libno_symbol.so exports no symbol `no_symbol_module`",
    ),
    (
        &["no_descriptor"],
        "module `no_descriptor`: `no_descriptor_module` is no module descriptor (magic 0xdeadbeef)",
    ),
    (
        &["other_name"],
        "module `other_name`: its descriptor says it is `somebody_else`",
    ),
    (
        &["old_abi"],
        "module `old_abi`: built for another module ABI (level: module 0, engine 1 to 3)",
    ),
    (
        &["other_layout"],
        "module `other_layout`: built for another module ABI (fingerprint: module 0x0000000000001234, engine ",
    ),
    (
        &["other_size"],
        "module `other_size`: built for another module ABI (size of struct dss_module: module 8, engine ",
    ),
    (
        &["undefined_symbol"],
        "undefined symbol: nobody_defines_this",
    ),
    (
        &["unknown_need"],
        "module `unknown_need` needs `time_travel`, which no loaded module provides",
    ),
    (
        &["need_cycle_a", "need_cycle_b"],
        "modules need each other in a circle: need_cycle_a -> need_cycle_b -> need_cycle_a",
    ),
    (
        &["hello_c", "id_taken"],
        "module `id_taken`: module id 33 already belongs to `hello_c`",
    ),
    (
        &["hello_c", "drpc_id_taken"],
        "module `drpc_id_taken`: dRPC module id 101 is already served by `hello_c`",
    ),
    (
        &["id_out_of_range"],
        "module `id_out_of_range`: sm_mod_id is 64; ids are 0 to 63",
    ),
    (
        &["no_init"],
        "module `no_init`: sm_init is NULL; it is required",
    ),
    (
        &["no_fini"],
        "module `no_fini`: sm_fini is NULL; it is required",
    ),
    (
        &["key_without_fini"],
        "module `key_without_fini`: sm_key has no dmk_init or no dmk_fini; both are required",
    ),
    (
        &["too_many_protos"],
        "module `too_many_protos`: sm_proto_count is 3; at most 2 versions are possible",
    ),
    (
        &["init_fails"],
        "module `init_fails`: init failed: DER_NOSPACE(1007)",
    ),
];

#[test]
fn what_cannot_be_loaded_ends_the_start_with_its_own_message() {
    for (names, said) in DEFECTS {
        refused(names, said);
    }
}

#[test]
fn files_that_are_no_library_or_not_safe_are_refused() {
    let config = Config::with_modules(&["text"]);
    let file = config.path().join("libtext.so");
    fs::write(&file, "not a library").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let said = format!(
        "module `text`: {} is not an ELF file (it starts with 6e 6f 74 20)",
        file.display()
    );
    config.fails().expect(78, &said);

    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    config
        .fails()
        .expect(78, "may be written by others (mode 0666)");

    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let said = format!(
        "module `text`: cannot read {}: not a regular file",
        file.display()
    );
    config.fails().expect(78, &said);
}

#[test]
fn names_that_cannot_be_are_shown_in_the_configuration() {
    let long = "a".repeat(33);
    for name in [long.as_str(), "../evil", ""] {
        Config::with_modules(&[name])
            .fails()
            .expect(78, "engine.toml:");
    }
    Config::with_modules(&["helo"])
        .fails()
        .expect(78, "module \"helo\" is not found");
}

#[test]
fn a_key_without_a_value_on_one_xstream_ends_the_start_and_undoes_it() {
    let config = config(&["hello_c", "key_init_fails"]);
    let exited = config.fails();
    exited.expect(70, "key_init_fails");
    assert!(!config.socket.exists());
    // Nothing is left behind: without it the engine starts on the same directory.
    let mut config = config;
    config.modules = vec!["hello_c".to_owned()];
    hello(&config.spawn());
}

#[test]
fn a_panic_in_init_is_contained_and_named() {
    let exited = config(&["hello_c", "init_panics"]).fails();
    exited.expect(78, "init_panics does what its name says");
    exited.expect(78, "module `init_panics`: init failed: DER_MISC(1025)");
}

/// Calls hello_c until it answers; fails unless it is its first answer.
fn hello(engine: &Engine) {
    engine.wait_log("ready after ");
    let answer = engine.drpc().call(101, 1, b"").unwrap();
    assert_eq!(answer.status(), Status::Success);
    assert_eq!(
        String::from_utf8(answer.body).unwrap(),
        "hello from xstream 0, call 1"
    );
}

#[test]
fn a_module_in_c_greets_over_drpc() {
    let engine = config(&["hello_c"]).spawn();
    hello(&engine);
    let answer = engine.drpc().call(101, 2, b"").unwrap();
    assert_eq!(answer.status(), Status::UnknownMethod);
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn a_failed_setup_leaves_the_engine_waiting_and_can_be_repeated() {
    let config = config(&["mgmt", "obj", "setup_fails"]);
    let mut engine = config.spawn();
    engine.wait_log("setup failed; correct the cause, then send SET_UP again");
    engine.wait_state("awaiting setup");
    let list: keel::ModulesList = engine.ask(modules::KEEL, methods::MODULES_LIST, &());
    let failed = list.modules.iter().find(|m| m.name == "setup_fails");
    let failed = failed.expect("listed");
    assert_eq!(failed.state, "failed");
    assert!(
        failed.error.contains("setup failed: DER_NOSPACE(1007)"),
        "{failed:?}"
    );
    let answer: mgmt::DaosResp = engine.ask(modules::MGMT, methods::SET_UP, &());
    assert_eq!(answer.status, 0);
    engine.wait_ready();
    let list: keel::ModulesList = engine.ask(modules::KEEL, methods::MODULES_LIST, &());
    assert!(
        list.modules
            .iter()
            .all(|m| m.state == "serving" && m.error.is_empty()),
        "{list:?}"
    );
    engine.connect().create_pool("tank", 64 << 20).unwrap();
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn a_failed_cleanup_is_logged_and_the_exit_stays_ordered() {
    let engine = config(&["mgmt", "obj", "cleanup_fails"]).start();
    let exited = engine.terminate();
    exited.expect(0, "module cleanup failed");
    exited.expect(0, "cleanup_fails");
    exited.expect(0, "stopped");
}

#[test]
fn calls_from_the_wrong_state_or_xstream_are_refused_and_harm_nobody() {
    let engine = config(&["wrong_calls"]).spawn();
    engine.wait_log("ready after ");
    let answer = engine.drpc().call(102, 1, b"").unwrap();
    assert_eq!(answer.status(), Status::Success);
    let results: Vec<_> = answer
        .body
        .chunks_exact(4)
        .map(|four| i32::from_le_bytes(four.try_into().unwrap()))
        .collect();
    let (not_now, invalid) = (Der::OP_NOT_PERMITTED.neg(), Der::INVAL.neg());
    assert_eq!(
        results,
        [
            0, // no TLS on the main thread
            not_now, not_now, not_now, // in sm_init: device, tasklet, RPC
            not_now, // on the system xstream: a target's device
            invalid, invalid, // an xstream and a kind that do not exist
        ],
        "{}",
        engine.log()
    );
    assert_eq!(engine.terminate().code, Some(0));
}
