//! The header in front of every chunk: 24 bytes, the machine's byte order (both ends are on one host), no magic, no checksum.

/// Bytes of a chunk header.
pub const HEADER_LEN: usize = 24;
/// Largest packet, header included (DAOS `UNIXCOMM_MAXMSGSIZE`).
pub const MAX_PACKET: usize = 1 << 17;
/// Most message bytes in one chunk.
pub const MAX_CHUNK_DATA: usize = MAX_PACKET - HEADER_LEN;
/// Largest body of a call or response. DAOS has no bound; a bound is what keeps a peer from choosing our memory use.
pub const MAX_BODY: usize = 64 << 20;
/// Largest message: a body with the fields around it.
pub const MAX_MESSAGE: usize = MAX_BODY + 64;

/// What the header says (DAOS `struct drpc_header`, `src/include/daos/drpc_types.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Bytes of the whole message.
    pub total_data_size: u64,
    /// Bytes of this chunk, after the header.
    pub chunk_data_size: u64,
    /// Place of this chunk, from 0.
    pub chunk_idx: u32,
    /// Chunks of the message, at least 1.
    pub total_chunks: u32,
}

impl ChunkHeader {
    /// The 24 bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&self.total_data_size.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.chunk_data_size.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.chunk_idx.to_ne_bytes());
        bytes[20..24].copy_from_slice(&self.total_chunks.to_ne_bytes());
        bytes
    }

    /// Header and data of a packet; `None` if it is shorter than a header. The fields are not judged here.
    pub fn split(packet: &[u8]) -> Option<(ChunkHeader, &[u8])> {
        let (head, data) = packet.split_first_chunk::<HEADER_LEN>()?;
        let long = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&head[at..at + 8]);
            u64::from_ne_bytes(bytes)
        };
        let word = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&head[at..at + 4]);
            u32::from_ne_bytes(bytes)
        };
        let header = ChunkHeader {
            total_data_size: long(0),
            chunk_data_size: long(8),
            chunk_idx: word(16),
            total_chunks: word(20),
        };
        Some((header, data))
    }

    /// How many chunks a message of `len` bytes is cut into; an empty message is one empty chunk.
    pub fn chunks_of(len: usize) -> u32 {
        let chunks = len.div_ceil(MAX_CHUNK_DATA).max(1);
        u32::try_from(chunks).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_chunk_has_header_and_payload_at_their_offsets() {
        let header = ChunkHeader {
            total_data_size: 0x0102_0304,
            chunk_data_size: 2,
            chunk_idx: 7,
            total_chunks: 9,
        };
        let mut packet = header.encode().to_vec();
        packet.extend_from_slice(&[0xaa, 0xbb]);
        assert_eq!(packet.len(), HEADER_LEN + 2);
        assert_eq!(
            ChunkHeader::split(&packet),
            Some((header, &[0xaa, 0xbb][..]))
        );
    }

    #[test]
    fn get_chunk_from_buffer_shorter_than_a_header_is_none_and_header_only_is_fine() {
        assert_eq!(ChunkHeader::split(&[]), None);
        assert_eq!(ChunkHeader::split(&[0; HEADER_LEN - 1]), None);
        let (header, data) = ChunkHeader::split(&[0; HEADER_LEN]).expect("24 bytes are a header");
        assert_eq!(header.total_chunks, 0);
        assert!(data.is_empty());
    }

    #[test]
    fn number_of_chunks_at_the_edges() {
        assert_eq!(ChunkHeader::chunks_of(0), 1);
        assert_eq!(ChunkHeader::chunks_of(1), 1);
        assert_eq!(ChunkHeader::chunks_of(MAX_CHUNK_DATA), 1);
        assert_eq!(ChunkHeader::chunks_of(MAX_CHUNK_DATA + 1), 2);
        assert_eq!(ChunkHeader::chunks_of(2 * MAX_CHUNK_DATA), 2);
    }
}
