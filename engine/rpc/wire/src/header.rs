//! The frame header: 64 bytes, little-endian, the same layout in every version.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic "KRPC" |
//! | 4 | 2 | header version |
//! | 6 | 2 | flags: bit 0 = response, bit 1 = from an engine of the group: the body ends with a [`crate::Stamp`],
//! |   |   | bit 2 = the requester has data that may be asked for: the body ends with a [`crate::Offer`], before a stamp |
//! | 8 | 4 | opcode |
//! | 12 | 4 | tag: 0 = system xstream, 1 + t = main xstream of target t |
//! | 16 | 8 | request id, chosen by the requester, repeated in the response |
//! | 24 | 4 | status (responses): 0 or a negative DAOS error number |
//! | 28 | 4 | body length |
//! | 32 | 4 | bulk length |
//! | 36 | 4 | CRC-32C of the body |
//! | 40 | 4 | CRC-32C of the bulk |
//! | 44 | 4 | pool map version the sender acts on (0 = none) |
//! | 48 | 8 | enqueue id: in a response OVERLOAD_RETRY, to come back with; in a request that comes back (0 = new) |
//! | 56 | 4 | milliseconds: requests, when the requester gives up (0 = it does not say); OVERLOAD_RETRY, when to come back |
//! | 60 | 4 | CRC-32C of bytes 0 to 59 |

use thiserror::Error;

use crate::Opcode;

/// Length of the header, bytes.
pub const HEADER_LEN: usize = 64;
/// Longest body, bytes.
pub const MAX_BODY: usize = 1 << 20;
/// Longest bulk, bytes.
pub const MAX_BULK: usize = 4 << 20;
/// The first four bytes of every frame: "KRPC" read as a little-endian number.
pub const MAGIC: u32 = u32::from_le_bytes(*b"KRPC");
/// Version of this layout and of the meaning of its fields.
pub const HEADER_VERSION: u16 = 1;
/// Flag: this frame answers a request.
pub const FLAG_RESPONSE: u16 = 1;
/// Flag of requests: the body ends with a [`crate::Stamp`], by which one engine of a group knows another.
pub const FLAG_ENGINE: u16 = 2;
/// Flag of requests: the body ends with a [`crate::Offer`], before a stamp.
pub const FLAG_OFFER: u16 = 4;

const CRC_AT: usize = 60;

/// One frame's header. Lengths and checksums of body and bulk are set by [`Header::seal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Header {
    /// [`FLAG_RESPONSE`], [`FLAG_ENGINE`], [`FLAG_OFFER`]; 0.
    pub flags: u16,
    /// Opcode; responses repeat the request's.
    pub opcode: u32,
    /// Xstream that shall serve the request: 0 = system, 1 + t = main of target t.
    pub tag: u32,
    /// Chosen by the requester, unique among its requests in flight on the connection.
    pub request_id: u64,
    /// Responses: 0 or a negative DAOS error number. Requests: 0.
    pub status: i32,
    /// Bytes of body that follow the header.
    pub body_len: u32,
    /// Bytes of bulk that follow the body.
    pub bulk_len: u32,
    /// CRC-32C of the body (0 when empty).
    pub body_crc: u32,
    /// CRC-32C of the bulk (0 when empty).
    pub bulk_crc: u32,
    /// Version of the pool map that the sender acts on; 0 = none.
    pub map_version: u32,
    /// The request's place among those of its xstream, given with an OVERLOAD_RETRY; a request that comes back with it is
    /// served before younger ones. 0: none.
    pub enqueue_id: u64,
    /// Requests: the requester gives up after so many milliseconds; 0: it does not say. OVERLOAD_RETRY: come back then.
    pub after_ms: u32,
}

