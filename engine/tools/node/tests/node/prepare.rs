//! Prepared, and released again.

use std::fs;

use engine_node::{Address, Preparation, Record, Refusal, Release, Wish, status};

use crate::kernel::Kernel;
use crate::tree::{SSD, Tree, address};

fn wish(tree: &Tree) -> Wish {
    Wish {
        at_boot: true,
        ..Wish::of(tree.need())
    }
}

fn plan(tree: &Tree, wish: &Wish) -> Result<Preparation, Refusal> {
    Preparation::plan(&tree.root(), wish, "/usr/bin/keel")
}

fn prepare(tree: &Tree, kernel: &mut Kernel<'_>, wish: &Wish) -> Result<(), Refusal> {
    plan(tree, wish)?.run(&tree.root(), kernel, |_| ())
}

fn release(tree: &Tree, only: &[Address]) -> Result<Vec<String>, Refusal> {
    let mut kernel = Kernel::of(tree);
    Release::plan(&tree.root(), only)?.run(&tree.root(), &mut kernel, |_| ())?;
    Ok(kernel.done)
}

fn driver(tree: &Tree, device: &str) -> String {
    let link = fs::read_link(tree.path(format!("sys/bus/pci/devices/{device}/driver"))).unwrap();
    link.file_name().unwrap().to_string_lossy().into_owned()
}

/// Nothing is planned and nothing changed.
fn refuses(tree: &Tree, wish: &Wish, code: &str, says: &str) {
    let before = tree.everything();
    let error = plan(tree, wish).unwrap_err().to_string();
    assert!(
        error.starts_with(code) && error.contains(says) && !error.contains("\nKN"),
        "{error}"
    );
    assert!(tree.everything() == before, "a refusal changes nothing");
}

#[test]
fn what_is_prepared_is_released_to_the_last_file() {
    let tree = Tree::server();
    tree.pages(100, 80);
    let before = tree.everything();
    let mut kernel = Kernel::of(&tree);
    prepare(&tree, &mut kernel, &wish(&tree)).unwrap();
    assert_eq!(driver(&tree, SSD), "vfio-pci");
    let sysfs = format!("/sys/bus/pci/devices/{SSD}");
    let expected = [
        "modprobe vfio-pci".to_owned(),
        // 135 are needed, 80 were free.
        "echo 155 > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
            .to_owned(),
        format!("echo vfio-pci > {sysfs}/driver_override"),
        format!("echo {SSD} > {sysfs}/driver/unbind"),
        format!("echo {SSD} > /sys/bus/pci/drivers_probe"),
        format!("test \"$(basename $(readlink {sysfs}/driver))\" = vfio-pci"),
    ];
    assert_eq!(kernel.done[..6], expected);
    assert!(
        kernel.done[6].contains("ExecStart=/usr/bin/keel node prepare --saved"),
        "{:?}",
        kernel.done
    );
    assert_eq!(kernel.done.len(), 8);
    let now = status(&tree.root(), None).unwrap();
    assert!(now.at_boot && now.devices[0].prepared);
    release(&tree, &[]).unwrap();
    let after = tree.everything();
    assert_eq!(before, after);
}

#[test]
fn prepared_twice_is_prepared_once() {
    let tree = Tree::server();
    let before = tree.everything();
    prepare(&tree, &mut Kernel::of(&tree), &wish(&tree)).unwrap();
    let once = tree.everything();
    let again = plan(&tree, &wish(&tree)).unwrap();
    assert_eq!(again.steps, []);
    again
        .run(&tree.root(), &mut Kernel::of(&tree), |_| ())
        .unwrap();
    assert_eq!(tree.everything(), once);
    release(&tree, &[]).unwrap();
    assert_eq!(tree.everything(), before);
    assert_eq!(
        release(&tree, &[]).unwrap(),
        [""; 0],
        "nothing is left to undo"
    );
}

