//! What goes into a device and what comes out of it.

use core::fmt;

use spdk_env::DmaBuf;

use crate::BdevError;

/// What a device can be asked to do (SPDK: `enum spdk_bdev_io_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Device to buffer.
    Read = 0,
    /// Buffer to device.
    Write = 1,
    /// Make blocks read as zeroes, without a buffer.
    WriteZeroes = 2,
    /// Tell the device that the blocks' contents are no longer needed. A hint: see `Geometry::unmap_zeroes`.
    Unmap = 3,
    /// Make every write that completed before this was submitted survive power loss. The whole device; range ignored.
    Flush = 4,
}

impl Op {
    /// All of them, in the order of their numbers.
    pub const ALL: [Op; 5] = [Op::Read, Op::Write, Op::WriteZeroes, Op::Unmap, Op::Flush];

    /// True for all but [`Op::Read`] and [`Op::Flush`].
    #[must_use]
    pub fn changes_blocks(self) -> bool {
        matches!(self, Op::Write | Op::WriteZeroes | Op::Unmap)
    }

    /// True when the operation carries data in a buffer.
    #[inline]
    #[must_use]
    pub fn has_data(self) -> bool {
        matches!(self, Op::Read | Op::Write)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Read => "read",
            Op::Write => "write",
            Op::WriteZeroes => "write-zeroes",
            Op::Unmap => "unmap",
            Op::Flush => "flush",
        })
    }
}

/// A set of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpSet(u8);

impl OpSet {
    /// Every operation.
    pub const ALL: OpSet = OpSet(0b1_1111);
    /// Those that a read-only descriptor may submit.
    pub const READ_ONLY: OpSet = OpSet(1 << Op::Read as u8 | 1 << Op::Flush as u8);

    /// No operation.
    pub const NONE: OpSet = OpSet(0);

    /// These and no others.
    #[must_use]
    pub fn of(ops: &[Op]) -> OpSet {
        OpSet(ops.iter().fold(0, |bits, op| bits | (1 << *op as u8)))
    }

    /// True when `op` is in the set.
    #[inline]
    #[must_use]
    pub fn contains(self, op: Op) -> bool {
        self.0 & (1 << op as u8) != 0
    }

    /// The set without `op`.
    #[must_use]
    pub fn without(self, op: Op) -> OpSet {
        OpSet(self.0 & !(1 << op as u8))
    }

    /// What is in both sets.
    #[must_use]
    pub fn and(self, other: OpSet) -> OpSet {
        OpSet(self.0 & other.0)
    }
}

/// One I/O, by value: 32 bytes, half a cache line all the way to the device.
///
/// Reads and writes use `buf[..blocks * block_size]`; the others leave `buf` alone (it comes back with the completion).
#[derive(Debug)]
pub struct Request {
    /// The data, for reads and writes. Owned by the I/O until its completion.
    pub buf: Option<DmaBuf>,
    /// First block.
    pub lba: u64,
    /// The submitter's own number; comes back in [`Completion::user`].
    pub user: u64,
    /// How many blocks.
    pub blocks: u32,
    /// What to do.
    pub op: Op,
    /// For writes: durable before it completes (force unit access).
    pub fua: bool,
}

impl Request {
    /// Reads `blocks` blocks from `lba` into `buf`.
    #[inline]
    #[must_use]
    pub fn read(lba: u64, blocks: u32, buf: DmaBuf) -> Request {
        Request {
            buf: Some(buf),
            lba,
            user: 0,
            blocks,
            op: Op::Read,
            fua: false,
        }
    }

    /// Writes `blocks` blocks of `buf` to `lba`.
    #[inline]
    #[must_use]
    pub fn write(lba: u64, blocks: u32, buf: DmaBuf) -> Request {
        Request {
            buf: Some(buf),
            lba,
            user: 0,
            blocks,
            op: Op::Write,
            fua: false,
        }
    }

    /// Zeroes `blocks` blocks from `lba`.
    #[must_use]
    pub fn write_zeroes(lba: u64, blocks: u32) -> Request {
        Request {
            buf: None,
            lba,
            user: 0,
            blocks,
            op: Op::WriteZeroes,
            fua: false,
        }
    }

    /// Gives `blocks` blocks from `lba` back to the device.
    #[must_use]
    pub fn unmap(lba: u64, blocks: u32) -> Request {
        Request {
            buf: None,
            lba,
            user: 0,
            blocks,
            op: Op::Unmap,
            fua: false,
        }
    }

    /// Makes completed writes durable.
    #[must_use]
    pub fn flush() -> Request {
        Request {
            buf: None,
            lba: 0,
            user: 0,
            blocks: 0,
            op: Op::Flush,
            fua: false,
        }
    }

    /// Moves the buffer into a second request that is otherwise equal, for a device whose workers need one of their own.
    #[must_use]
    pub fn detach(&mut self) -> Request {
        let Request {
            lba,
            user,
            blocks,
            op,
            fua,
            ..
        } = *self;
        Request {
            buf: self.buf.take(),
            lba,
            user,
            blocks,
            op,
            fua,
        }
    }

    /// The same with the submitter's own number.
    #[inline]
    #[must_use]
    pub fn with_user(self, user: u64) -> Request {
        Request { user, ..self }
    }

    /// The same, durable before it completes.
    #[must_use]
    pub fn with_fua(self) -> Request {
        Request { fua: true, ..self }
    }
}

/// The end of one I/O.
#[derive(Debug)]
#[must_use = "a completion carries the result and the buffer of an I/O"]
pub struct Completion {
    /// The buffer that the request carried.
    pub buf: Option<DmaBuf>,
    /// The request's number.
    pub user: u64,
    /// How it went. One word; an error is the only allocation of its I/O.
    pub result: Result<(), BdevError>,
    /// What was done.
    pub op: Op,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_per_io_stays_within_a_cache_line() {
        assert_eq!(size_of::<Request>(), 32);
        assert!(size_of::<Completion>() <= 32);
        assert_eq!(
            (
                size_of::<crate::table::Slot>(),
                align_of::<crate::table::Slot>()
            ),
            (64, 64)
        );
    }

    #[test]
    fn sets_hold_what_they_say() {
        for op in Op::ALL {
            assert!(OpSet::ALL.contains(op));
            assert!(!OpSet::ALL.without(op).contains(op));
            assert_eq!(OpSet::READ_ONLY.contains(op), !op.changes_blocks());
        }
    }
}
