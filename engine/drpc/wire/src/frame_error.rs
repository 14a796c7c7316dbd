//! What can be wrong with packets.

use daos_errno::Der;

/// A packet that breaks the framing, or a message that does not fit it. The connection is of no use afterwards: nobody knows
/// where the next message starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than a header.
    #[error("packet of {0} bytes is shorter than the 24-byte chunk header")]
    ShortPacket(usize),
    /// More bytes than any packet may have.
    #[error("packet of {0} bytes is longer than the largest packet, 131072")]
    LongPacket(usize),
    /// A message of no chunks.
    #[error("first chunk says that the message has 0 chunks")]
    NoChunks,
    /// Larger than this side takes.
    #[error("message of {total} bytes is over the limit of {limit}")]
    TooLong {
        /// What the first chunk announces.
        total: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The memory for the message is not to be had.
    #[error("no memory for {0} more bytes of a message")]
    NoMemory(usize),
    /// A chunk larger than a chunk may be, or than the packet that carries it.
    #[error("chunk says {claimed} bytes, at most {allowed} are possible")]
    ChunkTooLong {
        /// The header's `chunk_data_size`.
        claimed: u64,
        /// 131048, or what the packet really carries.
        allowed: u64,
    },
    /// More data than the message has left.
    #[error("chunk of {chunk} bytes, but the message has only {remaining} left")]
    DataOverflow {
        /// The header's `chunk_data_size`.
        chunk: u64,
        /// What was missing before it.
        remaining: u64,
    },
    /// A later chunk with another number of chunks.
    #[error("inconsistent total chunks: {first} in the first chunk, {now} now")]
    ChunkCountChanged {
        /// In the first chunk.
        first: u32,
        /// In this one.
        now: u32,
    },
    /// A place past the end.
    #[error("chunk {index} of a message of {total}")]
    IndexPastEnd {
        /// The header's `chunk_idx`.
        index: u32,
        /// The header's `total_chunks`.
        total: u32,
    },
    /// Not the next chunk: one was lost, doubled or swapped.
    #[error("possible lost chunk: expected chunk {expected}, got {got}")]
    WrongIndex {
        /// The next in order.
        expected: u32,
        /// The header's `chunk_idx`.
        got: u32,
    },
    /// A later chunk with another total size.
    #[error("inconsistent data size: {first} bytes in the first chunk, {now} now")]
    TotalSizeChanged {
        /// In the first chunk.
        first: u64,
        /// In this one.
        now: u64,
    },
    /// Bytes after the chunk's data.
    #[error("packet carries {carried} bytes of data, its header says {claimed}")]
    TrailingBytes {
        /// What came.
        carried: usize,
        /// The header's `chunk_data_size`.
        claimed: u64,
    },
    /// A chunk without data while data is missing: such a message need never end.
    #[error("empty chunk {index} while {remaining} bytes are missing")]
    EmptyChunk {
        /// The header's `chunk_idx`.
        index: u32,
        /// What is missing.
        remaining: u64,
    },
    /// The last chunk came and bytes are missing.
    #[error("expected message of size {total}, the last chunk leaves {missing} bytes missing")]
    Incomplete {
        /// Announced.
        total: u64,
        /// Not delivered.
        missing: u64,
    },
}

impl FrameError {
    /// The DAOS error number of the same finding (DAOS `drpc.c` `unixcomm_recv` and `drpc_recv_msg`).
    pub const fn der(&self) -> Der {
        match self {
            FrameError::ShortPacket(_)
            | FrameError::LongPacket(_)
            | FrameError::ChunkTooLong { .. }
            | FrameError::DataOverflow { .. } => Der::TRUNC,
            FrameError::TooLong { .. } => Der::OVERFLOW,
            FrameError::NoMemory(_) => Der::NOMEM,
            FrameError::WrongIndex { .. } => Der::MISMATCH,
            FrameError::NoChunks
            | FrameError::ChunkCountChanged { .. }
            | FrameError::IndexPastEnd { .. }
            | FrameError::TotalSizeChanged { .. }
            | FrameError::TrailingBytes { .. }
            | FrameError::EmptyChunk { .. }
            | FrameError::Incomplete { .. } => Der::PROTO,
        }
    }
}
