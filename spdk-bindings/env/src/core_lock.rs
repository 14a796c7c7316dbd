//! A lock per claimed CPU, so that two engines of a machine do not poll on the same one unknowingly (SPDK: `/var/tmp/spdk_cpu_lock_NNN`).
//!
//! The lock is a `flock` on a file in a directory that every user of the machine may write to: the kernel lets go of it however its
//! process ends. An engine that wants its CPUs for itself takes it exclusively; one that shares cores anyway takes it shared, so
//! that it starts beside others of its kind and is still seen by those that do not share.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::file_lock::{Holder, NotLocked, try_lock};

/// Where the locks may lie, best first: the same for every user, or it would be no lock. `/run/lock` is not writable by all on
/// every distribution, and `/var/tmp` is cleaned of old files.
const DIRECTORIES: [&str; 3] = ["/run/lock", "/dev/shm", "/var/tmp"];

/// How long a lock is waited for whose process is ending, or not to be seen.
const PATIENCE: Duration = Duration::from_secs(1);

/// A CPU that somebody else has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The CPU.
    pub cpu: usize,
    /// Who has it.
    pub holder: Holder,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {} belongs to {}", self.cpu, self.holder)
    }
}

/// Why CPUs could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum CoreLockError {
    /// Others have them; all of them, ascending.
    #[error("{}", .0.iter().map(Taken::to_string).collect::<Vec<_>>().join(", "))]
    Taken(Vec<Taken>),
    /// The lock file cannot be used.
    #[error("the lock of CPU {cpu}, {}: {source}", path.display())]
    File {
        /// The CPU.
        cpu: usize,
        /// Its file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Claimed CPUs; dropped, they are free again. Any thread.
#[derive(Debug)]
pub struct CoreLocks {
    files: Vec<File>,
    taken: Vec<Taken>,
}

/// The directory of this machine's locks.
#[must_use]
pub fn directory() -> PathBuf {
    let for_all = |path: &&&str| {
        let mode = fs::metadata(path).map_or(0, |meta| meta.mode());
        mode & 0o1777 == 0o1777
    };
    let found = DIRECTORIES.iter().find(for_all);
    PathBuf::from(found.copied().unwrap_or("/tmp"))
}

impl CoreLocks {
    /// Claims `cpus` for this process alone: all or none.
    ///
    /// # Errors
    /// [`CoreLockError::Taken`] names every CPU that another engine has, also one that would share it.
    pub fn exclusive(directory: &Path, cpus: &[usize]) -> Result<CoreLocks, CoreLockError> {
        let locks = CoreLocks::take(directory, cpus, true)?;
        if locks.taken.is_empty() {
            Ok(locks)
        } else {
            Err(CoreLockError::Taken(locks.taken))
        }
    }

    /// Says that this process uses `cpus` and does not mind others there. Those that another engine has for itself are in
    /// [`CoreLocks::taken`].
    ///
    /// # Errors
    /// A lock file cannot be used.
    pub fn shared(directory: &Path, cpus: &[usize]) -> Result<CoreLocks, CoreLockError> {
        CoreLocks::take(directory, cpus, false)
    }

    /// CPUs that were not claimed because somebody has them for itself.
    #[must_use]
    pub fn taken(&self) -> &[Taken] {
        &self.taken
    }

    fn take(directory: &Path, cpus: &[usize], exclusive: bool) -> Result<CoreLocks, CoreLockError> {
        let mut locks = CoreLocks {
            files: Vec::with_capacity(cpus.len()),
            taken: Vec::new(),
        };
        for &cpu in cpus {
            let path = directory.join(format!("keel_cpu_lock_{cpu:03}"));
            let failed = |source| CoreLockError::File {
                cpu,
                path: path.clone(),
                source,
            };
            let file = open(&path).map_err(failed)?;
            match lock_patiently(&file, exclusive) {
                Ok(()) => locks.files.push(file),
                Err(NotLocked::Held(holder)) => locks.taken.push(Taken { cpu, holder }),
                Err(NotLocked::Unsupported(errno)) => return Err(failed(errno.into())),
            }
        }
        Ok(locks)
    }
}

/// The file of another user is opened as it is: sticky directories refuse to create over it (`fs.protected_regular`), and reading is
/// enough for a lock.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    loop {
        match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut new = OpenOptions::new();
        new.read(true).write(true).create_new(true).mode(0o644);
        match new.open(path) {
            Ok(file) => {
                // Whatever the umask: other users must be able to see the lock.
                file.set_permissions(fs::Permissions::from_mode(0o644))?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

fn lock_patiently(file: &File, exclusive: bool) -> Result<(), NotLocked> {
    let start = Instant::now();
    loop {
        match try_lock(file, exclusive) {
            Err(NotLocked::Held(holder)) if holder.may_be_dead() && start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me(cpu: usize) -> String {
        format!(
            "CPU {cpu} belongs to this process (pid {})",
            std::process::id()
        )
    }

    #[test]
    fn a_cpu_is_claimed_once_and_free_again_when_dropped() {
        let dir = tempfile::tempdir().expect("scratch directory");
        let first = CoreLocks::exclusive(dir.path(), &[2, 3]).expect("free");
        let error = CoreLocks::exclusive(dir.path(), &[1, 2, 3]).expect_err("taken");
        assert_eq!(error.to_string(), format!("{}, {}", me(2), me(3)));
        // All or none: CPU 1 was not kept by the refused claim.
        let other = CoreLocks::exclusive(dir.path(), &[1]).expect("still free");
        drop((first, other));
        assert!(CoreLocks::exclusive(dir.path(), &[1, 2, 3]).is_ok());
    }

    #[test]
    fn those_that_share_see_each_other_and_are_seen() {
        let dir = tempfile::tempdir().expect("scratch directory");
        let shared = [(); 2].map(|()| CoreLocks::shared(dir.path(), &[0, 1]).expect("shared"));
        assert!(shared.iter().all(|locks| locks.taken().is_empty()));
        let error = CoreLocks::exclusive(dir.path(), &[1]).expect_err("in use");
        assert_eq!(error.to_string(), me(1));
        drop(shared);
        let _alone = CoreLocks::exclusive(dir.path(), &[1]).expect("free");
        let beside = CoreLocks::shared(dir.path(), &[0, 1]).expect("not refused");
        assert_eq!(
            beside.taken().iter().map(|t| t.cpu).collect::<Vec<_>>(),
            [1]
        );
    }

    #[test]
    fn a_lock_file_that_may_only_be_read_is_enough() {
        let dir = tempfile::tempdir().expect("scratch directory");
        let path = dir.path().join("keel_cpu_lock_007");
        fs::write(&path, "").expect("file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).expect("mode");
        let held = CoreLocks::exclusive(dir.path(), &[7]).expect("locked");
        CoreLocks::exclusive(dir.path(), &[7]).expect_err("taken");
        drop(held);
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = CoreLocks::exclusive(Path::new("/nowhere"), &[0]).expect_err("no directory");
        let said =
            "the lock of CPU 0, /nowhere/keel_cpu_lock_000: No such file or directory (os error 2)";
        assert_eq!(error.to_string(), said);
        assert!(directory().is_dir());
    }
}