#[test]
fn devices_that_must_be_left_alone_are_refused() {
    let mounted = Tree::server();
    mounted.file(
        "proc/self/mountinfo",
        "22 1 259:1 / /srv rw - ext4 /dev/nvme0n1p1 rw\n",
    );
    refuses(
        &mounted,
        &wish(&mounted),
        "KN004",
        "/dev/nvme0n1p1 is mounted on /srv\n  cure: umount /srv",
    );
    let swap = Tree::server();
    swap.file(
        "proc/swaps",
        "Filename Type\n/dev/nvme0n1p1 partition 1 0 -2\n",
    );
    refuses(&swap, &wish(&swap), "KN005", "swapoff /dev/nvme0n1p1");
    let held = Tree::server();
    held.file("sys/class/block/nvme0n1/holders/md0", "");
    refuses(&held, &wish(&held), "KN006", "mdadm --stop /dev/md0");
    let other = Tree::server();
    other.link(
        format!("sys/bus/pci/devices/{SSD}/driver"),
        "../../drivers/ahci",
    );
    refuses(&other, &wish(&other), "KN009", "the driver `ahci` has it");
}

#[test]
fn devices_that_cannot_be_meant_are_refused() {
    let tree = Tree::server();
    let of = |at: &str| Wish::of(engine_node::Need::of_devices(&tree.root(), &[address(at)]));
    refuses(
        &tree,
        &of("0000:77:00.0"),
        "KN001",
        "0000:77:00.0: there is no such PCI device",
    );
    tree.device("0000:04:00.0", "0x060400", Some("pcieport"), Some(3));
    refuses(&tree, &of("0000:04:00.0"), "KN002", "it is a bridge");
    tree.device("0000:06:00.0", "0x010601", Some("ahci"), Some(4));
    refuses(&tree, &of("0000:06:00.0"), "KN003", "no NVMe controller");
}

#[test]
fn a_shared_group_is_refused_unless_all_of_it_is_meant() {
    let tree = Tree::server();
    tree.device("0000:06:00.0", "0x010802", Some("nvme"), Some(12));
    refuses(&tree, &wish(&tree), "KN021", "0000:06:00.0 (nvme)");
    let both = Wish::of(engine_node::Need::of_devices(
        &tree.root(),
        &[address(SSD), address("0000:06:00.0")],
    ));
    prepare(&tree, &mut Kernel::of(&tree), &both).unwrap();
    assert_eq!(
        (driver(&tree, SSD), driver(&tree, "0000:06:00.0")),
        ("vfio-pci".into(), "vfio-pci".into())
    );
}

#[test]
fn without_an_iommu_uio_has_to_be_asked_for() {
    let tree = Tree::server();
    fs::remove_file(tree.path(format!("sys/bus/pci/devices/{SSD}/iommu_group"))).unwrap();
    let before = tree.everything();
    refuses(&tree, &wish(&tree), "KN020", "keel node prepare --uio");
    let uio = Wish {
        uio: true,
        ..wish(&tree)
    };
    let planned = plan(&tree, &uio).unwrap();
    assert!(
        planned.notes[0].contains("nothing keeps these devices from memory that is not theirs")
    );
    prepare(&tree, &mut Kernel::of(&tree), &uio).unwrap();
    assert_eq!(driver(&tree, SSD), "uio_pci_generic");
    release(&tree, &[]).unwrap();
    fs::remove_file(tree.path("dev/vfio/12")).ok();
    assert_eq!(tree.everything(), before);
    let protected = Tree::server();
    refuses(
        &protected,
        &Wish {
            uio: true,
            ..wish(&protected)
        },
        "KN023",
        "translates addresses",
    );
}

#[test]
fn a_kernel_without_the_module_is_refused() {
    let tree = Tree::server();
    fs::remove_dir_all(tree.path("lib")).unwrap();
    refuses(
        &tree,
        &wish(&tree),
        "KN024",
        "Linux 6.1.0-18-amd64 has no module vfio-pci",
    );
    fs::remove_file(tree.path(format!("sys/bus/pci/devices/{SSD}/iommu_group"))).unwrap();
    refuses(
        &tree,
        &Wish {
            uio: true,
            ..wish(&tree)
        },
        "KN026",
        "no module uio_pci_generic",
    );
}

