//! `[[device]]`: the block devices, and how targets share them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ByteSize, Config};

/// A block device. As many devices as targets: target 0 gets the first, target 1 the second, and so on. Fewer devices than
/// targets: the targets must divide evenly, and consecutive targets share a device in equal slices.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Name of the device in commands, logs and metrics; used once.
    #[schemars(extend("format" = "device-name"))]
    pub name: String,

    /// What the device is made of: `nvme`, `file`, `malloc`, `null`, or with C SPDK `spdk`.
    pub kind: DeviceKind,

    /// PCI address of the SSD behind a device of kind `nvme`, in full, such as `"0000:05:00.0"`. The SSD is bound to vfio-pci.
    #[serde(default)]
    #[schemars(extend("format" = "pci-address"))]
    pub address: Option<String>,

    /// Number of the namespace on the SSD, only for kind `nvme`. Left out, the SSD has one, and that is used. Several devices may be
    /// namespaces of the same SSD.
    #[serde(default)]
    #[schemars(range(min = 1, max = 4_294_967_294u32))]
    pub namespace: Option<u32>,

    /// File or kernel block device behind a device of kind `file`. A relative path starts at the directory that the engine is
    /// started in.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    pub path: Option<PathBuf>,

    /// Name of SPDK's block device behind a device of kind `spdk`, such as `"Nvme0n1"`; its JSON configuration (`spdk.json`) makes it.
    #[serde(default)]
    pub bdev: Option<String>,

    /// Size of the device, a multiple of `block_size`. Required for `malloc`, `null` and a file to be created; for a file that is
    /// there it must be the size that the file has, and may be left out.
    #[serde(default)]
    #[schemars(extend("x-min" = "16MiB", "x-max" = "1024TiB"))]
    pub size: Option<ByteSize>,

    /// Create the file with this `size` if it is not there. A file that is there is used as it is, never made anew.
    #[serde(default)]
    pub create: bool,

    /// Size of a logical block: 512 or 4096. Left out, it is 4096. A device of kind `nvme` has that of its namespace,
    /// one of kind `spdk` that of SPDK's block device.
    #[serde(default)]
    #[schemars(range(min = 512, max = 4096), extend("x-unit" = "bytes"))]
    pub block_size: Option<u32>,
}

/// What a device is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// A namespace of an NVMe SSD, driven by the engine itself. Keeps its data.
    Nvme,
    /// A file or a kernel block device, through io_uring. Keeps its data.
    File,
    /// Memory. Loses its data when the engine ends.
    Malloc,
    /// Nothing: writes vanish, reads give zeroes. For measuring the engine itself.
    Null,
    /// A block device of C SPDK's, whatever it is made of; with `provider = "libspdk"`.
    Spdk,
}

impl DeviceKind {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            DeviceKind::Nvme => "nvme",
            DeviceKind::File => "file",
            DeviceKind::Malloc => "malloc",
            DeviceKind::Null => "null",
            DeviceKind::Spdk => "spdk",
        }
    }
}

/// Bytes of a block where the configuration says nothing.
const DEFAULT_BLOCK_SIZE: u32 = 4096;

/// What the block layer needs to open a [`Device`]; only whole combinations of keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Backing<'a> {
    /// A namespace of an NVMe SSD.
    Nvme {
        /// PCI address of the SSD.
        address: &'a str,
        /// Which; `None`: the only one.
        namespace: Option<u32>,
    },
    /// A file or kernel block device.
    File {
        /// Where it is.
        path: &'a Path,
        /// Create it with this size if it is not there.
        create: Option<ByteSize>,
    },
    /// Memory of this size.
    Malloc {
        /// Its size.
        size: ByteSize,
    },
    /// The null device of this size.
    Null {
        /// Its size.
        size: ByteSize,
    },
    /// A block device of SPDK's.
    Spdk {
        /// Its name there.
        bdev: &'a str,
    },
}

impl Device {
    /// Bytes of a block; of a device of kind `nvme` the namespace decides, of kind `spdk` SPDK.
    pub fn block_size(&self) -> u32 {
        self.block_size.unwrap_or(DEFAULT_BLOCK_SIZE)
    }

