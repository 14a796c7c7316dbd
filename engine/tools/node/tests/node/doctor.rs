//! One planted fault each.

use std::fs;

use engine_config::{Config, Hugepages};
use engine_node::{Account, Finding, Questions, Severity, at_start, examine, worst};

use crate::tree::{SSD, Tree, address};

fn found(tree: &Tree) -> Vec<Finding> {
    examine(&tree.root(), &tree.questions())
}

fn codes(found: &[Finding]) -> Vec<&str> {
    found.iter().map(|finding| finding.code).collect()
}

/// A prepared server with one fault has that finding and no other.
fn plants(code: &str, says: &str, plant: impl FnOnce(&Tree)) {
    let tree = Tree::server();
    tree.lent();
    plant(&tree);
    finds(&tree, code, says);
}

fn finds(tree: &Tree, code: &str, says: &str) {
    let before = tree.everything();
    let found = found(tree);
    assert_eq!(codes(&found), [code], "{found:#?}");
    assert!(found[0].cause.contains(says), "{found:#?}");
    assert!(!found[0].cure.is_empty());
    assert!(tree.everything() == before, "the doctor only reads");
}

#[test]
fn a_prepared_server_is_fine() {
    let tree = Tree::server();
    tree.lent();
    assert_eq!(found(&tree), []);
}

#[test]
fn devices_that_cannot_be_meant() {
    let at = |file: &str| format!("sys/bus/pci/devices/{SSD}/{file}");
    plants("KN001", "there is no such PCI device", |tree| {
        fs::remove_dir_all(tree.path(at(""))).unwrap()
    });
    plants("KN002", "a bridge (PCI class 060400)", |tree| {
        tree.file(at("class"), "0x060400\n")
    });
    plants("KN003", "no NVMe controller (PCI class 010601)", |tree| {
        tree.file(at("class"), "0x010601\n")
    });
}

#[test]
fn a_device_that_the_kernel_has() {
    let tree = Tree::server();
    finds(&tree, "KN008", "the kernel's driver `nvme` has it");
    fs::remove_file(tree.path(format!("sys/bus/pci/devices/{SSD}/driver"))).unwrap();
    finds(&tree, "KN008", "no driver has it");
    plants("KN009", "the driver `ahci` has it", |tree| {
        tree.link(
            format!("sys/bus/pci/devices/{SSD}/driver"),
            "../../drivers/ahci",
        )
    });
}

#[test]
fn a_device_in_use() {
    let used = |code: &str, says: &str, plant: &dyn Fn(&Tree)| {
        let tree = Tree::server();
        plant(&tree);
        let found = found(&tree);
        // That it is not bound is said, too, and last.
        assert!(
            codes(&found) == [code, "KN008"] && found[0].cause == says,
            "{found:#?}"
        );
    };
    let mounted = "22 1 259:1 / /srv/my\\040data rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw\n";
    used(
        "KN004",
        "/dev/nvme0n1p1 is mounted on /srv/my data",
        &|tree| tree.file("proc/self/mountinfo", mounted),
    );
    // btrfs has numbers of its own; another process's name space.
    let btrfs = "40 1 0:35 / /backup rw - btrfs /dev/nvme0n1 rw\n";
    used("KN004", "/dev/nvme0n1 is mounted on /backup", &|tree| {
        tree.file("proc/1/mountinfo", btrfs)
    });
    used("KN005", "/dev/nvme0n1p1 is swap space", &|tree| {
        tree.file(
            "proc/swaps",
            "Filename Type\n/dev/nvme0n1p1 partition 1 0 -2\n",
        )
    });
    used("KN006", "/dev/nvme0n1p1 is part of /dev/md127", &|tree| {
        tree.file("sys/class/block/nvme0n1p1/holders/md127", "")
    });
}