#[test]
fn all_that_is_in_the_way_is_said_at_once() {
    let tree = Tree::server();
    tree.file(
        "proc/self/mountinfo",
        "22 1 259:1 / /srv rw - ext4 /dev/nvme0n1p1 rw\n",
    );
    let need =
        engine_node::Need::of_devices(&tree.root(), &[address(SSD), address("0000:77:00.0")]);
    let Err(Refusal::Findings(found)) = plan(&tree, &Wish::of(need)) else {
        panic!("it was not refused");
    };
    assert_eq!(
        found.iter().map(|finding| finding.code).collect::<Vec<_>>(),
        ["KN001", "KN004"]
    );
}

#[test]
fn pages_of_1_gib_are_set_aside_and_given_back_where_a_configuration_asks_for_them() {
    let tree = Tree::server();
    tree.giant_pages(0, 0);
    let wish = Wish::of(engine_node::Need {
        pages: engine_config::Hugepages::OneGiB,
        ..tree.need()
    });
    let steps = |steps: &[engine_node::Step]| -> Vec<String> {
        let all = steps.iter().map(ToString::to_string);
        all.filter(|step| step.contains("hugepages")).collect()
    };
    let file = "/sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages";
    assert_eq!(
        steps(&plan(&tree, &wish).unwrap().steps),
        [format!("echo 1 > {file}")]
    );
    prepare(&tree, &mut Kernel::of(&tree), &wish).unwrap();
    let back = Release::plan(&tree.root(), &[]).unwrap();
    assert_eq!(steps(&back.steps), [format!("echo 0 > {file}")]);
}

#[test]
fn a_step_that_fails_ends_it_and_what_was_done_can_be_undone() {
    let tree = Tree::server();
    tree.pages(10, 10);
    let before = tree.everything();
    let mut kernel = Kernel {
        most_pages: 50,
        ..Kernel::of(&tree)
    };
    let error = prepare(&tree, &mut kernel, &wish(&tree))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the kernel found 50 of 135 huge pages"),
        "{error}"
    );
    assert_eq!(driver(&tree, SSD), "nvme");
    release(&tree, &[]).unwrap();
    assert_eq!(tree.everything(), before);

    let mut kernel = Kernel {
        probes_nothing: true,
        ..Kernel::of(&tree)
    };
    let error = prepare(&tree, &mut kernel, &wish(&tree))
        .unwrap_err()
        .to_string();
    assert!(error.contains("0000:05:00.0 has no driver now"), "{error}");
    release(&tree, &[]).unwrap();
    assert_eq!(tree.everything(), before);
}

#[test]
fn a_reboot_undoes_it_and_the_saved_wish_does_it_again() {
    let tree = Tree::server();
    tree.pages(0, 0);
    prepare(&tree, &mut Kernel::of(&tree), &wish(&tree)).unwrap();
    // The next boot: the kernel's driver again, and some pages of the command line's.
    let rebooted = Tree::server();
    rebooted.file("proc/sys/kernel/random/boot_id", "second-boot");
    rebooted.pages(20, 20);
    let before = rebooted.everything();
    for kept in [
        "var/lib/keel-node/record.json",
        "etc/systemd/system/keel-node.service",
    ] {
        rebooted.file(kept, &fs::read_to_string(tree.path(kept)).unwrap());
    }
    let unit = "etc/systemd/system/multi-user.target.wants/keel-node.service";
    rebooted.link(unit, "/etc/systemd/system/keel-node.service");
    let saved = Record::load(&rebooted.root()).unwrap().wish;
    assert_eq!(saved, wish(&tree));
    prepare(&rebooted, &mut Kernel::of(&rebooted), &saved).unwrap();
    assert_eq!(driver(&rebooted, SSD), "vfio-pci");
    release(&rebooted, &[]).unwrap();
    assert_eq!(rebooted.everything(), before);
}

