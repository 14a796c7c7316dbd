//! The listening socket and its file.
//!
//! A stale file (nobody listens) is removed, a live one is refused, anything that is no socket is left alone. Look, remove
//! and bind happen under a lock on the directory, so that two engines that start together cannot remove each other's socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use drpc_wire::packet_socket::{MAX_SOCKET_PATH, address, socket};
use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use crate::bind_error::BindError;

/// Where an engine listens: `<dir>/daos_engine_<pid>.sock`, the name DAOS's control server knows and cleans up.
pub fn engine_socket_path(dir: &Path, pid: u32) -> PathBuf {
    dir.join(format!("daos_engine_{pid}.sock"))
}

/// How often, and how long apart, a locked directory is tried again. Others hold the lock for a few system calls.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A socket file that this process made; removed when dropped, unless something else stands there by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// A listening socket and its file. Opened on any thread (errors are known before anything else starts), served on one.
#[derive(Debug)]
pub struct DrpcSocket {
    pub(crate) fd: OwnedFd,
    pub(crate) file: SocketFile,
}

impl DrpcSocket {
    /// Listens, without blocking, at `path` with exactly the permissions `mode`. A stale socket file is removed, a live one
    /// and anything that is no socket refused.
    pub fn bind(path: &Path, mode: u32) -> Result<DrpcSocket, BindError> {
        if path.as_os_str().is_empty() {
            return Err(BindError::Missing("path"));
        }
        if mode == 0 {
            return Err(BindError::Missing("permissions"));
        }
        let len = path.as_os_str().len();
        if len > MAX_SOCKET_PATH {
            let path = path.to_owned();
            return Err(BindError::PathTooLong { path, len });
        }
        let _lock = lock_directory(path)?;
        make_room(path)?;
        let fail = |what, errno| system(what, path, errno);
        let fd = socket(SocketFlags::NONBLOCK).map_err(|e| fail("make a socket for", e))?;
        let permissions = Mode::from_raw_mode(mode);
        // Before bind: the file is born with these, less the umask; nobody can connect before listen.
        rustix::fs::fchmod(&fd, permissions).map_err(|e| fail("set the permissions of", e))?;
        let address = address(path).map_err(|e| fail("use the path", e))?;
        rustix::net::bind(&fd, &address).map_err(|e| fail("bind dRPC socket", e))?;
        let file = SocketFile::of(path).map_err(|e| fail("look at", e))?;
        rustix::fs::chmod(path, permissions).map_err(|e| fail("set the permissions of", e))?;
        // SOMAXCONN, as DAOS; the kernel caps it.
        rustix::net::listen(&fd, 4096).map_err(|e| fail("listen on", e))?;
        Ok(DrpcSocket { fd, file })
    }

    /// The socket file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

impl AsFd for DrpcSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl SocketFile {
    fn of(path: &Path) -> Result<SocketFile, Errno> {
        let (device, inode) = identity(path)?;
        Ok(SocketFile {
            path: path.to_owned(),
            device,
            inode,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let still_ours = identity(&self.path) == Ok((self.device, self.inode));
        if still_ours && let Err(errno) = rustix::fs::unlink(&self.path) {
            tracing::warn!(path = %self.path.display(), %errno, "dRPC socket file not removed");
        }
    }
}

/// Which file stands at a path.
fn identity(path: &Path) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// An exclusive lock on the directory of `path`, until dropped.
fn lock_directory(path: &Path) -> Result<OwnedFd, BindError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(parent, flags, Mode::empty())
        .map_err(|errno| system("open socket directory", parent, errno))?;
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(dir),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(system("lock socket directory", parent, errno)),
        }
    }
    let path = parent.to_owned();
    Err(BindError::Locked { path })
}

/// Removes what a dead process left at `path`; refuses to touch anything else.
fn make_room(path: &Path) -> Result<(), BindError> {
    let stat = match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(system("look at", path, errno)),
    };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => return remove_if_stale(path),
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        _ => "a device",
    };
    let path = path.to_owned();
    Err(BindError::Foreign { path, kind })
}

/// Only a refused connection proves that nobody listens.
fn remove_if_stale(path: &Path) -> Result<(), BindError> {
    let fail = |what, errno| system(what, path, errno);
    let probe = socket(SocketFlags::NONBLOCK).map_err(|e| fail("probe", e))?;
    let address = address(path).map_err(|e| fail("use the path", e))?;
    match rustix::net::connect(&probe, &address) {
        Err(Errno::CONNREFUSED) => match rustix::fs::unlink(path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(fail("remove stale socket", errno)),
        },
        Err(Errno::NOENT) => Ok(()),
        Ok(()) => Err(BindError::InUse {
            path: path.to_owned(),
            pid: rustix::net::sockopt::socket_peercred(&probe)
                .ok()
                .map(|peer| peer.pid.as_raw_nonzero().get()),
        }),
        // Listening with a full queue, or a socket of another type: alive either way.
        Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(BindError::InUse {
            path: path.to_owned(),
            pid: None,
        }),
        Err(errno) => Err(fail("find out who listens on", errno)),
    }
}

fn system(what: &'static str, path: &Path, errno: Errno) -> BindError {
    BindError::System {
        what,
        path: path.to_owned(),
        errno,
    }
}