/// Why 64 bytes are not a header that may be believed. After any of these the connection has lost its framing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The stream does not carry this protocol.
    #[error(
        "not an RPC frame: it starts with {0:02x?} instead of \"KRPC\"; does the peer talk to the right port?"
    )]
    Magic([u8; 4]),
    /// Bytes were changed on the way, or the sender lost its place in the stream.
    #[error(
        "header checksum is {stored:#010x}, its bytes give {computed:#010x}: the stream is damaged"
    )]
    Crc {
        /// What the header says.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// A whole header of another version.
    #[error(
        "peer speaks header version {0}, this side speaks {HEADER_VERSION}: use matching releases on both sides"
    )]
    Version(u16),
    /// Bits that this version does not define.
    #[error("unknown flags {0:#06x}")]
    Reserved(u16),
    /// Over [`MAX_BODY`].
    #[error("body of {0} bytes is over the limit of {MAX_BODY}")]
    BodyTooLong(u32),
    /// Over [`MAX_BULK`].
    #[error("bulk of {0} bytes is over the limit of {MAX_BULK}")]
    BulkTooLong(u32),
}

impl Header {
    /// Whether this frame answers a request.
    pub const fn is_response(&self) -> bool {
        self.flags & FLAG_RESPONSE != 0
    }

    /// The opcode in parts.
    pub const fn opcode(&self) -> Opcode {
        Opcode(self.opcode)
    }

    /// Sets lengths and checksums to those of `body` and `bulk`, which must be within the limits, and encodes.
    ///
    /// # Panics
    /// If one of them is longer than its limit: the caller checks, because only it can say whose fault that is.
    pub fn seal(&mut self, body: &[u8], bulk: &[u8]) -> [u8; HEADER_LEN] {
        assert!(
            body.len() <= MAX_BODY && bulk.len() <= MAX_BULK,
            "body or bulk over the limit"
        );
        self.body_len = body.len() as u32;
        self.bulk_len = bulk.len() as u32;
        self.body_crc = crc32c::crc32c(body);
        self.bulk_crc = crc32c::crc32c(bulk);
        self.encode()
    }

    /// The 64 bytes, checksum included.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&HEADER_VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&self.flags.to_le_bytes());
        out[8..12].copy_from_slice(&self.opcode.to_le_bytes());
        out[12..16].copy_from_slice(&self.tag.to_le_bytes());
        out[16..24].copy_from_slice(&self.request_id.to_le_bytes());
        out[24..28].copy_from_slice(&self.status.to_le_bytes());
        out[28..32].copy_from_slice(&self.body_len.to_le_bytes());
        out[32..36].copy_from_slice(&self.bulk_len.to_le_bytes());
        out[36..40].copy_from_slice(&self.body_crc.to_le_bytes());
        out[40..44].copy_from_slice(&self.bulk_crc.to_le_bytes());
        out[44..48].copy_from_slice(&self.map_version.to_le_bytes());
        out[48..56].copy_from_slice(&self.enqueue_id.to_le_bytes());
        out[56..60].copy_from_slice(&self.after_ms.to_le_bytes());
        let crc = crc32c::crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads 64 bytes. The checksum comes first; only when it fails is the magic looked at, to name the likelier cause.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Header, HeaderError> {
        let stored = u32_at(bytes, CRC_AT);
        let computed = crc32c::crc32c(&bytes[..CRC_AT]);
        let magic = u32_at(bytes, 0);
        if magic != MAGIC {
            return Err(HeaderError::Magic(magic.to_le_bytes()));
        }
        if stored != computed {
            return Err(HeaderError::Crc { stored, computed });
        }
        let version = u16_at(bytes, 4);
        if version != HEADER_VERSION {
            return Err(HeaderError::Version(version));
        }
        let flags = u16_at(bytes, 6);
        if flags & !(FLAG_RESPONSE | FLAG_ENGINE | FLAG_OFFER) != 0 {
            return Err(HeaderError::Reserved(flags));
        }
        let header = Header {
            flags,
            opcode: u32_at(bytes, 8),
            tag: u32_at(bytes, 12),
            request_id: u64::from(u32_at(bytes, 16)) | u64::from(u32_at(bytes, 20)) << 32,
            status: u32_at(bytes, 24).cast_signed(),
            body_len: u32_at(bytes, 28),
            bulk_len: u32_at(bytes, 32),
            body_crc: u32_at(bytes, 36),
            bulk_crc: u32_at(bytes, 40),
            map_version: u32_at(bytes, 44),
            enqueue_id: u64::from(u32_at(bytes, 48)) | u64::from(u32_at(bytes, 52)) << 32,
            after_ms: u32_at(bytes, 56),
        };
        if header.body_len as usize > MAX_BODY {
            return Err(HeaderError::BodyTooLong(header.body_len));
        }
        if header.bulk_len as usize > MAX_BULK {
            return Err(HeaderError::BulkTooLong(header.bulk_len));
        }
        Ok(header)
    }
}

