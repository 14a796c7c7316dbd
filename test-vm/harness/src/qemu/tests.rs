use super::*;

fn line(profile: &str, peer: Option<(u8, &Path)>) -> String {
    let profile = Profile::named(profile).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let disks = Disks::create(&profile, dir.path()).unwrap();
    let launch = Launch {
        profile: &profile,
        disks: &disks,
        accel: Accel::Tcg,
        kernel: Path::new("/vmlinux"),
        image: Path::new("/image"),
        programs: Path::new("/a,b"),
        state: Path::new("/state"),
        qmp: Path::new("/qmp"),
        agent: Path::new("/agent"),
        host_port: 4321,
        peer,
        console: Console::File(Path::new("/console")),
    };
    let words: Vec<_> = launch
        .arguments()
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}

#[test]
fn a_controller_is_behind_a_port_of_its_own() {
    let line = line("one_nvme", None);
    let has = |part: &str| assert!(line.contains(part), "no {part:?} in {line}");
    has("-device pcie-root-port,id=n0.port,bus=pcie.0,addr=0x10,chassis=1");
    has("-device nvme,id=n0,serial=n0,bus=n0.port,");
    has("drive=n0n1,logical_block_size=512");
    has("intel-iommu");
    has("intel_iommu=on");
    has("path=/a,,b");
    assert_eq!(port_address(0), "0000:00:10.0");
}

#[test]
fn two_controllers_can_be_functions_of_one_slot() {
    let line = line("shared_group", None);
    assert_eq!(line.matches("pcie-root-port").count(), 1, "{line}");
    for part in [
        "nvme,id=n0,serial=n0,bus=n0.port,",
        "addr=0.0,multifunction=on",
        "nvme,id=n1,serial=n1,bus=n0.port,",
        "addr=0.1,multifunction=on",
    ] {
        assert!(line.contains(part), "no {part:?} in {line}");
    }
}

#[test]
fn several_namespaces_are_devices_of_the_controller() {
    let line = line("four_nvme", None);
    assert!(line.contains("-device nvme-ns,bus="), "{line}");
    assert!(line.contains("nsid=2"), "{line}");
    assert!(line.contains("logical_block_size=4096"), "{line}");
}

#[test]
fn without_an_iommu_there_is_none() {
    assert!(!line("no_iommu", None).contains("iommu=on"));
}

#[test]
fn the_first_of_two_listens_and_the_second_connects() {
    let net = Path::new("/net");
    assert!(
        line("pair", Some((1, net)))
            .contains("stream,id=peer,server=on,addr.type=unix,addr.path=/net")
    );
    assert!(
        line("pair", Some((2, net)))
            .contains("stream,id=peer,server=off,addr.type=unix,addr.path=/net")
    );
}

#[test]
fn nodes_share_memory_and_processors() {
    let line = line("numa", None);
    assert!(line.contains("-numa node,nodeid=1,cpus="), "{line}");
    assert!(line.contains("memory-backend-ram,id=mem1,size="), "{line}");
}
