//! The superblock: whose device it is and where its regions lie. Written at format, never changed.

use uuid::Uuid;

use crate::codec::{Put, Reader};
use crate::device::UNIT;

/// Where the two copies lie, in units: far enough apart that one scribble does not reach both.
pub(crate) const COPIES: [u64; 2] = [0, 255];
/// Units in front of the log: both copies and room between them, zero on an empty device.
pub(crate) const HEADER_UNITS: u64 = 256;
/// The format described in docs/internals/store.md.
pub(crate) const FORMAT_VERSION: u32 = 1;
const MAGIC: &[u8; 12] = b"KEEL OBJ STO";

/// Content of the superblock. Regions are in units of 4 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// This format of this device; seeds the checksum of every log frame.
    pub store: Uuid,
    /// The engine that it belongs to.
    pub engine: Uuid,
    /// Which target of the engine.
    pub target: u32,
    /// How many targets the engine has; placement depends on it.
    pub targets: u32,
    /// Units of the device at format.
    pub units: u64,
    /// Units of one half of the metadata log. The halves follow the superblock area.
    pub half_units: u64,
}

/// What one copy turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Copy {
    Good(Superblock),
    Newer(u32),
    /// Ours by its magic, but its checksum is wrong or its content impossible.
    Damaged,
    Zero,
    Foreign,
}

impl Superblock {
    /// First unit of a log half.
    pub(crate) fn half_start(&self, half: u8) -> u64 {
        HEADER_UNITS + u64::from(half) * self.half_units
    }

    /// First unit of the data region; it reaches to the end of the device.
    pub(crate) fn data_start(&self) -> u64 {
        HEADER_UNITS + 2 * self.half_units
    }

    /// Units of the data region.
    pub(crate) fn data_units(&self) -> u64 {
        self.units - self.data_start()
    }

    /// Seed of the checksums of this store's frames.
    pub(crate) fn seed(&self) -> u32 {
        crc32c::crc32c(self.store.as_bytes())
    }

    /// One unit. The checksum is in its last four bytes in every version of the format.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(UNIT);
        out.extend_from_slice(MAGIC);
        out.put_u32(FORMAT_VERSION);
        out.extend_from_slice(self.store.as_bytes());
        out.extend_from_slice(self.engine.as_bytes());
        out.put_u32(self.target);
        out.put_u32(self.targets);
        out.put_u64(self.units);
        out.put_u64(self.half_units);
        out.resize(UNIT - 4, 0);
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        out
    }

    pub(crate) fn decode(unit: &[u8]) -> Copy {
        if unit.iter().all(|b| *b == 0) {
            return Copy::Zero;
        }
        if &unit[..MAGIC.len()] != MAGIC {
            return Copy::Foreign;
        }
        let crc = crc32c::crc32c(&unit[..UNIT - 4]);
        if unit[UNIT - 4..] != crc.to_le_bytes() {
            return Copy::Damaged;
        }
        Self::fields(&mut Reader(&unit[MAGIC.len()..])).unwrap_or(Copy::Damaged)
    }

    fn fields(r: &mut Reader<'_>) -> Option<Copy> {
        let version = r.u32().ok()?;
        if version > FORMAT_VERSION {
            return Some(Copy::Newer(version));
        }
        let store = Uuid::from_bytes(r.array().ok()?);
        let engine = Uuid::from_bytes(r.array().ok()?);
        let (target, targets) = (r.u32().ok()?, r.u32().ok()?);
        let (units, half_units) = (r.u64().ok()?, r.u64().ok()?);
        let regions = half_units.checked_mul(2)?.checked_add(HEADER_UNITS)?;
        let sane = version > 0 && target < targets && half_units > 0 && regions < units;
        let sb = Superblock {
            store,
            engine,
            target,
            targets,
            units,
            half_units,
        };
        sane.then_some(Copy::Good(sb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_and_tells_damage_from_strangers() {
        let sb = Superblock {
            store: Uuid::from_u128(1),
            engine: Uuid::from_u128(2),
            target: 3,
            targets: 4,
            units: 4096,
            half_units: 256,
        };
        let good = sb.encode();
        assert_eq!(Superblock::decode(&good), Copy::Good(sb));
        let mut bad = good.clone();
        bad[40] ^= 1;
        assert_eq!(Superblock::decode(&bad), Copy::Damaged);
        let mut newer = good.clone();
        newer[12] = 9;
        let crc = crc32c::crc32c(&newer[..UNIT - 4]).to_le_bytes();
        newer[UNIT - 4..].copy_from_slice(&crc);
        assert_eq!(Superblock::decode(&newer), Copy::Newer(9));
        assert_eq!(Superblock::decode(&vec![0; UNIT]), Copy::Zero);
        let mut other = vec![0; UNIT];
        other[100] = 1;
        assert_eq!(Superblock::decode(&other), Copy::Foreign);
    }
}
