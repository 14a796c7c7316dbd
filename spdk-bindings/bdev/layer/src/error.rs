//! Errors of the block layer: each names the device and the operation, and says why.

use core::fmt;
use core::ops::Deref;

use crate::{Op, Request};

/// Why something with a block device failed. One word wide (boxed), so that results stay small on the data path; match
/// on [`BdevError::kind`].
#[derive(Clone, PartialEq, Eq)]
pub struct BdevError(Box<BdevErrorKind>);

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BdevErrorKind {
    /// No such device.
    #[error("no block device named `{name}` (there are: {known})")]
    NotFound {
        /// Asked for.
        name: String,
        /// Registered names.
        known: String,
    },
    /// The name is taken.
    #[error("a block device named `{name}` is registered already")]
    Exists {
        /// The name.
        name: String,
    },
    /// The device's own numbers make no sense.
    #[error("block device `{name}` cannot be registered: {why}")]
    Geometry {
        /// The device.
        name: String,
        /// The broken rule.
        why: String,
    },
    /// A second writer.
    #[error(
        "block device `{name}` is open for writing by `{holder}`: close it there or open it read-only"
    )]
    HasWriter {
        /// The device.
        name: String,
        /// Who opened it first.
        holder: String,
    },
    /// Opened for writing, and cannot be written.
    #[error("block device `{name}` cannot be written: open it read-only")]
    CannotWrite {
        /// The device.
        name: String,
    },
    /// Removed while somebody has it open.
    #[error("block device `{name}` cannot be removed: open by {holders}")]
    InUse {
        /// The device.
        name: String,
        /// Who.
        holders: String,
    },
    /// The calling thread got no channel.
    #[error("no channel on block device `{device}`: {why}")]
    Channel {
        /// The device.
        device: String,
        /// Why.
        why: String,
    },
    /// Evicted or removed.
    #[error("block device `{device}` was evicted or removed: `keel devices` says why")]
    Gone {
        /// The device.
        device: String,
    },
    /// Put back while it is in use.
    #[error(
        "block device `{device}` is in use: only one that was evicted or removed can be put back"
    )]
    NotGone {
        /// The device.
        device: String,
    },
    /// More queues than the channel can carry.
    #[error(
        "a queue of depth {asked} does not fit on the channel of `{device}`: {free} of its {capacity} I/Os are free"
    )]
    QueueDepth {
        /// The device.
        device: String,
        /// Wanted.
        asked: u32,
        /// To be had.
        free: u32,
        /// The channel's bound.
        capacity: u32,
    },
    /// The layer refused the request; the device never saw it.
    #[error("{op} of {blocks} blocks at lba {lba} on `{device}` rejected: {why}")]
    Rejected {
        /// The device.
        device: String,
        /// What was asked.
        op: Op,
        /// Where.
        lba: u64,
        /// How much.
        blocks: u32,
        /// Why.
        why: Reject,
    },
    /// The device tried and failed.
    #[error("{op} of {blocks} blocks at lba {lba} on `{device}` failed: {why}")]
    Io {
        /// The device.
        device: String,
        /// What was asked.
        op: Op,
        /// Where.
        lba: u64,
        /// How much.
        blocks: u32,
        /// Why, with the place underneath (a file's path) and the cure where there is one.
        why: String,
        /// The system's error number, if it came from there.
        errno: Option<i32>,
    },
}

impl BdevError {
    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &BdevErrorKind {
        &self.0
    }

    /// The system's error number behind it, if there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self.kind() {
            BdevErrorKind::Io { errno, .. } => *errno,
            _ => None,
        }
    }

    /// A failed I/O, for devices.
    #[cold]
    #[must_use]
    pub fn io(
        device: &str,
        request: &Request,
        why: impl Into<String>,
        errno: Option<i32>,
    ) -> BdevError {
        let (op, lba, blocks) = (request.op, request.lba, request.blocks);
        BdevErrorKind::Io {
            device: device.to_owned(),
            op,
            lba,
            blocks,
            why: why.into(),
            errno,
        }
        .into()
    }

    /// A channel that could not be made, for devices.
    #[cold]
    #[must_use]
    pub fn channel(device: &str, why: impl Into<String>) -> BdevError {
        BdevErrorKind::Channel {
            device: device.to_owned(),
            why: why.into(),
        }
        .into()
    }
}

impl From<BdevErrorKind> for BdevError {
    #[cold]
    fn from(kind: BdevErrorKind) -> BdevError {
        BdevError(Box::new(kind))
    }
}

impl Deref for BdevError {
    type Target = BdevErrorKind;
    fn deref(&self) -> &BdevErrorKind {
        &self.0
    }
}

impl fmt::Debug for BdevError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for BdevError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for BdevError {}

/// Why the layer refuses a request. `Copy` and without allocation: a full queue is daily business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// Read, write, write-zeroes or unmap of nothing.
    #[error("it has no blocks")]
    NoBlocks,
    /// Past the end.
    #[error("the device ends at lba {num_blocks}")]
    OutOfRange {
        /// Size of the device.
        num_blocks: u64,
    },
    /// Longer than one I/O may be.
    #[error("one I/O takes at most {max_io_blocks} blocks")]
    TooLong {
        /// The bound.
        max_io_blocks: u32,
    },
    /// A read or write without a buffer.
    #[error("it has no buffer")]
    NoBuffer,
    /// The buffer is shorter than the blocks.
    #[error("it needs {need} bytes and its buffer has {have}")]
    ShortBuffer {
        /// `blocks * block_size`.
        need: u64,
        /// `buf.len()`.
        have: u64,
    },
    /// A change through a read-only descriptor.
    #[error("the descriptor is read-only")]
    ReadOnly,
    /// The device cannot do it.
    #[error("the device does not support it")]
    Unsupported,
    /// The device was taken out of use.
    #[error("the device was evicted or removed: `keel devices` says why")]
    Evicted,
    /// As many I/Os as the queue holds are submitted and not reaped.
    #[error("the queue is full ({depth} I/Os)")]
    QueueFull {
        /// The queue's bound.
        depth: u32,
    },
}

/// A request that the layer refused, given back whole.
#[derive(Debug)]
pub struct Rejected {
    /// As it was submitted.
    pub request: Request,
    /// Why.
    pub why: Reject,
}

impl Rejected {
    /// The error to report, with the buffer apart.
    #[cold]
    pub fn into_error(self, device: &str) -> (BdevError, Option<spdk_env::DmaBuf>) {
        let Request {
            op,
            lba,
            blocks,
            buf,
            ..
        } = self.request;
        (
            BdevErrorKind::Rejected {
                device: device.to_owned(),
                op,
                lba,
                blocks,
                why: self.why,
            }
            .into(),
            buf,
        )
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request {
            op, lba, blocks, ..
        } = &self.request;
        write!(
            f,
            "{op} of {blocks} blocks at lba {lba} rejected: {}",
            self.why
        )
    }
}

impl std::error::Error for Rejected {}