    /// The keys of this device as one value; `None` for a combination that the checks refuse (no address, no path, no size).
    pub fn backing(&self) -> Option<Backing<'_>> {
        match self.kind {
            DeviceKind::Nvme => Some(Backing::Nvme {
                address: self.address.as_deref()?,
                namespace: self.namespace,
            }),
            DeviceKind::File if self.create && self.size.is_none() => None,
            DeviceKind::File => Some(Backing::File {
                path: self.path.as_deref()?,
                create: self.size.filter(|_| self.create),
            }),
            DeviceKind::Malloc => Some(Backing::Malloc { size: self.size? }),
            DeviceKind::Null => Some(Backing::Null { size: self.size? }),
            DeviceKind::Spdk => Some(Backing::Spdk {
                bdev: self.bdev.as_deref()?,
            }),
        }
    }
}

/// The least that a target's share of a device may hold.
pub const MIN_TARGET_SIZE: ByteSize = ByteSize::mib(16);

/// Slices of a shared device begin and end on this boundary.
pub const SLICE_ALIGN: ByteSize = ByteSize::mib(1);

/// Which part of which device a target has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Number of the target.
    pub target: u32,
    /// Index into [`Config::device`].
    pub device: usize,
    /// Which slice of the device, from 0.
    pub slice: u32,
    /// Into how many slices the device is cut; 1 = the target has it alone.
    pub slices: u32,
}

impl Placement {
    /// The bytes of a device of `device_bytes` that belong to the target. A device that is not shared is given whole; slices are
    /// equal and aligned to [`SLICE_ALIGN`], so a shared device may keep an unused end.
    pub fn bytes(&self, device_bytes: u64) -> Range<u64> {
        if self.slices <= 1 {
            return 0..device_bytes;
        }
        let share = device_bytes / u64::from(self.slices) / SLICE_ALIGN.0 * SLICE_ALIGN.0;
        let start = u64::from(self.slice) * share;
        start..start + share
    }
}

impl Config {
    /// Deals the devices out to the targets, one entry for each target in order. Empty if they do not divide evenly, which the
    /// checks refuse.
    pub fn placements(&self) -> Vec<Placement> {
        let devices = self.device.len() as u32;
        let targets = self.engine.targets;
        if devices == 0 || !targets.is_multiple_of(devices) {
            return Vec::new();
        }
        let slices = targets / devices;
        (0..targets)
            .map(|target| Placement {
                target,
                device: (target / slices) as usize,
                slice: target % slices,
                slices,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(targets: u32, devices: usize) -> Vec<(usize, u32)> {
        let mut config = Config::default();
        config.engine.targets = targets;
        config.device = vec![
            Device {
                name: "d".into(),
                kind: DeviceKind::Null,
                address: None,
                namespace: None,
                path: None,
                bdev: None,
                size: None,
                create: false,
                block_size: None,
            };
            devices
        ];
        config
            .placements()
            .iter()
            .map(|p| (p.device, p.slice))
            .collect()
    }

    #[test]
    fn targets_get_devices_in_order_or_share_evenly() {
        assert_eq!(placed(3, 3), [(0, 0), (1, 0), (2, 0)]);
        assert_eq!(placed(4, 2), [(0, 0), (0, 1), (1, 0), (1, 1)]);
        assert_eq!(placed(2, 1), [(0, 0), (0, 1)]);
        assert_eq!(placed(3, 2), []);
        assert_eq!(placed(3, 0), []);
    }

    #[test]
    fn slices_are_equal_aligned_and_disjoint() {
        let part = |slice, slices| Placement {
            target: 0,
            device: 0,
            slice,
            slices,
        };
        assert_eq!(part(0, 1).bytes(12_345), 0..12_345);
        let bytes = (100 << 20) + 4096;
        assert_eq!(part(0, 3).bytes(bytes), 0..33 << 20);
        assert_eq!(part(1, 3).bytes(bytes), 33 << 20..66 << 20);
        assert_eq!(part(2, 3).bytes(bytes), 66 << 20..99 << 20);
    }
}