#[test]
fn devices_are_released_one_by_one_and_the_rest_with_the_last() {
    let tree = Tree::server();
    tree.pages(0, 0);
    tree.device("0000:06:00.0", "0x010802", Some("nvme"), Some(13));
    tree.disk("0000:06:00.0", "nvme0", "nvme0n1");
    let both = [address(SSD), address("0000:06:00.0")];
    let wish = Wish::of(engine_node::Need::of_devices(&tree.root(), &both));
    prepare(&tree, &mut Kernel::of(&tree), &wish).unwrap();
    release(&tree, &both[..1]).unwrap();
    assert_eq!(
        (driver(&tree, SSD), driver(&tree, "0000:06:00.0")),
        ("nvme".into(), "vfio-pci".into())
    );
    let planned = Release::plan(&tree.root(), &both[..1]).unwrap();
    assert_eq!(planned.steps, []);
    assert_eq!(
        planned.notes,
        [format!("{SSD}: it was not prepared by `keel node prepare`")]
    );
    // The second was pulled out meanwhile.
    fs::remove_dir_all(tree.path("sys/bus/pci/devices/0000:06:00.0")).unwrap();
    assert!(Release::plan(&tree.root(), &[]).unwrap().notes[0].contains("not there any more"));
    let done = release(&tree, &[]).unwrap();
    assert_eq!(done.last().unwrap(), "modprobe -r vfio-pci || true");
    assert!(Record::load(&tree.root()).unwrap().is_empty());
}

#[test]
fn a_device_that_an_engine_drives_is_not_touched() {
    let tree = Tree::server();
    prepare(&tree, &mut Kernel::of(&tree), &wish(&tree)).unwrap();
    tree.process(4242, "/dev/vfio/12");
    tree.pages(160, 3);
    assert_eq!(
        plan(&tree, &wish(&tree)).unwrap().steps,
        [],
        "it is prepared, its pages are in use"
    );
    let error = release(&tree, &[]).unwrap_err().to_string();
    assert!(
        error.starts_with("KN010") && error.contains("process 4242 (keel-engine) has it"),
        "{error}"
    );
    assert_eq!(driver(&tree, SSD), "vfio-pci");
}

#[test]
fn the_user_gets_the_group_and_two_at_a_time_are_one_too_many() {
    let tree = Tree::server();
    let own = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    tree.file("etc/passwd", &format!("me:x:{own}:{group}::/:/bin/sh\n"));
    let wish = Wish {
        user: Some("me".into()),
        ..wish(&tree)
    };
    let mut kernel = Kernel::of(&tree);
    prepare(&tree, &mut kernel, &wish).unwrap();
    assert!(
        kernel
            .done
            .contains(&format!("chown {own}:{group} /dev/vfio/12")),
        "{:?}",
        kernel.done
    );
    assert_eq!(plan(&tree, &wish).unwrap().steps, []);
    let nobody = Wish {
        user: Some("nobody".into()),
        ..wish
    };
    assert!(
        plan(&tree, &nobody)
            .unwrap_err()
            .to_string()
            .starts_with("there is no user `nobody`")
    );
    let lock = fs::File::open(tree.path("var/lib/keel-node/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert!(
        release(&tree, &[])
            .unwrap_err()
            .to_string()
            .starts_with("another `keel node prepare`")
    );
}

#[test]
fn a_damaged_record_is_named() {
    let tree = Tree::server();
    tree.file("var/lib/keel-node/record.json", "{\"wish\": 7}");
    let error = plan(&tree, &wish(&tree)).unwrap_err().to_string();
    assert!(
        error.starts_with("/var/lib/keel-node/record.json is damaged ("),
        "{error}"
    );
}
