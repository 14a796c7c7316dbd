//! [`Io`]: one I/O as its submitter sees it.

use spdk_env::DmaBuf;

use crate::IoError;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoKind {
    /// Device to buffer.
    Read,
    /// Buffer to device.
    Write,
    /// Buffer against device; differing fails with [`nvme_spec::status::COMPARE_FAILURE`].
    Compare,
    /// Blocks read as zeroes afterwards.
    WriteZeroes,
    /// Blocks need not be kept.
    Deallocate,
    /// Completed writes of the namespace become durable.
    Flush,
}

impl IoKind {
    /// True when the data is in a buffer.
    #[inline]
    #[must_use]
    pub const fn has_data(self) -> bool {
        matches!(self, IoKind::Read | IoKind::Write | IoKind::Compare)
    }
}

/// One I/O. The buffer belongs to it until its completion.
#[derive(Debug)]
pub struct Io {
    /// The data: the first `blocks` blocks of it.
    pub buf: Option<DmaBuf>,
    /// First block.
    pub lba: u64,
    /// The submitter's own number.
    pub user: u64,
    /// How many blocks; 0 for a flush.
    pub blocks: u32,
    /// What to do.
    pub kind: IoKind,
    /// Writes: durable before it completes (force unit access).
    pub fua: bool,
}

impl Io {
    /// An I/O without buffer.
    #[must_use]
    pub fn new(kind: IoKind, lba: u64, blocks: u32) -> Io {
        Io {
            buf: None,
            lba,
            user: 0,
            blocks,
            kind,
            fua: false,
        }
    }

    /// The same with a buffer.
    #[must_use]
    pub fn with_buf(self, buf: DmaBuf) -> Io {
        Io {
            buf: Some(buf),
            ..self
        }
    }

    /// The same with the submitter's own number.
    #[must_use]
    pub fn with_user(self, user: u64) -> Io {
        Io { user, ..self }
    }

    /// The same, durable before it completes.
    #[must_use]
    pub fn with_fua(self) -> Io {
        Io { fua: true, ..self }
    }
}

/// The end of an I/O.
#[derive(Debug)]
pub struct Done {
    /// As it was submitted. The buffer is missing when the device may still write to it and could not be stopped: then it
    /// is never used again.
    pub io: Io,
    /// How it went.
    pub result: Result<(), IoError>,
}
