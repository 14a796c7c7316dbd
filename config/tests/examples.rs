//! Every file in `config/examples` is right, and fits the machine that it is meant for.

use std::path::{Path, PathBuf};

use engine_config::{Backing, Config, Machine, PathKind, Provider};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn load(name: &str) -> Config {
    Config::load(examples().join(name)).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A storage node on which the packages are installed and nothing was stored yet.
fn storage_node(cores: u32) -> Machine {
    let modules = PathBuf::from("/usr/lib/keel");
    let mut machine = Machine::described(cores)
        .with_path("/var/lib/keel", PathKind::Directory, 0)
        .with_path("/run/keel", PathKind::Directory, 0);
    for name in ["mgmt", "obj", "hello"] {
        machine = machine.with_path(modules.join(format!("lib{name}.so")), PathKind::File, 1);
    }
    machine.module_dirs = vec![modules];
    machine
}

#[test]
fn each_example_reads() {
    let mut names: Vec<String> = std::fs::read_dir(examples())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "dev.toml",
            "libspdk.toml",
            "minimal.toml",
            "nvme.toml",
            "single_node.toml",
            "two_nodes.toml"
        ]
    );
    for name in names {
        let config = load(&name);
        let again = Config::parse("effective", &config.effective_toml())
            .unwrap_or_else(|errors| panic!("{name}: {errors}"));
        assert_eq!(
            config, again,
            "{name}: the effective form reads back the same"
        );
    }
}

#[test]
fn minimal_is_one_device() {
    let config = load("minimal.toml");
    assert_eq!(config.placements().len(), 1);
    config.check(&storage_node(2)).unwrap();
}

#[test]
fn dev_needs_two_cores_and_nothing_else() {
    let config = load("dev.toml");
    assert_eq!(config.engine.targets, 4);
    assert!(config.device.iter().all(|device| matches!(
        device.backing(),
        Some(Backing::File {
            create: Some(_),
            ..
        })
    )));
    assert!(config.rpc.listen.ip().is_loopback());
    config
        .check(&storage_node(2))
        .unwrap_or_else(|errors| panic!("{errors}"));
}

#[test]
fn single_node_fits_its_node_and_no_smaller_one() {
    let config = load("single_node.toml");
    config
        .check(&storage_node(11))
        .unwrap_or_else(|errors| panic!("{errors}"));
    assert!(
        config
            .check(&storage_node(10))
            .unwrap_err()
            .to_string()
            .contains("11 cores are needed")
    );
    assert_eq!(config.placements()[5].device, 1);
}

#[test]
fn nvme_is_two_ssds_that_have_to_be_there() {
    let config = load("nvme.toml");
    let machine = storage_node(11);
    assert_eq!(config.check(&machine).unwrap_err().count(), 2);
    let machine = machine
        .with_path("/sys/bus/pci/devices/0000:05:00.0", PathKind::Directory, 0)
        .with_path("/sys/bus/pci/devices/0000:06:00.0", PathKind::Directory, 0);
    config
        .check(&machine)
        .unwrap_or_else(|errors| panic!("{errors}"));
    let last = config.device[1].backing();
    let ssd = Backing::Nvme {
        address: "0000:06:00.0",
        namespace: Some(1),
    };
    assert_eq!((last, config.placements()[7].slice), (Some(ssd), 3));
}

#[test]
fn libspdk_needs_an_engine_that_has_it_and_spdks_configuration() {
    let config = load("libspdk.toml");
    let mut machine = storage_node(3);
    let errors = config.check(&machine).unwrap_err();
    assert_eq!(errors.count(), 2, "{errors}");
    machine.providers.push(Provider::Libspdk);
    let machine = machine.with_path("/etc/keel/spdk.json", PathKind::File, 1);
    config
        .check(&machine)
        .unwrap_or_else(|errors| panic!("{errors}"));
    let first = config.device[0].backing();
    assert_eq!(first, Some(Backing::Spdk { bdev: "Malloc0" }));
}

#[test]
fn two_nodes_differ_in_rank_and_address() {
    let config = load("two_nodes.toml");
    assert_eq!(config.engine.rank, Some(0));
    let ranks: Vec<u32> = config
        .group
        .member
        .iter()
        .map(|member| member.rank)
        .collect();
    assert_eq!(ranks, [0, 1]);
    config
        .check(&storage_node(6))
        .unwrap_or_else(|errors| panic!("{errors}"));
}
