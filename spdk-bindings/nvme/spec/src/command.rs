//! Submission queue entries (Base 3.3.3.1, figure 88), built and taken apart.

use crate::opcode::{admin, io};

/// One command as it lies in a submission queue: eight little-endian words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Command {
    /// Words 0 to 7: CDW0 and NSID; CDW2 and 3; metadata pointer; data pointer (two); CDW10 to 15.
    pub words: [u64; 8],
}

/// CDW0 bits 15:14: the data pointer is an SGL (metadata, if any, one buffer).
const PSDT_SGL: u64 = 1 << 14;

/// CDW12 bit 30 of reads and writes: force unit access (NVM 3.2.4, 3.2.6).
const FUA: u64 = 1 << 30;
/// CDW12 bit 25 of write zeroes: blocks may be deallocated (NVM 3.2.8).
const DEAC: u64 = 1 << 25;

impl Command {
    /// A command without data; `cid` is filled in by [`Command::with_cid`].
    #[inline]
    #[must_use]
    pub const fn new(opcode: u8, nsid: u32) -> Command {
        Command {
            words: [opcode as u64 | (nsid as u64) << 32, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    /// The same with a command identifier.
    #[inline]
    #[must_use]
    pub const fn with_cid(mut self, cid: u16) -> Command {
        self.words[0] = self.words[0] & !0xffff_0000 | (cid as u64) << 16;
        self
    }

    /// The same with PRP entries (Base 4.1.1).
    #[inline]
    #[must_use]
    pub const fn with_prps(mut self, prp1: u64, prp2: u64) -> Command {
        self.words[3] = prp1;
        self.words[4] = prp2;
        self
    }

    /// The same with an SGL descriptor in the data pointer (Base 4.1.2).
    #[inline]
    #[must_use]
    pub const fn with_sgl(mut self, descriptor: SglDescriptor) -> Command {
        self.words[0] |= PSDT_SGL;
        self.words[3] = descriptor.address;
        self.words[4] = descriptor.word();
        self
    }

    /// The same with command dwords 10 and 11.
    #[inline]
    #[must_use]
    pub const fn with_cdw10_11(mut self, cdw10: u32, cdw11: u32) -> Command {
        self.words[5] = cdw10 as u64 | (cdw11 as u64) << 32;
        self
    }

    /// The same with command dwords 12 and 13.
    #[inline]
    #[must_use]
    pub const fn with_cdw12_13(mut self, cdw12: u32, cdw13: u32) -> Command {
        self.words[6] = cdw12 as u64 | (cdw13 as u64) << 32;
        self
    }

    /// Read, write, compare or write zeroes of `blocks` (1 to 65,536) blocks from `lba` (NVM 3.2).
    #[inline]
    #[must_use]
    pub const fn blocks(opcode: u8, nsid: u32, lba: u64, blocks: u32, fua: bool) -> Command {
        let mut command = Command::new(opcode, nsid);
        command.words[5] = lba;
        command.words[6] = (blocks.wrapping_sub(1) & 0xffff) as u64 | if fua { FUA } else { 0 };
        command
    }

    /// The same write-zeroes command, allowing the controller to deallocate.
    #[inline]
    #[must_use]
    pub const fn with_deallocate(mut self) -> Command {
        self.words[6] |= DEAC;
        self
    }

    /// Flush of a namespace (Base 7.1).
    #[must_use]
    pub const fn flush(nsid: u32) -> Command {
        Command::new(io::FLUSH, nsid)
    }

    /// Deallocate of `ranges` (1 to 256) [`DsmRange`]s in the data (NVM 3.2.3).
    #[must_use]
    pub const fn deallocate(nsid: u32, ranges: u32) -> Command {
        Command::new(io::DATASET_MANAGEMENT, nsid).with_cdw10_11(ranges - 1, 1 << 2)
    }

    /// Identify (Base 5.17).
    #[must_use]
    pub const fn identify(cns: u8, nsid: u32) -> Command {
        Command::new(admin::IDENTIFY, nsid).with_cdw10_11(cns as u32, 0)
    }

    /// Get log page of `bytes` (a multiple of 4) from `offset` (Base 5.16). `retain` leaves the event that the page answers pending.
    #[must_use]
    pub const fn get_log(log: u8, nsid: u32, offset: u64, bytes: u32, retain: bool) -> Command {
        let dwords = bytes / 4 - 1;
        let rae = if retain { 1 << 15 } else { 0 };
        Command::new(admin::GET_LOG_PAGE, nsid)
            .with_cdw10_11(log as u32 | rae | (dwords & 0xffff) << 16, dwords >> 16)
            .with_cdw12_13(offset as u32, (offset >> 32) as u32)
    }

    /// Set features (Base 5.27).
    #[must_use]
    pub const fn set_features(feature: u8, value: u32) -> Command {
        Command::new(admin::SET_FEATURES, 0).with_cdw10_11(feature as u32, value)
    }

    /// Get features, current value (Base 5.15).
    #[must_use]
    pub const fn get_features(feature: u8) -> Command {
        Command::new(admin::GET_FEATURES, 0).with_cdw10_11(feature as u32, 0)
    }

    /// Create I/O completion queue, contiguous at `iova`, interrupting on `vector` if any (Base 5.4).
    #[must_use]
    pub const fn create_cq(queue: u16, entries: u32, iova: u64, vector: Option<u16>) -> Command {
        let interrupts = match vector {
            Some(vector) => (vector as u32) << 16 | 0b10,
            None => 0,
        };
        Command::new(admin::CREATE_CQ, 0)
            .with_prps(iova, 0)
            .with_cdw10_11((entries - 1) << 16 | queue as u32, interrupts | 1)
    }

    /// Create I/O submission queue, contiguous at `iova`, completing into queue `cq` (Base 5.5).
    #[must_use]
    pub const fn create_sq(queue: u16, entries: u32, iova: u64, cq: u16) -> Command {
        Command::new(admin::CREATE_SQ, 0)
            .with_prps(iova, 0)
            .with_cdw10_11((entries - 1) << 16 | queue as u32, (cq as u32) << 16 | 1)
    }

    /// Delete I/O completion queue (Base 5.6).
    #[must_use]
    pub const fn delete_cq(queue: u16) -> Command {
        Command::new(admin::DELETE_CQ, 0).with_cdw10_11(queue as u32, 0)
    }

    /// Delete I/O submission queue (Base 5.7).
    #[must_use]
    pub const fn delete_sq(queue: u16) -> Command {
        Command::new(admin::DELETE_SQ, 0).with_cdw10_11(queue as u32, 0)
    }

    /// Abort of command `cid` of submission queue `queue` (Base 5.1).
    #[must_use]
    pub const fn abort(queue: u16, cid: u16) -> Command {
        Command::new(admin::ABORT, 0).with_cdw10_11((cid as u32) << 16 | queue as u32, 0)
    }

    /// Opcode.
    #[must_use]
    pub const fn opcode(&self) -> u8 {
        self.words[0] as u8
    }

    /// Command identifier.
    #[must_use]
    pub const fn cid(&self) -> u16 {
        (self.words[0] >> 16) as u16
    }

    /// Namespace.
    #[must_use]
    pub const fn nsid(&self) -> u32 {
        (self.words[0] >> 32) as u32
    }

    /// True when the data pointer is an SGL descriptor.
    #[must_use]
    pub const fn has_sgl(&self) -> bool {
        self.words[0] & (3 << 14) != 0
    }

    /// First and second PRP entry.
    #[must_use]
    pub const fn prps(&self) -> (u64, u64) {
        (self.words[3], self.words[4])
    }

    /// The SGL descriptor in the data pointer.
    #[must_use]
    pub const fn sgl(&self) -> SglDescriptor {
        SglDescriptor::from_words(self.words[3], self.words[4])
    }

    /// Command dword `n`, 10 to 15.
    #[must_use]
    pub const fn cdw(&self, n: usize) -> u32 {
        (self.words[n / 2] >> (32 * (n % 2))) as u32
    }

    /// First block of an I/O command.
    #[must_use]
    pub const fn lba(&self) -> u64 {
        self.words[5]
    }

    /// Number of blocks of an I/O command.
    #[must_use]
    pub const fn block_count(&self) -> u32 {
        (self.words[6] as u32 & 0xffff) + 1
    }

    /// Whether the command forces unit access.
    #[must_use]
    pub const fn fua(&self) -> bool {
        self.words[6] & FUA != 0
    }

    /// Whether a write-zeroes command allows deallocation.
    #[must_use]
    pub const fn may_deallocate(&self) -> bool {
        self.words[6] & DEAC != 0
    }
}

/// An SGL data block descriptor (Base 4.1.2, figure 94).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SglDescriptor {
    /// I/O address of the first byte.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// Descriptor type and sub type; 0 is a data block at an address.
    pub kind: u8,
}

impl SglDescriptor {
    /// A data block.
    #[inline]
    #[must_use]
    pub const fn data_block(address: u64, len: u32) -> SglDescriptor {
        SglDescriptor {
            address,
            len,
            kind: 0,
        }
    }

    const fn word(self) -> u64 {
        self.len as u64 | (self.kind as u64) << 56
    }

    /// From the two words of a data pointer.
    #[must_use]
    pub const fn from_words(address: u64, word: u64) -> SglDescriptor {
        SglDescriptor {
            address,
            len: word as u32,
            kind: (word >> 56) as u8,
        }
    }
}

/// A range of a dataset management command (NVM 3.2.3, figure 42): 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DsmRange {
    /// First block.
    pub lba: u64,
    /// Blocks.
    pub blocks: u32,
}

impl DsmRange {
    /// As two little-endian words.
    #[must_use]
    pub const fn words(self) -> [u64; 2] {
        [(self.blocks as u64) << 32, self.lba]
    }

