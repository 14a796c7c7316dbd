//! Errors: of controllers ([`NvmeError`]) and of single I/Os ([`IoError`]).

use nvme_spec::Status;
use spdk_env::BackingError;

/// Why a controller cannot be used, or not any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nvme {device}: {kind}")]
pub struct NvmeError {
    /// Its address.
    pub device: String,
    /// What is wrong.
    pub kind: NvmeErrorKind,
}

/// What is wrong with a controller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NvmeErrorKind {
    /// Registers read as ones.
    #[error("the device is gone: its registers read as all ones")]
    Gone,
    /// A register makes no sense, or asks for what the driver does not do.
    #[error("it cannot be driven: {0}")]
    Unsupported(String),
    /// CSTS.RDY did not follow.
    #[error(
        "CSTS.RDY did not become {wanted} within {ms} ms after CC.EN: the controller hangs; power-cycle the device"
    )]
    NotReady {
        /// The value waited for.
        wanted: u32,
        /// How long.
        ms: u64,
    },
    /// CSTS.CFS.
    #[error("the controller reports a fatal status (CSTS.CFS) while it {0}")]
    Fatal(&'static str),
    /// An admin command failed.
    #[error("{command} failed: {status}")]
    Command {
        /// Which.
        command: &'static str,
        /// How.
        status: Status,
    },
    /// An admin command did not complete.
    #[error("{command} did not complete within {ms} ms")]
    CommandTimeout {
        /// Which.
        command: &'static str,
        /// How long.
        ms: u64,
    },
    /// A reset, removal or shutdown came in between.
    #[error("{command} was cut off by a reset or the end of the controller")]
    Interrupted {
        /// Which.
        command: &'static str,
    },
    /// Memory or interrupts could not be had.
    #[error("{0}")]
    Backing(String),
    /// All queue pairs are taken.
    #[error(
        "all {count} I/O queue pairs are in use: attach the device with more, or use fewer xstreams (the controller grants {granted})"
    )]
    NoQueuePair {
        /// Created.
        count: u16,
        /// What the controller would grant.
        granted: u16,
    },
    /// Not up, or not any more.
    #[error("the controller is not ready: {0}")]
    NotUp(&'static str),
}

impl NvmeErrorKind {
    pub(crate) fn of(self, device: &str) -> NvmeError {
        NvmeError {
            device: device.to_owned(),
            kind: self,
        }
    }
}

impl From<BackingError> for NvmeErrorKind {
    fn from(error: BackingError) -> NvmeErrorKind {
        NvmeErrorKind::Backing(error.to_string())
    }
}

/// Why an I/O failed. `Copy`: failing allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IoError {
    /// The controller says so.
    #[error("the device answered: {0}")]
    Status(Status),
    /// It did not complete, was aborted or cut off by a reset, and was tried often enough.
    #[error("the device did not complete it in time, and its retries are used up")]
    TimedOut,
    /// The device was pulled out.
    #[error("the device was removed")]
    Removed,
    /// The controller was given up.
    #[error("the controller failed and could not be reset")]
    Failed,
    /// The controller was shut down.
    #[error("the controller was shut down")]
    ShutDown,
}

/// Why an I/O was not taken; it comes back whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// As many I/Os as the queue pair holds are not completed.
    #[error("the queue pair is full")]
    Full,
    /// The device does not reach the buffer: it is not of a pool that was mapped for it.
    #[error(
        "the device cannot reach the buffer: take it from a pool that is mapped for the device"
    )]
    Unreachable,
    /// No buffer, or one shorter than the blocks.
    #[error("the buffer is missing or shorter than the blocks")]
    Buffer,
    /// No blocks, or blocks beyond the end of the namespace.
    #[error("the range is empty or does not lie inside the namespace")]
    Range,
    /// The controller does not have the command.
    #[error("the controller does not support it")]
    Unsupported,
}