fn u16_at(bytes: &[u8; HEADER_LEN], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            flags: FLAG_RESPONSE,
            opcode: 0x0409_0003,
            tag: 7,
            request_id: 0x1122_3344_5566_7788,
            status: -1003,
            map_version: 42,
            enqueue_id: 0x0102_0304_0506_0708,
            after_ms: 2_500,
            ..Header::default()
        }
    }

    #[test]
    fn encode_then_decode_gives_the_same() {
        let mut header = sample();
        let bytes = header.seal(b"body", b"bulk data");
        assert_eq!(Header::decode(&bytes), Ok(header));
        assert_eq!(&bytes[..4], b"KRPC");
        assert_eq!((header.body_len, header.bulk_len), (4, 9));
    }

    #[test]
    fn layout_is_fixed() {
        let bytes = sample().encode();
        assert_eq!(bytes[4..8], [1, 0, 1, 0]);
        assert_eq!(bytes[8..12], [3, 0, 9, 4]);
        assert_eq!(bytes[12..16], [7, 0, 0, 0]);
        assert_eq!(
            bytes[16..24],
            [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]
        );
        assert_eq!(bytes[24..28], (-1003i32).to_le_bytes());
        assert_eq!(bytes[44..48], [42, 0, 0, 0]);
        assert_eq!(bytes[48..56], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[56..60], 2_500u32.to_le_bytes());
    }

    #[test]
    fn every_single_bit_flip_is_noticed() {
        let good = sample().encode();
        for bit in 0..HEADER_LEN * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bad).is_err(), "bit {bit} flipped unnoticed");
        }
    }

    /// A header with a right checksum over wrong fields, as a peer with another idea of the protocol would send.
    fn resealed(change: impl FnOnce(&mut [u8; HEADER_LEN])) -> Result<Header, HeaderError> {
        let mut bytes = sample().encode();
        change(&mut bytes);
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        Header::decode(&bytes)
    }

    #[test]
    fn wrong_fields_are_named() {
        assert_eq!(resealed(|b| b[4] = 9), Err(HeaderError::Version(9)));
        assert_eq!(resealed(|b| b[6] = 9), Err(HeaderError::Reserved(9)));
        let over = (MAX_BODY as u32) + 1;
        assert_eq!(
            resealed(|b| b[28..32].copy_from_slice(&over.to_le_bytes())),
            Err(HeaderError::BodyTooLong(over))
        );
        assert_eq!(
            resealed(|b| b[32..36].copy_from_slice(&u32::MAX.to_le_bytes())),
            Err(HeaderError::BulkTooLong(u32::MAX))
        );
        let mut http = [b' '; HEADER_LEN];
        http[..4].copy_from_slice(b"GET ");
        assert_eq!(Header::decode(&http), Err(HeaderError::Magic(*b"GET ")));
    }

    #[test]
    fn limits_themselves_are_allowed() {
        let max = Header {
            body_len: MAX_BODY as u32,
            bulk_len: MAX_BULK as u32,
            ..sample()
        };
        assert_eq!(Header::decode(&max.encode()), Ok(max));
    }
}
