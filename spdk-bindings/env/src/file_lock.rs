//! Advisory locks on files that die with their process, and who holds one.

use core::fmt;
use std::fs;
use std::os::fd::AsFd;

use rustix::fs::{FlockOperation, Stat, flock, fstat, major, minor};
use rustix::io::Errno;

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
    #[must_use]
    pub fn may_be_dead(&self) -> bool {
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

/// Why a file could not be locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotLocked {
    /// Somebody else has it.
    Held(Holder),
    /// File locks do not work there at all.
    Unsupported(Errno),
}

/// Takes a lock without waiting, exclusive or shared. `flock` and not `fcntl`: it belongs to the open file, so that closing another
/// descriptor of the same file does not lose it, it works on files that may only be read, and the kernel tells its owner's pid.
///
/// # Errors
/// Somebody else holds it, or the file system has no locks.
pub fn try_lock(file: impl AsFd, exclusive: bool) -> Result<(), NotLocked> {
    let how = if exclusive {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    match flock(&file, how) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => {
            let stat = fstat(&file).map_err(NotLocked::Unsupported)?;
            Err(NotLocked::Held(find_holder(&stat)))
        }
        Err(errno) => Err(NotLocked::Unsupported(errno)),
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

#[cfg(test)]
mod tests {
    use super::*;

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