#[test]
fn what_is_made_of_a_device_is_followed_to_its_mount() {
    let tree = Tree::server();
    tree.file("sys/class/block/nvme0n1p1/holders/dm-0", "");
    tree.file("sys/class/block/dm-0/holders/dm-1", "");
    tree.file("sys/class/block/dm-1/dev", "253:1");
    tree.file(
        "proc/self/mountinfo",
        "22 1 253:1 / /home rw - xfs /dev/mapper/vg-home rw\n",
    );
    let found = found(&tree);
    assert_eq!(codes(&found), ["KN004", "KN006", "KN006", "KN008"]);
    assert_eq!(found[0].cause, "/dev/dm-1 is mounted on /home");
}

#[test]
fn a_namespace_with_several_paths_is_recognised() {
    let tree = Tree::server();
    fs::remove_dir_all(tree.path(format!("sys/bus/pci/devices/{SSD}/nvme"))).unwrap();
    tree.file(
        format!("sys/bus/pci/devices/{SSD}/nvme/nvme3/nvme0c3n1/size"),
        "1",
    );
    tree.file(
        "proc/self/mountinfo",
        "22 1 259:0 / /srv rw - ext4 /dev/nvme0n1 rw\n",
    );
    assert_eq!(codes(&found(&tree)), ["KN004", "KN008"]);
}

#[test]
fn a_running_engine_is_a_note_and_for_another_engine_a_fault() {
    let tree = Tree::server();
    tree.lent();
    tree.process(4242, "/dev/vfio/12");
    // Its pages are not missing.
    tree.pages(160, 0);
    finds(&tree, "KN011", "process 4242 (keel-engine) has it");
    let questions = Questions {
        at_start: true,
        ..tree.questions()
    };
    assert_eq!(
        codes(&examine(&tree.root(), &questions)),
        ["KN010", "KN030"]
    );
}

#[test]
fn no_iommu_and_what_is_missing_for_one() {
    let none = |tree: &Tree| {
        fs::remove_file(tree.path(format!("sys/bus/pci/devices/{SSD}/iommu_group"))).unwrap()
    };
    plants(
        "KN020",
        "the firmware shows none (no ACPI table DMAR)",
        none,
    );
    plants(
        "KN020",
        "the firmware has one and the kernel does not use it",
        |tree| {
            none(tree);
            tree.file("sys/firmware/acpi/tables/DMAR", "");
        },
    );
    plants("KN020", "no ACPI table IVRS", |tree| {
        none(tree);
        tree.file("proc/cpuinfo", "vendor_id : AuthenticAMD");
    });
    plants(
        "KN020",
        "the kernel was started with `intel_iommu=off`",
        |tree| {
            none(tree);
            tree.file("proc/cmdline", "quiet intel_iommu=off");
        },
    );
}

#[test]
fn a_group_that_the_kernel_has_a_part_of() {
    plants("KN021", "IOMMU group 12: 0000:06:00.0 (ahci)", |tree| {
        tree.device("0000:06:00.0", "0x010601", Some("ahci"), Some(12));
        // Bridges and devices without a driver are not in the way.
        tree.device("0000:04:00.0", "0x060400", Some("pcieport"), Some(12));
        tree.device("0000:07:00.0", "0x010601", None, Some(12));
    });
}

#[test]
fn uio_says_what_is_lost() {
    let tree = Tree::server();
    tree.lent_unprotected();
    let root_user = Account::named(&tree.root(), "root").unwrap();
    let questions = |account: &Account| Questions {
        account: account.clone(),
        ..tree.questions()
    };
    let found = examine(&tree.root(), &questions(&root_user));
    assert_eq!(codes(&found), ["KN022"]);
    assert!(
        found[0]
            .cause
            .contains("can overwrite any memory of this machine")
    );
    let keel = Account::named(&tree.root(), "keel").unwrap();
    assert_eq!(
        codes(&examine(&tree.root(), &questions(&keel))),
        ["KN042", "KN022"]
    );
    tree.pages(160, 10);
    tree.file(
        "sys/kernel/security/lockdown",
        "none [integrity] confidentiality",
    );
    assert_eq!(
        codes(&examine(&tree.root(), &questions(&root_user))),
        ["KN031", "KN052", "KN022"]
    );
}

