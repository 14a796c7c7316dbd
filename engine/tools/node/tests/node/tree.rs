//! A host made of files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use engine_node::{Address, Need, Questions, Root};
use tempfile::TempDir;

/// The SSD of most tests, in group 12 on node 0.
pub(crate) const SSD: &str = "0000:05:00.0";
/// Pages of node 0: enough for an engine with one SSD.
pub(crate) const PAGES: u64 = 160;

pub(crate) struct Tree(TempDir);

impl Tree {
    /// A healthy server with an IOMMU, huge pages and one SSD that the kernel's driver has.
    pub(crate) fn server() -> Tree {
        let tree = Tree(TempDir::new().unwrap());
        tree.file("proc/sys/kernel/osrelease", "6.1.0-18-amd64");
        tree.file("proc/sys/kernel/random/boot_id", "first-boot");
        tree.file("proc/cmdline", "root=/dev/sda1 quiet");
        tree.file("proc/cpuinfo", "vendor_id : GenuineIntel");
        tree.file(
            "proc/swaps",
            "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n",
        );
        tree.file(
            "proc/self/mountinfo",
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
        );
        tree.file(
            "proc/self/status",
            "Name:\tkeel\nCapEff:\t0000000000000000\n",
        );
        tree.file(
            "proc/self/limits",
            "Max locked memory         unlimited            unlimited            bytes     \n",
        );
        tree.file(
            "proc/buddyinfo",
            "Node 0, zone   Normal  9 9 9 9 9 9 9 9 9 100 200\n",
        );
        tree.file("sys/devices/system/cpu/isolated", "2-3");
        tree.file(
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\nkeel:x:990:990::/:/bin/false\n",
        );
        tree.file("etc/group", "disk:x:6:keel\n");
        fs::create_dir_all(tree.path("etc/systemd/system")).unwrap();
        for driver in ["nvme", "pcieport", "ahci"] {
            fs::create_dir_all(tree.path(format!("sys/bus/pci/drivers/{driver}"))).unwrap();
        }
        tree.file(
            "lib/modules/6.1.0-18-amd64/modules.dep",
            "kernel/drivers/vfio/pci/vfio-pci.ko: x.ko\nkernel/drivers/uio/uio_pci_generic.ko:\n",
        );
        tree.pages(PAGES, PAGES);
        tree.device(SSD, "0x010802", Some("nvme"), Some(12));
        tree.disk(SSD, "nvme0", "nvme0n1");
        tree
    }

    pub(crate) fn root(&self) -> Root {
        Root::at(self.0.path())
    }

    pub(crate) fn path(&self, path: impl AsRef<Path>) -> std::path::PathBuf {
        self.0.path().join(path)
    }

    pub(crate) fn file(&self, path: impl AsRef<Path>, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn link(&self, path: impl AsRef<Path>, to: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(to, path).unwrap();
    }

    /// Huge pages of node 0: all, and those that nobody uses.
    pub(crate) fn pages(&self, total: u64, free: u64) {
        self.pages_of(2048, total, free);
    }

    /// Those of 1 GiB.
    pub(crate) fn giant_pages(&self, total: u64, free: u64) {
        self.pages_of(1 << 20, total, free);
    }

    fn pages_of(&self, kib: u64, total: u64, free: u64) {
        let node = "sys/devices/system/node/node0";
        let at = |file: &str| format!("{node}/hugepages/hugepages-{kib}kB/{file}");
        self.file(at("nr_hugepages"), &total.to_string());
        self.file(at("free_hugepages"), &free.to_string());
    }

    pub(crate) fn device(
        &self,
        address: &str,
        class: &str,
        driver: Option<&str>,
        group: Option<u32>,
    ) {
        let at = |file: &str| format!("sys/bus/pci/devices/{address}/{file}");
        self.file(at("class"), class);
        self.file(at("driver_override"), "(null)");
        self.file(at("numa_node"), "-1");
        if let Some(driver) = driver {
            self.link(at("driver"), &format!("../../drivers/{driver}"));
        }
        if let Some(group) = group {
            self.link(
                at("iommu_group"),
                &format!("../../../../kernel/iommu_groups/{group}"),
            );
            self.file(format!("sys/kernel/iommu_groups/{group}/type"), "DMA-FQ");
            self.file(
                format!("sys/kernel/iommu_groups/{group}/devices/{address}"),
                "",
            );
        }
    }

    /// A disk of a controller, 259:0, with one partition, 259:1.
    pub(crate) fn disk(&self, address: &str, controller: &str, disk: &str) {
        self.file(
            format!("sys/bus/pci/devices/{address}/nvme/{controller}/{disk}/size"),
            "1000",
        );
        self.file(format!("sys/class/block/{disk}/dev"), "259:0");
        self.file(format!("sys/class/block/{disk}/{disk}p1/partition"), "1");
        self.file(format!("sys/class/block/{disk}p1/dev"), "259:1");
        self.file(format!("dev/{disk}"), "");
    }

    /// The SSD as `keel node prepare` leaves it.
    pub(crate) fn lent(&self) {
        fs::create_dir_all(self.path("sys/bus/pci/drivers/vfio-pci")).unwrap();
        let _ = fs::remove_dir_all(self.path(format!("sys/bus/pci/devices/{SSD}/nvme")));
        self.link(
            format!("sys/bus/pci/devices/{SSD}/driver"),
            "../../drivers/vfio-pci",
        );
        self.file("dev/vfio/12", "");
        self.file("dev/vfio/vfio", "");
    }

    /// The SSD bound to `uio_pci_generic`, without an IOMMU.
    pub(crate) fn lent_unprotected(&self) {
        self.lent();
        fs::remove_file(self.path(format!("sys/bus/pci/devices/{SSD}/iommu_group"))).unwrap();
        self.link(
            format!("sys/bus/pci/devices/{SSD}/driver"),
            "../../drivers/uio_pci_generic",
        );
        self.file(
            format!("sys/bus/pci/devices/{SSD}/uio/uio0/name"),
            "uio_pci_generic",
        );
        self.file("dev/uio0", "");
    }

    /// An engine has a file open.
    pub(crate) fn process(&self, pid: u32, opened: &str) {
        self.file(format!("proc/{pid}/comm"), "keel-engine\n");
        self.link(format!("proc/{pid}/fd/7"), opened);
    }

    /// Every file with its text, every link with its target.
    pub(crate) fn everything(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path
                    .strip_prefix(self.0.path())
                    .unwrap()
                    .display()
                    .to_string();
                let kind = path.symlink_metadata().unwrap();
                if kind.is_symlink() {
                    all.insert(name, fs::read_link(&path).unwrap().display().to_string());
                } else if kind.is_dir() {
                    folders.push(path);
                } else if !name.ends_with("keel-node/lock") {
                    all.insert(name, fs::read_to_string(&path).unwrap().trim().to_owned());
                }
            }
        }
        all
    }

    pub(crate) fn need(&self) -> Need {
        Need::of_devices(&self.root(), &[address(SSD)])
    }

    /// What an operator would ask, as a user who owns the tree.
    pub(crate) fn questions(&self) -> Questions {
        Questions {
            need: self.need(),
            account: engine_node::Account::own(),
            at_start: false,
            polled: vec![2],
        }
    }
}

pub(crate) fn address(text: &str) -> Address {
    text.parse().unwrap()
}
