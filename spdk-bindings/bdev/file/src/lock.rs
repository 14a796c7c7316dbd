//! One engine per file: an advisory lock that dies with its process, and who holds it.

use core::fmt;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Stat, flock, major, minor};

/// Who has a file locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pid: Option<u32>,
    command: Option<String>,
}

impl Holder {
    /// The process, if the system shows it to us.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Whether the process has ended, or is not to be seen.
    fn may_be_dead(&self) -> bool {
        let Some(pid) = self.pid else { return true };
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            // "pid (command) state ...": a zombie or dead one runs no more.
            Ok(stat) => stat
                .rsplit(')')
                .next()
                .is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])),
            Err(why) => why.kind() == std::io::ErrorKind::NotFound,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.command) {
            (Some(pid), _) if pid == std::process::id() => write!(f, "this process (pid {pid})"),
            (Some(pid), Some(command)) => write!(f, "process {pid} ({command})"),
            (Some(pid), None) => write!(f, "process {pid}"),
            (None, _) => write!(f, "another process that this one cannot see"),
        }
    }
}

/// How long the lock of a process that is gone, or not to be seen, is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes the lock as [`take`] does. A process that was killed leaves its rings to a kernel worker, which holds the file, and
/// with it the lock, until the last I/O is back. The system shows no pid for such a lock, as for one of another pid namespace:
/// both are waited for.
pub(crate) fn take_patiently(
    file: impl AsFd + Copy,
    stat: &Stat,
    exclusive: bool,
) -> Result<(), Option<Holder>> {
    let start = Instant::now();
    loop {
        match take(file, stat, exclusive) {
            Err(Some(holder)) if holder.may_be_dead() && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

/// Takes the lock, exclusive for writers. `flock` and not `fcntl`: it belongs to the open file, so that closing another
/// descriptor of the same file does not lose it, and the kernel tells its owner's pid.
///
/// `Err(None)` when file locks do not work there at all; the caller decides.
fn take(file: impl AsFd, stat: &Stat, exclusive: bool) -> Result<(), Option<Holder>> {
    let how = if exclusive {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    match flock(file, how) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Some(find_holder(stat))),
        Err(_) => Err(None),
    }
}

/// Gives it back, whatever other descriptors of the open file still exist.
pub(crate) fn release(file: impl AsFd) {
    if let Err(why) = flock(file, FlockOperation::Unlock) {
        tracing::debug!(%why, "releasing a file lock");
    }
}

fn find_holder(stat: &Stat) -> Holder {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = holder_in(&locks, major(stat.st_dev), minor(stat.st_dev), stat.st_ino);
    let command = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok());
    Holder {
        pid,
        command: command.map(|comm| comm.trim().to_owned()),
    }
}

/// Finds the owner of a `flock` in the text of `/proc/locks`. Some file systems (btrfs) show another device number there
/// than `stat` does; then the inode decides.
fn holder_in(locks: &str, major: u32, minor: u32, inode: u64) -> Option<u32> {
    let exact = format!("{major:02x}:{minor:02x}:{inode}");
    let any_device = format!(":{inode}");
    let owners = |place: &dyn Fn(&str) -> bool| {
        locks.lines().find_map(|line| {
            // 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF; waiters have "->" in the second column.
            let mut words = line.split_whitespace().skip(1);
            if words.next()? != "FLOCK" {
                return None;
            }
            let (pid, at) = (words.nth(2)?, words.next()?);
            if place(at) {
                pid.parse().ok().filter(|pid| *pid > 0)
            } else {
                None
            }
        })
    };
    owners(&|at| at == exact).or_else(|| owners(&|at| at.ends_with(&any_device)))
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

    const LOCKS: &str = "\
1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF
2: FLOCK  ADVISORY  WRITE 22 fd:01:77 0 EOF
3: FLOCK  ADVISORY  WRITE 33 fe:00:77 0 EOF
3: -> FLOCK  ADVISORY  WRITE 44 fe:00:77 0 EOF
4: FLOCK  ADVISORY  READ 0 fe:00:88 0 EOF
5: FLOCK  ADVISORY  WRITE 55 00:2a:99 0 EOF
";

    #[test]
    fn the_holder_is_the_flock_on_the_same_inode() {
        assert_eq!(holder_in(LOCKS, 0xfe, 0, 77), Some(33));
        assert_eq!(holder_in(LOCKS, 0xfd, 1, 77), Some(22));
        assert_eq!(
            holder_in(LOCKS, 0xfe, 0, 88),
            None,
            "pid 0: another pid namespace"
        );
        assert_eq!(
            holder_in(LOCKS, 0x12, 3, 99),
            Some(55),
            "device numbers may differ"
        );
        assert_eq!(holder_in(LOCKS, 0xfe, 0, 7), None);
        assert_eq!(holder_in("", 0xfe, 0, 7), None);
    }

    #[test]
    fn holders_are_named_as_well_as_can_be() {
        let own = std::process::id();
        let show = |pid, command: Option<&str>| {
            Holder {
                pid,
                command: command.map(str::to_owned),
            }
            .to_string()
        };
        assert_eq!(
            show(Some(own), Some("x")),
            format!("this process (pid {own})")
        );
        assert_eq!(
            show(Some(1), Some("keel-engine")),
            "process 1 (keel-engine)"
        );
        assert_eq!(show(Some(1), None), "process 1");
        assert_eq!(show(None, None), "another process that this one cannot see");
    }
}