    /// From two little-endian words.
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> DsmRange {
        DsmRange {
            lba: words[1],
            blocks: (words[0] >> 32) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_laid_out_as_the_specification_says() {
        let read = Command::blocks(io::READ, 1, 0x1_0000_0002, 65_536, true)
            .with_cid(0xabcd)
            .with_prps(0x1000, 0x2000);
        assert_eq!(read.words[0], 0x0000_0001_abcd_0002);
        assert_eq!(
            read.words[3..7],
            [0x1000, 0x2000, 0x1_0000_0002, 0x4000_ffff]
        );
        assert_eq!(
            (read.lba(), read.block_count(), read.fua()),
            (0x1_0000_0002, 65_536, true)
        );
        assert_eq!((read.cdw(10), read.cdw(11)), (2, 1));
        let log = Command::get_log(2, ALL, 1 << 33, 512, true);
        assert_eq!(
            (log.cdw(10), log.cdw(11), log.cdw(13)),
            (127 << 16 | 1 << 15 | 2, 0, 2)
        );
        let cq = Command::create_cq(7, 65_536, 0x8000, Some(3));
        assert_eq!((cq.cdw(10), cq.cdw(11)), (0xffff_0007, 3 << 16 | 3));
        let sgl = Command::new(io::READ, 1).with_sgl(SglDescriptor::data_block(64, 8192));
        assert!(sgl.has_sgl() && sgl.sgl() == SglDescriptor::data_block(64, 8192));
        let range = DsmRange { lba: 5, blocks: 9 };
        assert_eq!(DsmRange::from_words(range.words()), range);
    }

    const ALL: u32 = crate::ALL_NAMESPACES;
}
