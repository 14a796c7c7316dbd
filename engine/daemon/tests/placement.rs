//! Who runs where, and that two engines of a machine do not take the same core unknowingly.

#![allow(missing_docs, reason = "a test")]

mod harness;

use drpc_wire::{keel, methods, modules};
use harness::{Config, Engine, Kind};

/// An engine without modules but mgmt, which answers.
fn small(targets: u32) -> Config {
    let mut config = Config::new(targets, Kind::Malloc);
    config.modules = ["mgmt", "obj"].map(str::to_owned).to_vec();
    config
}

/// One that wants its two cores for itself.
fn alone() -> Config {
    let mut config = small(1);
    config.oversubscribe = false;
    config
}

/// Like `other` in the same place, and wanting its cores for itself.
fn second(other: &Config, name: &str) -> Config {
    let mut config = Config::beside(other, name);
    config.targets = 1;
    config.oversubscribe = false;
    config
}

fn topology(engine: &Engine) -> keel::Topology {
    engine.ask(modules::KEEL, methods::ENGINE_TOPOLOGY, &())
}

/// CPUs of this test; on a machine with one, engines that want two cannot be tested.
fn cpus() -> Vec<usize> {
    spdk_env::cpu::allowed().unwrap()
}

fn held_by(engine: &Engine) -> String {
    format!("belongs to process {} (keel-engine)", engine.pid())
}

#[test]
fn the_topology_is_what_runs() {
    let engine = small(3).start();
    let (topology, status) = (topology(&engine), engine.status());
    let planned: Vec<_> = topology
        .xstreams
        .iter()
        .map(|xs| (xs.name.clone(), xs.cpu))
        .collect();
    let real: Vec<_> = status
        .xstreams
        .iter()
        .map(|xs| (xs.name.clone(), xs.cpu))
        .collect();
    assert_eq!(planned, real);
    let usable: Vec<u32> = topology.cpus.iter().map(|cpu| cpu.id).collect();
    assert!(
        planned.iter().all(|(_, cpu)| usable.contains(cpu)),
        "{topology:?}"
    );
    assert_eq!(topology.devices[1].targets, [1]);
    assert!(
        topology
            .warnings
            .iter()
            .all(|w| w.severity == "warning" || w.severity == "note")
    );
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn engines_that_share_cores_run_side_by_side_and_are_seen_by_others() {
    let config = small(3);
    let first = config.start();
    let beside = Config::beside(&config, "second").start();
    if cpus().len() > 1 {
        let refused = second(&config, "third").fails();
        refused.expect(73, "another engine has the cores: CPU ");
        let named = [&first, &beside].map(held_by);
        assert!(
            named.iter().any(|held| refused.log.contains(held)),
            "{}",
            refused.log
        );
        assert!(
            refused
                .log
                .contains("cure: give this engine other ones (engine.cpus, engine.first_core)")
        );
    }
    assert_eq!(
        (first.terminate().code, beside.terminate().code),
        (Some(0), Some(0))
    );
}

#[test]
fn a_core_is_claimed_until_its_engine_is_gone_however_it_ends() {
    if cpus().len() < 2 {
        alone().fails().expect(78, "2 cores are needed");
        return;
    }
    let config = alone();
    let first = config.start();
    let refused = second(&config, "second").fails();
    refused.expect(73, "another engine has the cores: CPU ");
    refused.expect(73, &held_by(&first));
    let mut unasked = second(&config, "third");
    unasked.engine_keys = "lock_cores = false".to_owned();
    assert_eq!(unasked.start().terminate().code, Some(0));
    let sharing = Config::beside(&config, "fourth").start();
    sharing.wait_log("alone: sharing it costs both engines");
    assert_eq!(sharing.terminate().code, Some(0));
    first.kill();
    assert_eq!(second(&config, "fifth").start().terminate().code, Some(0));
}

#[test]
fn one_cpu_is_enough_when_xstreams_may_share_it_and_refused_when_not() {
    let first = cpus()[0];
    let narrow = move || {
        spdk_env::cpu::pin_current_thread(first).unwrap();
        alone().fails().expect(
            78,
            "2 cores are needed (1 system + 1 target + 0 helpers), this machine offers 1",
        );
        let engine = small(4).start();
        let used: Vec<u32> = engine.status().xstreams.iter().map(|xs| xs.cpu).collect();
        assert_eq!(used, [first as u32; 5]);
        let shared = topology(&engine);
        let kinds: Vec<&str> = shared.warnings.iter().map(|w| w.kind.as_str()).collect();
        assert!(kinds.contains(&"system_shares_core"), "{kinds:?}");
        assert_eq!(engine.terminate().code, Some(0));
    };
    // A process inherits the affinity of the thread that starts it: the same to it as a cpuset of one CPU.
    std::thread::spawn(narrow).join().unwrap();
}

#[test]
fn a_list_of_cpus_is_followed_and_a_wrong_one_refused_with_its_reason() {
    let last = *cpus().last().unwrap();
    let mut config = small(2);
    config.engine_keys = format!("cpus = \"{last}\"");
    let engine = config.start();
    assert!(
        engine
            .status()
            .xstreams
            .iter()
            .all(|xs| xs.cpu == last as u32)
    );
    assert_eq!(engine.terminate().code, Some(0));
    config.engine_keys = format!("cpus = \"{last},8191\"");
    let refused = config.fails();
    refused.expect(78, "error: CPU 8191 cannot be used: this machine has CPUs ");
    refused.expect(78, "= help: name CPUs that are there");
    config.engine_keys = format!("cpus = \"{last},{last}\"");
    config
        .fails()
        .expect(78, &format!("`engine.cpus` names CPU {last} twice"));
}

#[test]
fn cores_and_nodes_that_are_not_there_and_too_many_xstreams_are_refused_with_a_cure() {
    let refused = |keys: &str, oversubscribe, targets, said: [&str; 2]| {
        let mut config = small(targets);
        config.engine_keys = keys.to_owned();
        config.oversubscribe = oversubscribe;
        let exited = config.fails();
        said.iter().for_each(|said| exited.expect(78, said));
    };
    let beyond = [
        "error: there is no core 4095: this machine has ",
        "= help: allowed here: 0 to ",
    ];
    refused("first_core = 4095", true, 1, beyond);
    let nowhere = [
        "error: there is no NUMA node 63 that this engine may use",
        "= help: nodes with usable cores: ",
    ];
    refused("numa_node = 63", true, 1, nowhere);
    let cores = cpus().len() as u32;
    let many = format!(
        "{} cores are needed (1 system + {} targets",
        cores + 2,
        cores + 1
    );
    let cure = "or set `oversubscribe = true` to share cores (for development)";
    refused("", false, cores + 1, [&many, cure]);
}