#[test]
fn uio_behind_an_iommu_reaches_no_memory() {
    let tree = Tree::server();
    tree.lent_unprotected();
    tree.link(format!("sys/bus/pci/devices/{SSD}/iommu_group"), "x/12");
    let questions = Questions {
        account: Account::named(&tree.root(), "root").unwrap(),
        ..tree.questions()
    };
    assert_eq!(codes(&examine(&tree.root(), &questions)), ["KN023"]);
    tree.file("sys/kernel/iommu_groups/12/type", "identity");
    assert_eq!(codes(&examine(&tree.root(), &questions)), ["KN022"]);
}

#[test]
fn modules_that_the_kernel_lacks() {
    let tree = Tree::server();
    tree.file(
        "lib/modules/6.1.0-18-amd64/modules.dep",
        "kernel/drivers/vfio/pci/vfio-pci-core.ko:\n",
    );
    assert_eq!(codes(&found(&tree)), ["KN008", "KN024"]);
    tree.file(
        "lib/modules/6.1.0-18-amd64/modules.builtin",
        "kernel/drivers/vfio/pci/vfio-pci.ko\n",
    );
    assert_eq!(codes(&found(&tree)), ["KN008"]);
    plants("KN025", "/dev/vfio/vfio is not there", |tree| {
        fs::remove_file(tree.path("dev/vfio/vfio")).unwrap()
    });
}

#[test]
fn huge_pages() {
    plants(
        "KN030",
        "270 MiB for DMA are needed, 200 MiB of huge pages of 2 MiB are free",
        |tree| tree.pages(160, 100),
    );
    let tree = Tree::server();
    tree.lent();
    tree.pages(40, 30);
    tree.file("proc/buddyinfo", "Node 0, zone   Normal  9 9 9 9 9 9 9 9 9 1 2\nNode 1, zone Normal 0 0 0 0 0 0 0 0 0 500 0\n");
    let found = found(&tree);
    assert_eq!(codes(&found), ["KN030", "KN032"]);
    // 270 MiB are 135 pages; 30 are free.
    assert_eq!(
        found[0].cause,
        "270 MiB for DMA are needed, 60 MiB of huge pages of 2 MiB are free"
    );
    assert!(found[0].cure.starts_with(
        "echo 145 > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
    ));
    assert_eq!(
        found[1].cause,
        "105 huge pages are missing, and the free memory has 5 runs of 2 MiB"
    );
    plants("KN033", "no huge pages of 2 MiB", |tree| {
        fs::remove_dir_all(tree.path("sys/devices/system/node/node0/hugepages")).unwrap()
    });
}

#[test]
fn huge_pages_of_the_size_that_is_asked_for() {
    let tree = Tree::server();
    tree.lent();
    tree.pages(0, 0);
    let found = |pages: Hugepages| {
        let mut questions = tree.questions();
        questions.need.pages = pages;
        examine(&tree.root(), &questions)
    };
    assert_eq!(found(Hugepages::Off), []);
    let giant = found(Hugepages::OneGiB);
    assert_eq!(codes(&giant), ["KN033"]);
    assert!(giant[0].cause.ends_with("no huge pages of 1 GiB"));
    assert!(giant[0].cure.contains("pdpe1gb"));

    tree.giant_pages(0, 0);
    let giant = found(Hugepages::OneGiB);
    assert_eq!(codes(&giant), ["KN031"]);
    assert!(giant[0].cure.starts_with(
        "echo 1 > /sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages"
    ));
    tree.giant_pages(1, 1);
    assert_eq!(found(Hugepages::OneGiB), []);
    // Those are no pages of 2 MiB.
    assert_eq!(codes(&found(Hugepages::Auto)), ["KN030"]);
    assert_eq!(codes(&found(Hugepages::TwoMiB)), ["KN031"]);
}

