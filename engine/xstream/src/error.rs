//! Why a ULT was not created, or has no result.

use daos_errno::Der;

use crate::{ServeError, XstreamId};

/// A ULT was not created; its closure has been dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// The engine stops: no more ULTs.
    #[error("xstream {0} is stopping and takes no new ULTs")]
    Shutdown(XstreamId),
    /// The xstream's mailbox is at its bound.
    #[error("xstream {0} does not keep up with its messages: its mailbox is full; retry later")]
    Full(XstreamId),
    /// The xstream has as many ULTs as it may have.
    #[error("xstream {0} has {1} ULTs, its limit; retry later")]
    TooMany(XstreamId, u32),
    /// Only named ULTs are created with a handle: whoever looks for a fault needs to tell them apart.
    #[error("a ULT with a handle needs a name")]
    Unnamed,
    /// No xstream does this kind of work for that target.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl SpawnError {
    /// The number that modules and peers see.
    pub fn der(&self) -> Der {
        match self {
            SpawnError::Shutdown(_) => Der::SHUTDOWN,
            SpawnError::Full(_) => Der::AGAIN,
            SpawnError::TooMany(..) => Der::NOMEM,
            SpawnError::Unnamed => Der::INVAL,
            SpawnError::Serve(error) => error.der(),
        }
    }
}

/// Work on another xstream gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// It was not created.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// It began and never returned.
    #[error(
        "ULT {name:?} on xstream {xstream} ended without a result: it panicked or was aborted; the log says why"
    )]
    Ended {
        /// Its name.
        name: &'static str,
        /// Where.
        xstream: XstreamId,
    },
    /// A control thread waited long enough.
    #[error("ULT {name:?} on xstream {xstream} has not finished in time; it runs on")]
    TimedOut {
        /// Its name.
        name: &'static str,
        /// Where.
        xstream: XstreamId,
    },
    /// Blocking on an xstream would stop everything that runs there, perhaps the work itself.
    #[error("ULT {name:?} was to be waited for by blocking on an xstream: await it instead")]
    WouldBlock {
        /// Its name.
        name: &'static str,
    },
}

impl ExecError {
    /// The number that modules and peers see.
    pub fn der(&self) -> Der {
        match self {
            ExecError::Spawn(error) => error.der(),
            ExecError::Ended { .. } => Der::MISC,
            ExecError::TimedOut { .. } => Der::TIMEDOUT,
            ExecError::WouldBlock { .. } => Der::INVAL,
        }
    }
}
