//! Frames: what one write puts into a log half.
//!
//! A frame starts at a unit, with a 64-byte header, then records, then zeros to the end of its last unit. Its checksum
//! covers header and records and is seeded with the store's uuid, so that a frame of an earlier format is never taken
//! for one of this.

use crate::codec::{Put, Reader};
use crate::device::UNIT;

/// Bytes of the header.
pub(crate) const HEADER: usize = 64;
/// Most bytes of one frame, header included: also the most that a reader must hold.
pub(crate) const FRAME_MAX: usize = 256 << 10;
const MAGIC: u32 = u32::from_le_bytes(*b"KLFR");

/// What a frame is for. A half is image and carry frames, one end frame, then records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Part of the checkpoint's walk over the index.
    Image = 1,
    /// Records that were acknowledged in the other half during the walk.
    Carry = 2,
    /// The checkpoint is complete: from here on this half is the log.
    End = 3,
    /// Records of one group commit.
    Records = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Image, Kind::Carry, Kind::End, Kind::Records]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }
}

/// The header's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: Kind,
    /// Which checkpoint this half began with; grows by one with each.
    pub(crate) generation: u64,
    /// Number of the frame in its half, from 0 without gaps.
    pub(crate) seq: u64,
    /// Bytes of records.
    pub(crate) len: u32,
}

impl FrameHeader {
    /// Units that the frame takes.
    pub(crate) fn units(&self) -> u32 {
        units_for(self.len as usize)
    }
}

/// Units of a frame with `len` bytes of records.
pub(crate) fn units_for(len: usize) -> u32 {
    (HEADER + len).div_ceil(UNIT) as u32
}

/// Writes a frame into `out`, which has at least its units, and zeroes the rest of the last one.
pub(crate) fn encode(seed: u32, header: FrameHeader, records: &[u8], out: &mut [u8]) {
    let mut head = Vec::with_capacity(HEADER);
    head.put_u32(MAGIC);
    head.put_u8(header.kind as u8);
    head.extend_from_slice(&[0; 3]);
    head.put_u64(header.generation);
    head.put_u64(header.seq);
    head.put_u32(header.len);
    head.resize(HEADER - 4, 0);
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(seed, &head), records);
    head.put_u32(crc);
    let end = HEADER + records.len();
    let padded = header.units() as usize * UNIT;
    out[..HEADER].copy_from_slice(&head);
    out[HEADER..end].copy_from_slice(records);
    out[end..padded].fill(0);
}

/// The header at the start of `unit`, if it looks like one. Says nothing about the checksum.
pub(crate) fn peek(unit: &[u8]) -> Option<FrameHeader> {
    let mut r = Reader(unit);
    if r.u32().ok()? != MAGIC {
        return None;
    }
    let kind = Kind::from_byte(r.u8().ok()?)?;
    r.bytes(3).ok()?;
    let (generation, seq, len) = (r.u64().ok()?, r.u64().ok()?, r.u32().ok()?);
    let header = FrameHeader {
        kind,
        generation,
        seq,
        len,
    };
    (len as usize <= FRAME_MAX - HEADER).then_some(header)
}

/// The frame at the start of `bytes` and its records, if its checksum is right and all of it is there.
pub(crate) fn decode(seed: u32, bytes: &[u8]) -> Option<(FrameHeader, &[u8])> {
    let header = peek(bytes)?;
    let records = bytes.get(HEADER..HEADER + header.len as usize)?;
    let stored = Reader(&bytes[HEADER - 4..HEADER]).u32().ok()?;
    let crc = crc32c::crc32c_append(crc32c::crc32c_append(seed, &bytes[..HEADER - 4]), records);
    (crc == stored).then_some((header, records))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_seen() {
        let header = FrameHeader {
            kind: Kind::Records,
            generation: 3,
            seq: 9,
            len: 100,
        };
        let records = vec![0xa5; 100];
        let mut bytes = vec![0xff; UNIT];
        encode(77, header, &records, &mut bytes);
        assert_eq!(decode(77, &bytes), Some((header, &records[..])));
        assert_eq!(decode(78, &bytes), None, "another store's frame");
        for bit in 0..(HEADER + 100) * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(77, &bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(bytes[HEADER + 100..].iter().all(|b| *b == 0));
        assert_eq!(decode(77, &bytes[..HEADER + 99]), None);
    }

    #[test]
    fn frames_take_whole_units() {
        assert_eq!(units_for(0), 1);
        assert_eq!(units_for(UNIT - HEADER), 1);
        assert_eq!(units_for(UNIT - HEADER + 1), 2);
        assert_eq!(units_for(FRAME_MAX - HEADER) as usize * UNIT, FRAME_MAX);
    }
}