#[test]
fn limits_and_permissions() {
    let limit = "Max locked memory         8388608              8388608              bytes     \n";
    plants("KN041", "8 MiB may be locked, 270 MiB are needed", |tree| {
        tree.file("proc/self/limits", limit)
    });
    let tree = Tree::server();
    tree.lent();
    tree.file("proc/self/limits", limit);
    tree.file("proc/self/status", "CapEff:\t0000000000004000\n");
    assert_eq!(found(&tree), [], "CAP_IPC_LOCK");
    let keel = Account::named(&tree.root(), "keel").unwrap();
    let questions = Questions {
        account: keel,
        ..tree.questions()
    };
    let found = examine(&tree.root(), &questions);
    assert_eq!(codes(&found), ["KN040"]);
    assert_eq!(
        (found[0].cause.as_str(), found[0].cure.as_str()),
        (
            "keel (uid 990) may not open /dev/vfio/12",
            "keel node prepare 0000:05:00.0 --user keel"
        )
    );
    let error = Account::named(&tree.root(), "kee").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("there is no user `kee` in /etc/passwd; make it: useradd")
    );
}

#[test]
fn the_kernel_itself() {
    plants("KN050", "Linux 5.4.0-26-generic runs", |tree| {
        tree.file("proc/sys/kernel/osrelease", "5.4.0-26-generic\n");
    });
    plants("KN051", "CPUs 2 will always poll", |tree| {
        tree.file("sys/devices/system/cpu/isolated", "\n")
    });
}

#[test]
fn the_worst_comes_first_and_decides() {
    let tree = Tree::server();
    tree.pages(0, 0);
    tree.file("sys/devices/system/cpu/isolated", "\n");
    let found = found(&tree);
    assert_eq!(codes(&found), ["KN008", "KN030", "KN051"]);
    assert_eq!(worst(&found), Some(Severity::Fault));
    assert_eq!(worst(&found[1..]), Some(Severity::Warning));
    assert_eq!(worst(&[]), None);
    let text = found[0].to_string();
    assert_eq!(
        text,
        "KN008 fault 0000:05:00.0: the kernel's driver `nvme` has it, not vfio-pci\n  cure: keel node prepare 0000:05:00.0"
    );
}

#[test]
fn an_engine_without_ssds_asks_nothing_and_one_with_them_everything() {
    let tree = Tree::server();
    let config = |devices: &str, targets: u32| {
        let text = format!("[engine]\ntargets = {targets}\n{devices}");
        Config::parse("test.toml", &text).unwrap_or_else(|errors| panic!("{errors}"))
    };
    tree.pages(0, 0);
    assert_eq!(
        at_start(
            &tree.root(),
            &config(
                "[[device]]\nname = \"n\"\nkind = \"null\"\nsize = \"1GiB\"\n",
                1
            )
        ),
        []
    );
    let ssd = |name: &str, at: &str| {
        format!("[[device]]\nname = \"{name}\"\nkind = \"nvme\"\naddress = \"{at}\"\n")
    };
    let two = config(&(ssd("a", SSD) + &ssd("b", "0000:09:00.0")), 4);
    let found = at_start(&tree.root(), &two);
    assert_eq!(codes(&found), ["KN001", "KN008", "KN030"]);
    // 176 + 64 + 4 for all, 21 for each SSD, 5 for each target.
    assert!(found[2].cause.starts_with("306 MiB"), "{found:#?}");
}

#[test]
fn memory_is_needed_where_the_ssd_is() {
    let tree = Tree::server();
    tree.file("sys/devices/system/node/node1/cpulist", "1");
    tree.device("0000:85:00.0", "0x010802", Some("nvme"), Some(30));
    tree.file("sys/bus/pci/devices/0000:85:00.0/numa_node", "1");
    let need =
        engine_node::Need::of_devices(&tree.root(), &[address(SSD), address("0000:85:00.0")]);
    let mib: Vec<(u32, u64)> = need
        .bytes
        .iter()
        .map(|(node, bytes)| (*node, bytes >> 20))
        .collect();
    assert_eq!(mib, [(0, 270), (1, 26)]);
}
