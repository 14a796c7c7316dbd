//! One engine per file: an advisory lock that dies with its process, and who holds it.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock, major, minor};
pub use spdk_env::file_lock::Holder;
use spdk_env::file_lock::{NotLocked, try_lock};

/// How long the lock of a process that is gone, or not to be seen, is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes the lock as [`take`] does. A process that was killed leaves its rings to a kernel worker, which holds the file, and
/// with it the lock, until the last I/O is back. The system shows no pid for such a lock, as for one of another pid namespace:
/// both are waited for.
pub(crate) fn take_patiently(
    file: impl AsFd + Copy,
    exclusive: bool,
) -> Result<(), Option<Holder>> {
    let start = Instant::now();
    loop {
        match take(file, exclusive) {
            Err(Some(holder)) if holder.may_be_dead() && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

/// Takes the lock, exclusive for writers. `Err(None)` when file locks do not work there at all; the caller decides.
fn take(file: impl AsFd, exclusive: bool) -> Result<(), Option<Holder>> {
    try_lock(file, exclusive).map_err(|refused| match refused {
        NotLocked::Held(holder) => Some(holder),
        NotLocked::Unsupported(_) => None,
    })
}

/// Gives it back, whatever other descriptors of the open file still exist.
pub(crate) fn release(file: impl AsFd) {
    if let Err(why) = flock(file, FlockOperation::Unlock) {
        tracing::debug!(%why, "releasing a file lock");
    }
}

/// Where a block device is mounted, in words.
pub(crate) fn mounted_at(path: &Path) -> String {
    let number = rustix::fs::stat(path).map(|stat| (major(stat.st_rdev), minor(stat.st_rdev)));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match number
        .ok()
        .and_then(|(major, minor)| mount_in(&mounts, &format!("{major}:{minor}")))
    {
        Some(place) => format!("mounted at {place}"),
        None => "mounted, or claimed by another program".to_owned(),
    }
}

fn mount_in<'a>(mounts: &'a str, device: &str) -> Option<&'a str> {
    // 36 35 98:0 /mnt1 /mnt2 rw,noatime ...: the third word is the device, the fifth the place.
    mounts.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(2);
        if words.next()? == device {
            words.nth(1)
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_device_is_found_by_its_number() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/root rw\n30 22 7:3 / /mnt/disk rw - ext4 /dev/loop3 rw\n";
        assert_eq!(mount_in(mounts, "7:3"), Some("/mnt/disk"));
        assert_eq!(mount_in(mounts, "7:4"), None);
    }
}
