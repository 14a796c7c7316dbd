//! Who a device is: the UUID under which a target's data is found again.
//!
//! A file is its file system's device and its inode. A kernel block device must not be its number, which is given out in the order
//! in which drivers found their devices: it is what the device says of itself (sysfs `wwid`, `serial`). An NVMe namespace gets the
//! UUID that the user-space driver gives it, so that a store moves between the two.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Stat, major, minor};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

/// The UUID of a file.
pub(crate) fn of_file(stat: &Stat) -> Uuid {
    of_numbers(stat.st_dev, stat.st_ino)
}

/// The UUID of a block device, or of a partition.
pub(crate) fn of_block_device(stat: &Stat) -> Uuid {
    let number = format!("{}:{}", major(stat.st_rdev), minor(stat.st_rdev));
    let folder = Path::new("/sys/dev/block").join(number);
    // What says nothing of itself (a loop device, a RAM disk) has only its number.
    of_folder(&folder).unwrap_or_else(|| of_numbers(stat.st_rdev, 0))
}

/// From the device's folder in sysfs. A partition is its number on the disk, whose folder is around its own.
fn of_folder(folder: &Path) -> Option<Uuid> {
    let Some(partition) = text(folder.join("partition")) else {
        return whole(folder);
    };
    // Through the link: `..` of a link's name would be where the link is.
    let disk = whole(folder.canonicalize().ok()?.parent()?)?;
    Some(named(&format!("disk {disk} partition {partition}")))
}

fn whole(folder: &Path) -> Option<Uuid> {
    let wwid = ["wwid", "device/wwid"].iter();
    if let Some(wwid) = wwid.filter_map(|name| text(folder.join(name))).next() {
        return Some(of_wwid(&wwid));
    }
    text(folder.join("serial")).map(|serial| named(&format!("serial {serial}")))
}

/// Linux's names (drivers/nvme/host/core.c, `wwid_show`; drivers/scsi): `uuid.TEXT`, `eui.` with 32 digits (NGUID) or 16 (EUI-64),
/// `nvme.VENDOR-SERIAL-MODEL-NAMESPACE` with the texts in hexadecimal; or another standard's name.
fn of_wwid(wwid: &str) -> Uuid {
    let nvme = || {
        if let Some(text) = wwid.strip_prefix("uuid.") {
            return Uuid::try_parse(text).ok();
        }
        if let Some(digits) = wwid.strip_prefix("eui.") {
            let bytes = hex(digits)?;
            return match <[u8; 16]>::try_from(bytes.as_slice()) {
                Ok(nguid) => Some(Uuid::from_bytes(nguid)),
                Err(_) => Some(named(&format!("eui64 {bytes:02x?}"))),
            };
        }
        let mut parts = wwid.strip_prefix("nvme.")?.split('-');
        let (_vendor, serial, _model) = (parts.next()?, parts.next()?, parts.next()?);
        let serial = String::from_utf8(hex(serial)?).ok()?;
        let namespace = u32::from_str_radix(parts.next()?, 16).ok()?;
        let serial = serial.trim();
        Some(named(&format!(
            "nvme serial {serial} namespace {namespace}"
        )))
    };
    nvme().unwrap_or_else(|| named(&format!("wwid {wwid}")))
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let pair = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(pair).collect()
}

fn text(file: PathBuf) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Version 8: made by us.
fn named(text: &str) -> Uuid {
    uuid::Builder::from_custom_bytes(xxh3_128(text.as_bytes()).to_be_bytes()).into_uuid()
}

/// Version 8 again, whose six fixed bits lie where device numbers rarely have any.
fn of_numbers(device: u64, inode: u64) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&device.to_be_bytes());
    bytes[8..].copy_from_slice(&inode.to_be_bytes());
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_what_the_user_space_driver_calls_it() {
        let uuid = "3d7c5a4e-0b0e-4b5c-9f53-7d5a0d8f1c22";
        assert_eq!(of_wwid(&format!("uuid.{uuid}")).to_string(), uuid);
        let nguid = of_wwid("eui.00112233445566778899aabbccddeeff");
        assert_eq!(
            nguid.simple().to_string(),
            "00112233445566778899aabbccddeeff"
        );
        let eui64 = named("eui64 [00, 25, 38, 5b, 71, b0, 0f, 3a]");
        assert_eq!(of_wwid("eui.0025385b71b00f3a"), eui64);
        // QEMU's: serial "n0", model "QEMU NVMe Ctrl", namespace 1.
        let serial = of_wwid("nvme.1b36-6e30-51454d55204e564d65204374726c-00000001");
        assert_eq!(serial, named("nvme serial n0 namespace 1"));
        // As long as on paper, padded with spaces.
        let padded = of_wwid("nvme.1b36-6e3020202020-51-00000001");
        assert_eq!(padded, serial);
    }

    #[test]
    fn other_names_are_told_apart() {
        let names = [
            "naa.5000c500a1b2c3d4",
            "nvme.",
            "eui.xyz",
            "uuid.none",
            "t10.ATA x",
        ];
        let mut uuids: Vec<Uuid> = names.map(of_wwid).to_vec();
        uuids.sort_unstable();
        uuids.dedup();
        assert_eq!(uuids.len(), names.len());
    }

    #[test]
    fn partitions_belong_to_their_disk() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        fs::create_dir_all(disk.join("part1")).unwrap();
        fs::create_dir_all(disk.join("device")).unwrap();
        assert_eq!(of_folder(&disk), None, "it says nothing of itself");
        fs::write(disk.join("serial"), "S1\n").unwrap();
        assert_eq!(of_folder(&disk), Some(named("serial S1")));
        fs::write(disk.join("device/wwid"), "naa.1\n").unwrap();
        let whole = of_folder(&disk).unwrap();
        assert_eq!(whole, named("wwid naa.1"));
        fs::write(disk.join("part1/partition"), "1\n").unwrap();
        let link = dir.path().join("8:1");
        std::os::unix::fs::symlink(disk.join("part1"), &link).unwrap();
        let part = named(&format!("disk {whole} partition 1"));
        assert_eq!(of_folder(&link), Some(part));
    }
}
