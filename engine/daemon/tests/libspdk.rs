//! The engine on C SPDK: its threads under the xstreams, its devices under the targets, and everything that can be wrong with that.

#![allow(missing_docs, reason = "a test")]

mod harness;

use harness::{Config, Kind};

/// An engine of one target over SPDK.
fn over_spdk(kind: Kind) -> Config {
    let mut config = Config::new(2, kind);
    config.spdk = true;
    config
}

#[cfg(not(feature = "libspdk"))]
#[test]
fn an_engine_without_spdk_says_what_to_build() {
    let ended = over_spdk(Kind::Malloc).fails();
    ended.expect(78, "provider \"libspdk\" is not built into this engine");
    ended.expect(
        78,
        "SPDK_DIR=/path/to/spdk cargo build --release -p engine --features engine/libspdk",
    );
}

#[cfg(feature = "libspdk")]
mod with_spdk {
    use std::collections::BTreeMap;
    use std::io::{Cursor, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use drpc_wire::{keel, methods, modules};
    use obj_client::{Container, GetOptions, ObjError, PutOptions};
    use serde_json::{Value, json};

    use super::harness::{Config, Engine, Kind, PATIENCE, bytes, eventually};
    use super::over_spdk;

    fn put(cont: &Container, nr: u64) -> Result<(), ObjError> {
        let mut data = Cursor::new(bytes(nr, 100_000));
        cont.put(&format!("object {nr}"), &mut data, PutOptions::default())
            .map(drop)
    }

    fn is_there(cont: &Container, nr: u64) -> bool {
        let mut data = Vec::new();
        cont.get(&format!("object {nr}"), &mut data, GetOptions::default())
            .is_ok_and(|_| data == bytes(nr, 100_000))
    }

    fn container(engine: &Engine) -> Container {
        let pool = engine.connect().create_pool("tank", 64 << 20).unwrap();
        pool.create_container("cont").unwrap()
    }

    fn again(engine: &Engine) -> Container {
        let pool = engine.connect().pool("tank").unwrap();
        pool.container("cont").unwrap()
    }

    fn devices(engine: &Engine) -> BTreeMap<String, keel::Device> {
        let list: keel::Devices = engine.ask(modules::KEEL, methods::DEVICES, &());
        let named = |device: keel::Device| (device.name.clone(), device);
        list.devices.into_iter().map(named).collect()
    }

    /// SPDK's own JSON-RPC.
    fn rpc(socket: &Path, method: &str, params: &Value) -> Value {
        let mut stream = UnixStream::connect(socket).expect("SPDK's socket");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = json!({ "jsonrpc": "2.0", "id": 1, "method": method });
        if !params.is_null() {
            request["params"] = params.clone();
        }
        stream.write_all(request.to_string().as_bytes()).unwrap();
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut part).expect("SPDK's answer");
            assert!(count > 0, "SPDK hung up on {method}");
            answer.extend_from_slice(&part[..count]);
            if let Ok(answer) = serde_json::from_slice(&answer) {
                return answer;
            }
        }
    }

    #[test]
    fn objects_live_in_spdks_memory() {
        let config = over_spdk(Kind::Malloc);
        let engine = config.start();
        let status = engine.status();
        assert_eq!(status.provider, "libspdk");
        let phases: Vec<_> = status.phases.iter().map(|phase| &*phase.name).collect();
        assert!(phases.contains(&"spdk"), "{phases:?}");
        let cont = container(&engine);
        (0..16).for_each(|nr| put(&cont, nr).unwrap());
        assert!((0..16).all(|nr| is_there(&cont, nr)));
        let all = devices(&engine);
        for name in ["d0", "d1"] {
            let device = &all[name];
            let shown = (
                &*device.driver,
                &*device.path,
                &*device.model,
                &*device.state,
            );
            assert_eq!(shown, ("spdk", name, "SPDK malloc", "normal"));
            let written = device.counters.iter().find(|c| c.name == "write_ops");
            assert!(
                written.is_some_and(|counter| counter.value > 0),
                "{device:?}"
            );
        }
        let ended = engine.terminate();
        ended.expect(0, "SPDK has ended");
    }

    #[test]
    fn objects_outlive_ends_of_every_kind() {
        let config = over_spdk(Kind::File);
        let engine = config.start();
        let cont = container(&engine);
        (0..8).for_each(|nr| put(&cont, nr).unwrap());
        engine.terminate().expect(0, "SPDK has ended");
        let engine = config.start();
        let cont = again(&engine);
        assert!((0..8).all(|nr| is_there(&cont, nr)));
        (8..16).for_each(|nr| put(&cont, nr).unwrap());
        engine.kill();
        let engine = config.start();
        let cont = again(&engine);
        assert!((0..16).all(|nr| is_there(&cont, nr)));
        assert_eq!(devices(&engine)["d1"].state, "normal");
        engine.terminate().expect(0, "SPDK has ended");
    }

    /// How often the engine's reactors have rested so deep.
    fn rests(engine: &Engine, depth: &str) -> f64 {
        let metrics: keel::Metrics = engine.ask(modules::KEEL, methods::METRICS, &());
        let depth = format!("depth=\"{depth}\"");
        let lines = metrics
            .text
            .lines()
            .filter(|line| line.starts_with("keel_reactor_rests_total{") && line.contains(&depth));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// SPDK's aio wakes who waits for it: an engine at rest sleeps, and what is sent to it comes at once.
    #[test]
    fn an_engine_in_interrupt_mode_sleeps_until_it_is_rung() {
        let mut config = over_spdk(Kind::File);
        config.spdk_keys = "interrupt_mode = true".to_owned();
        let engine = config.start();
        let cont = container(&engine);
        (0..8).for_each(|nr| put(&cont, nr).unwrap());
        assert!((0..8).all(|nr| is_there(&cont, nr)));
        let (naps, sleeps) = (rests(&engine, "nap"), rests(&engine, "sleep"));
        eventually("sleep", || {
            (rests(&engine, "sleep") > sleeps + 20.0).then_some(())
        });
        assert_eq!(
            rests(&engine, "nap"),
            naps,
            "nothing had to be looked after"
        );
        engine.kill();
        let engine = config.start();
        let cont = again(&engine);
        assert!((0..8).all(|nr| is_there(&cont, nr)));
        engine.terminate().expect(0, "SPDK has ended");
    }

    /// Devices of this engine's own under SPDK's threads.
    #[test]
    fn other_kinds_run_on_spdks_threads() {
        let mut config = Config::new(2, Kind::File);
        config.spdk = false;
        config.spdk_keys.clear();
        config.top = "provider = \"libspdk\"\n".to_owned();
        config.more = "[spdk]\nhugepages = false\n".to_owned();
        let engine = config.start();
        assert_eq!(engine.status().provider, "libspdk");
        let cont = container(&engine);
        (0..8).for_each(|nr| put(&cont, nr).unwrap());
        assert_eq!(devices(&engine)["d0"].driver, "file");
        engine.terminate().expect(0, "SPDK has ended");
    }

    #[test]
    fn a_device_that_goes_under_load_takes_its_targets_down_and_comes_back() {
        let mut config = over_spdk(Kind::File);
        let socket = config.path().join("spdk.sock");
        config.spdk_keys = format!("rpc_socket = {socket:?}");
        let engine = config.start();
        let cont = container(&engine);
        (0..16).for_each(|nr| put(&cont, nr).unwrap());
        let (stop, failed) = (AtomicBool::new(false), AtomicU32::new(0));
        let load = |from: u64| {
            let cont = again(&engine);
            let mut nr = from;
            while !stop.load(Ordering::Relaxed) {
                if put(&cont, nr).is_err() {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
                nr += 1;
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| load(1000));
            scope.spawn(|| load(2000));
            let gone = rpc(&socket, "bdev_aio_delete", &json!({ "name": "d1" }));
            assert_eq!(gone["result"], json!(true), "{gone}");
            eventually("puts fail", || {
                (failed.load(Ordering::Relaxed) > 0).then_some(())
            });
            stop.store(true, Ordering::Relaxed);
        });
        eventually("the device is unplugged", || {
            (devices(&engine)["d1"].state == "unplugged").then_some(())
        });
        assert_eq!(devices(&engine)["d1"].reason, "it was removed");
        let states = |engine: &Engine| {
            let targets = engine.status().targets;
            targets
                .into_iter()
                .map(|target| target.state)
                .collect::<Vec<_>>()
        };
        assert_eq!(states(&engine), ["up", "down"]);
        assert!(
            (3000..3064).any(|nr| put(&cont, nr).is_ok()),
            "target 0 serves"
        );

        let file = config.device(1);
        let params = json!({ "name": "d1", "filename": file, "block_size": 4096 });
        let made = rpc(&socket, "bdev_aio_create", &params);
        assert_eq!(made["result"], json!("d1"), "{made}");
        eventually("the device is back", || {
            (devices(&engine)["d1"].state == "normal").then_some(())
        });
        engine.wait_log("device d1 is there again: targets [1] have it again");
        eventually("all objects are there", || {
            (0..16).all(|nr| is_there(&cont, nr)).then_some(())
        });
        assert_eq!(states(&engine), ["up", "up"]);
        engine.terminate().expect(0, "SPDK has ended");
    }

    #[test]
    fn modules_that_pass_no_flushes_on_are_warned_of() {
        let mut config = over_spdk(Kind::File);
        let call = |target: u32| {
            let (name, file) = (format!("d{target}"), config.device(target));
            let params = json!({ "name": name, "filename": file, "block_size": 4096 });
            json!({ "method": "bdev_uring_create", "params": params })
        };
        let json = json!({ "subsystems": [{ "subsystem": "bdev", "config": [call(0), call(1)] }] });
        config.spdk_json = Some(json.to_string());
        let engine = config.start();
        engine.wait_log("SPDK passes no flushes on");
        let cont = container(&engine);
        put(&cont, 1).unwrap();
        assert!(is_there(&cont, 1));
        engine.terminate().expect(0, "SPDK has ended");
    }

    /// What `scripts/rpc.py save_config` asks for and writes.
    #[test]
    fn a_saved_configuration_starts_what_it_was_saved_from() {
        let mut config = over_spdk(Kind::File);
        let socket = config.path().join("spdk.sock");
        config.spdk_keys = format!("rpc_socket = {socket:?}");
        let engine = config.start();
        put(&container(&engine), 1).unwrap();
        let subsystems = rpc(&socket, "framework_get_subsystems", &Value::Null);
        let subsystems = subsystems["result"].as_array().expect("a list");
        let saved = subsystems.iter().map(|listed| {
            let name = &listed["subsystem"];
            let config = rpc(&socket, "framework_get_config", &json!({ "name": name }));
            json!({ "subsystem": name, "config": config["result"] })
        });
        let saved = json!({ "subsystems": saved.collect::<Vec<_>>() });
        engine.terminate().expect(0, "SPDK has ended");
        config.spdk_json = Some(saved.to_string());
        let engine = config.start();
        assert!(is_there(&again(&engine), 1));
        engine.terminate().expect(0, "SPDK has ended");
    }

    #[test]
    fn what_spdk_and_dpdk_log_is_in_the_engines_log() {
        let config = over_spdk(Kind::Malloc);
        let engine = config.start();
        engine.wait_log("Starting SPDK v26.");
        engine.wait_log("DPDK EAL parameters");
        engine.wait_log("SPDK runs memory_mib=640 devices=[\"d0\", \"d1\"]");
        assert_eq!(engine.terminate().code, Some(0));
        // DPDK speaks when something is wrong: more memory than it takes, in ordinary pages.
        let mut config = over_spdk(Kind::Malloc);
        config.spdk_keys = "memory = \"520GiB\"".to_owned();
        let ended = config.fails();
        ended.expect(71, "in the configuration: spdk.memory");
        assert!(ended.log.contains("origin=\"dpdk\""), "{}", ended.log);
    }

    #[test]
    fn memory_that_is_not_there_is_said_before_anything_starts() {
        let mut config = over_spdk(Kind::Malloc);
        config.spdk_keys = "hugepages = true\nmemory = \"1000GiB\"".to_owned();
        let ended = config.fails();
        ended.expect(73, "KN031 fault node 0: 1024000 MiB for DMA are needed");
        ended.expect(73, "/nr_hugepages");
        // What the pools and a device of 128 MiB need is more.
        config.spdk_keys = "memory = \"64MiB\"".to_owned();
        let ended = config.fails();
        assert!(matches!(ended.code, Some(71 | 78)), "{ended:?}");
        ended.expect(ended.code.unwrap_or(0), "memory");
        ended.expect(ended.code.unwrap_or(0), "in the configuration: spdk");
    }

    #[test]
    fn cores_that_are_not_there_are_said() {
        let mut config = over_spdk(Kind::Malloc);
        config.engine_keys = "cpus = \"0,900\"".to_owned();
        config.fails().expect(78, "CPU 900");
    }

    #[test]
    fn mistakes_in_spdks_configuration_are_quoted() {
        let mut config = over_spdk(Kind::Malloc);
        let file = format!("spdk.json ({}", config.path().display());
        for (text, said) in [
            ("{ \"subsystems\": [ ", "JSON"),
            ("{}", "d0"),
            (
                "{ \"subsystems\": [{ \"subsystem\": \"bdev\", \"config\": [{ \"method\": \"bdev_malloc_make\", \"params\": {} }] }] }",
                "bdev_malloc_make",
            ),
        ] {
            config.spdk_json = Some(text.to_owned());
            let ended = config.fails();
            ended.expect(78, said);
            assert!(text == "{}" || ended.log.contains(&file), "{}", ended.log);
        }
    }

    #[test]
    fn a_device_that_does_not_exist_is_named_with_those_that_do() {
        let mut config = over_spdk(Kind::Malloc);
        let params = json!({ "name": "other", "num_blocks": 16384, "block_size": 4096 });
        let call = json!({ "method": "bdev_malloc_create", "params": params });
        let json = json!({ "subsystems": [{ "subsystem": "bdev", "config": [call] }] });
        config.spdk_json = Some(json.to_string());
        config.fails().expect(
            78,
            "device d0: SPDK has no block device `d0`; it has other; SPDK's JSON configuration (spdk.json) makes devices",
        );
        config.spdk_json = None;
        config.spdk_keys = "rpc_socket = \"/proc/spdk.sock\"".to_owned();
        config
            .fails()
            .expect(73, "SPDK cannot listen on /proc/spdk.sock");
    }
}
