//! Why a server cannot open its socket.

use std::path::PathBuf;

use daos_errno::{Der, from_errno};
use rustix::io::Errno;

/// The socket was not opened; nothing on disk was changed except that a stale socket file may be gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// No path, or no permissions, were given.
    #[error("missing argument: dRPC socket {0}")]
    Missing(&'static str),
    /// Too long for a Unix socket.
    #[error("dRPC socket path {} has {len} bytes, at most 107 are possible; choose a shorter socket directory", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        len: usize,
    },
    /// A live process listens there.
    #[error("dRPC socket {} is in use by {}; stop it or choose another socket directory", path.display(), owner(*pid))]
    InUse {
        /// The socket file.
        path: PathBuf,
        /// Who listens, if the kernel told.
        pid: Option<i32>,
    },
    /// Something that is not a socket; it is left alone.
    #[error("{} exists and is not a socket ({kind}); it is not removed: move it away", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Another process is opening a socket in the same directory and does not finish.
    #[error("directory {} is locked by another process that is opening a dRPC socket; is it stopped?", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {what} {}: {errno}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        errno: Errno,
    },
}

impl BindError {
    /// The DAOS error number of the same finding.
    pub fn der(&self) -> Der {
        match self {
            BindError::Missing(_) => Der::INVAL,
            BindError::PathTooLong { .. } => Der::EXCEEDS_PATH_LEN,
            BindError::InUse { .. } | BindError::Locked { .. } => Der::BUSY,
            BindError::Foreign { .. } => Der::EXIST,
            BindError::System { errno, .. } => from_errno(errno.raw_os_error()),
        }
    }
}

fn owner(pid: Option<i32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}
