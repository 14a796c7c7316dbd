//! Who uses a device: file systems, swap, LVM, md and dm above its block devices, and processes that have it themselves.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;

use crate::pci::PciDevice;
use crate::root::Root;

/// One use of a device, for which it must be left alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// A file system is mounted.
    Mounted {
        /// The block device, such as `nvme0n1p1` or `dm-0`.
        block: String,
        /// Where.
        point: String,
    },
    /// Memory is swapped to it.
    Swap {
        /// The block device.
        block: String,
    },
    /// Another block device is made of it: LVM, md, dm-crypt.
    Held {
        /// The block device.
        block: String,
        /// The one above it.
        by: String,
    },
    /// Somebody opened it for himself alone (a file system of another mount name space, ZFS, a database).
    Claimed {
        /// The block device.
        block: String,
    },
    /// A process drives it.
    Process {
        /// Its number.
        pid: u32,
        /// Its name.
        name: String,
    },
}

impl Use {
    /// What ends this use.
    #[must_use]
    pub fn cure(&self) -> String {
        match self {
            Use::Mounted { point, .. } => format!("umount {point}"),
            Use::Swap { block } => format!("swapoff /dev/{block}"),
            Use::Held { by, .. } if by.starts_with("md") => format!("mdadm --stop /dev/{by}"),
            Use::Held { by, .. } => {
                format!("dmsetup remove /dev/{by} (LVM: vgchange --activate n VOLUMEGROUP)")
            }
            Use::Claimed { block } => {
                format!("find who has it and stop that: fuser -v /dev/{block}*; lsblk /dev/{block}")
            }
            Use::Process { pid, .. } => format!(
                "stop the engine (keel engine shutdown, systemctl stop keel-engine), or: kill {pid}"
            ),
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Use::Mounted { block, point } => write!(f, "/dev/{block} is mounted on {point}"),
            Use::Swap { block } => write!(f, "/dev/{block} is swap space"),
            Use::Held { block, by } => write!(f, "/dev/{block} is part of /dev/{by}"),
            Use::Claimed { block } => write!(
                f,
                "/dev/{block} is in use: something opened it for itself alone"
            ),
            Use::Process { pid, name } => write!(f, "process {pid} ({name}) has it"),
        }
    }
}

/// All uses of a device.
#[must_use]
pub fn uses(root: &Root, device: &PciDevice) -> Vec<Use> {
    let mut found = BTreeSet::new();
    let disks = disks(root, device);
    let mut blocks = Vec::new();
    for disk in &disks {
        with_parts(root, disk, &mut blocks);
    }
    // Grows while it is walked: what is made of a block device may be mounted in its place.
    let mut at = 0;
    while let Some(block) = blocks.get(at).cloned() {
        for by in root.names(format!("/sys/class/block/{block}/holders")) {
            if !blocks.contains(&by) {
                with_parts(root, &by, &mut blocks);
            }
            found.insert(Use::Held {
                block: block.clone(),
                by,
            });
        }
        at += 1;
    }
    mounts(root, &blocks, &mut found);
    swaps(root, &blocks, &mut found);
    // What is known better is not said again.
    if found.is_empty() {
        let claimed = disks
            .into_iter()
            .filter(|disk| is_busy(&open_alone(root, disk)));
        found.extend(claimed.map(|block| Use::Claimed { block }));
    }
    found.extend(processes(root, device));
    found.into_iter().collect()
}

/// Opens all block devices of a device for this process alone: as long as they are held, nobody mounts or claims them.
///
/// # Errors
/// The use that is in the way.
pub(crate) fn claim(root: &Root, device: &PciDevice) -> Result<Vec<File>, Use> {
    let mut held = Vec::new();
    for disk in disks(root, device) {
        match open_alone(root, &disk) {
            Ok(file) => held.push(file),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                return Err(Use::Claimed { block: disk });
            }
            // A disk without medium or node; nobody can mount that either.
            Err(_) => {}
        }
    }
    Ok(held)
}

fn open_alone(root: &Root, disk: &str) -> io::Result<File> {
    let alone = i32::try_from(OFlags::EXCL.bits()).unwrap_or_default();
    OpenOptions::new()
        .read(true)
        .custom_flags(alone)
        .open(root.path(format!("/dev/{disk}")))
}

