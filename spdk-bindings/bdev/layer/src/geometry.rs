//! Size, shape and abilities of a device.

use crate::{Op, OpSet};

/// What a user of a device must know. Fixed while the device is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes per block: the unit of every range. A power of two, 512 or more.
    pub block_size: u32,
    /// Blocks in all.
    pub num_blocks: u64,
    /// Reads and writes of a multiple of this many blocks do best.
    pub optimal_io_blocks: u32,
    /// Reads and writes of more blocks are rejected.
    pub max_io_blocks: u32,
    /// True when a completed write may be lost on power failure until a flush or unless it was made with FUA.
    pub volatile_write_cache: bool,
    /// True when unmapped blocks read as zeroes; otherwise they read as zeroes or as before.
    pub unmap_zeroes: bool,
    /// What can be asked.
    pub supports: OpSet,
}

impl Geometry {
    /// A device that supports everything, with I/O of up to 1 MiB (or one block) and no volatile cache.
    #[must_use]
    pub fn new(block_size: u32, num_blocks: u64) -> Geometry {
        Geometry {
            block_size,
            num_blocks,
            optimal_io_blocks: 1,
            max_io_blocks: ((1 << 20) / block_size.max(1)).max(1),
            volatile_write_cache: false,
            unmap_zeroes: true,
            supports: OpSet::ALL,
        }
    }

    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.num_blocks * u64::from(self.block_size)
    }

    /// Whether a device with these numbers can go on for one that had `before`; the text says why not. It may have grown.
    ///
    /// # Errors
    /// The first number that users of the device before rely on.
    pub fn continues(&self, before: &Geometry) -> Result<(), String> {
        if self.block_size != before.block_size {
            return Err(format!(
                "its blocks have {} bytes and had {}",
                self.block_size, before.block_size
            ));
        }
        if self.num_blocks < before.num_blocks {
            return Err(format!(
                "it has {} blocks and had {}",
                self.num_blocks, before.num_blocks
            ));
        }
        if self.max_io_blocks < before.max_io_blocks {
            return Err("it takes shorter I/O than before".into());
        }
        if self.volatile_write_cache && !before.volatile_write_cache {
            return Err("it has a volatile write cache and had none".into());
        }
        if before.unmap_zeroes && !self.unmap_zeroes {
            return Err("what is unmapped reads as zeroes no longer".into());
        }
        let lacks = Op::ALL
            .into_iter()
            .find(|op| before.supports.contains(*op) && !self.supports.contains(*op));
        match lacks {
            Some(op) => Err(format!("it no longer supports {op}")),
            None => Ok(()),
        }
    }

    /// Checks what devices promise about their own numbers; the text says what is wrong.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn check(&self) -> Result<(), String> {
        if !self.block_size.is_power_of_two() || self.block_size < 512 {
            return Err(format!(
                "block size {} is not a power of two of at least 512",
                self.block_size
            ));
        }
        if self.num_blocks == 0 {
            return Err("it has no blocks".into());
        }
        if self
            .num_blocks
            .checked_mul(u64::from(self.block_size))
            .is_none_or(|bytes| bytes > i64::MAX as u64)
        {
            return Err(format!(
                "{} blocks of {} bytes are more than 8 EiB",
                self.num_blocks, self.block_size
            ));
        }
        if self.max_io_blocks == 0 {
            return Err("it takes no I/O: max_io_blocks is 0".into());
        }
        let max_bytes = u64::from(self.max_io_blocks) * u64::from(self.block_size);
        if max_bytes > 1 << 30 {
            return Err(format!(
                "max_io_blocks allows {max_bytes} bytes, more than 1 GiB"
            ));
        }
        if !self.supports.contains(Op::Read) {
            return Err("it cannot be read".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_broken_rule_has_its_text() {
        let good = Geometry::new(4096, 8);
        assert_eq!((good.check(), good.bytes()), (Ok(()), 32768));
        let cases = [
            (
                Geometry {
                    block_size: 0,
                    ..good
                },
                "block size 0 is not a power of two of at least 512",
            ),
            (
                Geometry {
                    block_size: 520,
                    ..good
                },
                "block size 520 is not a power of two of at least 512",
            ),
            (
                Geometry {
                    num_blocks: 0,
                    ..good
                },
                "it has no blocks",
            ),
            (
                Geometry {
                    num_blocks: 1 << 52,
                    ..good
                },
                "4503599627370496 blocks of 4096 bytes are more than 8 EiB",
            ),
            (
                Geometry {
                    max_io_blocks: 0,
                    ..good
                },
                "it takes no I/O: max_io_blocks is 0",
            ),
            (
                Geometry {
                    max_io_blocks: 1 << 20,
                    ..good
                },
                "max_io_blocks allows 4294967296 bytes, more than 1 GiB",
            ),
            (
                Geometry {
                    supports: OpSet::ALL.without(Op::Read),
                    ..good
                },
                "it cannot be read",
            ),
        ];
        for (geometry, text) in cases {
            assert_eq!(geometry.check().unwrap_err(), text);
        }
    }

    #[test]
    fn a_device_goes_on_for_another_if_nobody_can_tell_but_by_its_size() {
        let before = Geometry::new(4096, 8);
        let grown = Geometry {
            num_blocks: 9,
            ..before
        };
        assert_eq!(grown.continues(&before), Ok(()));
        let cases = [
            (before, "it has 8 blocks and had 9"),
            (
                Geometry::new(512, 100),
                "its blocks have 512 bytes and had 4096",
            ),
            (
                Geometry {
                    volatile_write_cache: true,
                    ..grown
                },
                "it has a volatile write cache and had none",
            ),
            (
                Geometry {
                    supports: OpSet::ALL.without(Op::Unmap),
                    ..grown
                },
                "it no longer supports unmap",
            ),
        ];
        for (geometry, text) in cases {
            assert_eq!(geometry.continues(&grown).unwrap_err(), text);
        }
    }
}
