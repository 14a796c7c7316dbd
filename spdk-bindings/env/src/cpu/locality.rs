//! Which NUMA node a device hangs on: PCI functions, and the disks under files.

use std::path::{Path, PathBuf};

use rustix::fs::{FileType, major, minor, stat};

use super::{CpuError, Host};

/// Deepest stack of devices that is followed (file on loop on LVM on RAID on disk).
const DEEPEST: usize = 8;

/// A disk and where it hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The kernel's name: `nvme0n1`; of a device made of several the outermost, `md0`.
    pub name: String,
    /// Address of the PCI function above it, if there is one.
    pub pci: Option<String>,
    /// Its NUMA node; `None`: not told, or the parts of a RAID hang on several.
    pub node: Option<usize>,
}

/// NUMA node of a PCI function, by its address (`0000:3b:00.0`); `None`: not told.
///
/// # Errors
/// [`CpuError::Sysfs`] if the file is malformed.
pub fn pci_node(host: &Host, address: &str) -> Result<Option<usize>, CpuError> {
    host.number(format!("/sys/bus/pci/devices/{address}/numa_node"))
}

/// The disk under a path of this machine: of a block device itself, of a file the disk of its file system. A file that is not there yet
/// is looked for where it will be. `None`: no disk is under it (tmpfs, network file systems, overlays).
///
/// # Errors
/// [`CpuError::Sysfs`] if a file of sysfs is malformed.
pub fn disk_of_path(host: &Host, path: &Path) -> Result<Option<Disk>, CpuError> {
    path_at_depth(host, path, 0)
}

fn path_at_depth(host: &Host, path: &Path, depth: usize) -> Result<Option<Disk>, CpuError> {
    let there = path.ancestors().map(|path| match path.as_os_str() {
        empty if empty.is_empty() => Path::new("."),
        _ => path,
    });
    let Some(stat) = there.into_iter().find_map(|path| stat(path).ok()) else {
        return Ok(None);
    };
    let number = match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => stat.st_rdev,
        _ => stat.st_dev,
    };
    let (major, minor) = (major(number), minor(number));
    if major != 0 || depth >= DEEPEST {
        return disk(host, major, minor, depth);
    }
    // btrfs and the like have a number of no device; the mount says which one is under it.
    match mounted_from(host, major, minor) {
        Some(source) if source != path => path_at_depth(host, &source, depth + 1),
        _ => Ok(None),
    }
}

fn mounted_from(host: &Host, major: u32, minor: u32) -> Option<PathBuf> {
    let mounts = host.read("/proc/self/mountinfo")?;
    let number = format!("{major}:{minor}");
    let source = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let here = left.split(' ').nth(2)? == number;
        here.then(|| right.split(' ').nth(1)).flatten()
    })?;
    source.starts_with("/dev/").then(|| source.into())
}

/// The disk with this device number.
pub(super) fn disk(
    host: &Host,
    major: u32,
    minor: u32,
    depth: usize,
) -> Result<Option<Disk>, CpuError> {
    let link = host.path(format!("/sys/dev/block/{major}:{minor}"));
    let Ok(directory) = link.canonicalize() else {
        return Ok(None);
    };
    let Some(name) = directory
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
    else {
        return Ok(None);
    };
    let found = |(pci, node)| {
        Some(Disk {
            name: name.clone(),
            pci,
            node,
        })
    };
    if depth < DEEPEST {
        let parts = parts(host, &directory, depth)?;
        if let Some(first) = parts.first() {
            let same = parts.iter().all(|part| part.node == first.node);
            let pci = (parts.len() == 1).then(|| first.pci.clone()).flatten();
            return Ok(found((pci, first.node.filter(|_| same))));
        }
    }
    Ok(found(above(host, &directory)?))
}

/// What a device is made of: the slaves of RAID and LVM, the file of a loop device.
fn parts(host: &Host, directory: &Path, depth: usize) -> Result<Vec<Disk>, CpuError> {
    let mut parts = Vec::new();
    if let Ok(file) = std::fs::read_to_string(directory.join("loop/backing_file")) {
        parts.extend(path_at_depth(host, Path::new(file.trim()), depth + 1)?);
    }
    let slaves = std::fs::read_dir(directory.join("slaves"));
    for slave in slaves.into_iter().flatten().flatten() {
        let number = std::fs::read_to_string(slave.path().join("dev")).unwrap_or_default();
        let number = number.trim().split_once(':');
        let number = number.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        if let Some((major, minor)) = number {
            parts.extend(disk(host, major, minor, depth + 1)?);
        }
    }
    Ok(parts)
}

/// (PCI address, node) of the nearest device above that has them. Of virtio and NVMe that is the PCI function.
fn above(host: &Host, directory: &Path) -> Result<(Option<String>, Option<usize>), CpuError> {
    let is_pci =
        |name: &str| name.len() >= 12 && name.matches(':').count() == 2 && name.contains('.');
    let sys = host.path("/sys").canonicalize().unwrap_or_default();
    let mut pci = None;
    for up in directory.ancestors().take_while(|up| up.starts_with(&sys)) {
        let name = up.file_name().unwrap_or_default().to_string_lossy();
        if pci.is_none() && is_pci(&name) {
            pci = Some(name.into_owned());
        }
        // The path is the host's own by now, and `Host::path` takes it as it is when the root is "/".
        let file = Path::new("/sys")
            .join(up.strip_prefix(&sys).unwrap_or(up))
            .join("numa_node");
        if let Some(node) = host.number(file)? {
            return Ok((pci, Some(node)));
        }
    }
    Ok((pci, None))
}
