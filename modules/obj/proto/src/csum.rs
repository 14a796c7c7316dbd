//! End-to-end checksums: the writer computes them, the store keeps them, the reader verifies them.

/// Bytes covered by one checksum (DAOS's default chunk size). The last chunk of a piece may be shorter.
pub const CSUM_CHUNK: usize = 32 << 10;

/// Chunk `index` (counted from the start of the given bytes) does not have the checksum that it was stored with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("checksum chunk {index}: stored as {expected:#010x}, computed {found:#010x}")]
pub struct ChunkMismatch {
    /// Index of the first bad chunk.
    pub index: usize,
    /// The checksum that came with the data.
    pub expected: u32,
    /// The checksum of the bytes as they are now.
    pub found: u32,
}

/// CRC-32C of each [`CSUM_CHUNK`] bytes of `data`, in order; none for no data.
pub fn csums(data: &[u8]) -> Vec<u32> {
    data.chunks(CSUM_CHUNK).map(crc32c::crc32c).collect()
}

/// Compares `data` with the checksums that came with it.
///
/// # Errors
/// The first chunk that differs. Too few or too many checksums count as a mismatch of the first surplus chunk.
pub fn verify(data: &[u8], expected: &[u32]) -> Result<(), ChunkMismatch> {
    let chunks = data.len().div_ceil(CSUM_CHUNK);
    for (index, chunk) in data.chunks(CSUM_CHUNK).enumerate() {
        let found = crc32c::crc32c(chunk);
        let expected = *expected.get(index).unwrap_or(&!found);
        if found != expected {
            return Err(ChunkMismatch {
                index,
                expected,
                found,
            });
        }
    }
    match expected.get(chunks) {
        Some(&surplus) => Err(ChunkMismatch {
            index: chunks,
            expected: surplus,
            found: 0,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_chunk_has_its_own_checksum() {
        let mut data = vec![7u8; CSUM_CHUNK * 2 + 5];
        let sums = csums(&data);
        assert_eq!(sums.len(), 3);
        assert_eq!(verify(&data, &sums), Ok(()));
        data[CSUM_CHUNK] ^= 1;
        assert_eq!(verify(&data, &sums).unwrap_err().index, 1);
    }

    #[test]
    fn a_wrong_number_of_checksums_is_a_mismatch() {
        let data = vec![1u8; CSUM_CHUNK + 1];
        let sums = csums(&data);
        assert_eq!(verify(&data, &sums[..1]).unwrap_err().index, 1);
        assert_eq!(verify(&data[..CSUM_CHUNK], &sums).unwrap_err().index, 1);
        assert_eq!(verify(&[], &[]), Ok(()));
        assert!(verify(&[], &[3]).is_err());
    }
}