fn is_busy(opened: &io::Result<File>) -> bool {
    opened
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
}

/// The kernel's disks on a controller: `nvme0n1`. With several paths to one namespace sysfs has `nvme0c1n1` below the controller and the
/// disk elsewhere.
fn disks(root: &Root, device: &PciDevice) -> Vec<String> {
    let controllers = format!("{}/nvme", device.address.sysfs());
    let mut disks = BTreeSet::new();
    for controller in root.names(&controllers) {
        for name in root.names(format!("{controllers}/{controller}")) {
            let Some((subsystem, rest)) = name.strip_prefix("nvme").and_then(split_number) else {
                continue;
            };
            let rest = rest
                .strip_prefix('c')
                .and_then(split_number)
                .map_or(rest, |(_, rest)| rest);
            if let Some((namespace, "")) = rest.strip_prefix('n').and_then(split_number) {
                disks.insert(format!("nvme{subsystem}n{namespace}"));
            }
        }
    }
    disks.into_iter().collect()
}

/// A number at the start, and what follows it.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text
        .bytes()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A block device and its partitions.
fn with_parts(root: &Root, block: &str, to: &mut Vec<String>) {
    to.push(block.to_owned());
    let directory = format!("/sys/class/block/{block}");
    let is_part = |name: &String| root.exists(format!("{directory}/{name}/partition"));
    to.extend(root.names(&directory).into_iter().filter(is_part));
}

fn mounts(root: &Root, blocks: &[String], found: &mut BTreeSet<Use>) {
    // Number of each block device, and the path under which btrfs, whose mounts have numbers of their own, knows it.
    let number = |block: &String| root.read(format!("/sys/class/block/{block}/dev"));
    let numbers: Vec<Option<String>> = blocks.iter().map(number).collect();
    for table in ["/proc/self/mountinfo", "/proc/1/mountinfo"] {
        for line in root.read(table).unwrap_or_default().lines() {
            // proc(5): id parent major:minor root point options [tags] - type source options
            let fields: Vec<&str> = line.split(' ').collect();
            let source = line
                .split(" - ")
                .nth(1)
                .and_then(|rest| rest.split(' ').nth(1))
                .unwrap_or_default();
            let (Some(major_minor), Some(point)) = (fields.get(2), fields.get(4)) else {
                continue;
            };
            let is_it = |at: usize| {
                numbers[at].as_deref() == Some(*major_minor)
                    || source.strip_prefix("/dev/") == Some(blocks[at].as_str())
            };
            if let Some(at) = (0..blocks.len()).find(|at| is_it(*at)) {
                found.insert(Use::Mounted {
                    block: blocks[at].clone(),
                    point: unescape(point),
                });
            }
        }
    }
}

/// Blanks and the like are `\040` in mountinfo.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, plain)| {
            text.replace(code, plain)
        })
}

fn swaps(root: &Root, blocks: &[String], found: &mut BTreeSet<Use>) {
    for line in root.read("/proc/swaps").unwrap_or_default().lines().skip(1) {
        let path = line.split_whitespace().next().unwrap_or_default();
        // A name such as /dev/mapper/swap is a link to the device.
        let real = fs::canonicalize(root.path(path)).unwrap_or_else(|_| path.into());
        let name = real
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        if let Some(block) = name.filter(|name| blocks.contains(name)) {
            found.insert(Use::Swap { block });
        }
    }
}

/// Processes that have the file open through which the kernel lends the device; this one does not count.
fn processes(root: &Root, device: &PciDevice) -> Vec<Use> {
    let Some(node) = device.node(root) else {
        return Vec::new();
    };
    let own = std::process::id();
    let pids = root
        .names("/proc")
        .into_iter()
        .filter_map(|name| name.parse::<u32>().ok());
    let has_it = |pid: &u32| {
        let fds = format!("/proc/{pid}/fd");
        let opened = |fd: &String| {
            fs::read_link(root.path(format!("{fds}/{fd}")))
                .is_ok_and(|to| to.as_os_str() == node.as_str())
        };
        root.names(&fds).iter().any(opened)
    };
    pids.filter(|pid| *pid != own)
        .filter(has_it)
        .map(|pid| Use::Process {
            pid,
            name: root.read(format!("/proc/{pid}/comm")).unwrap_or_default(),
        })
        .collect()
}
