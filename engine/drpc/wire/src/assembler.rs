//! Packets in, one message out.

use std::borrow::Cow;

use crate::frame_error::FrameError;
use crate::header::{ChunkHeader, MAX_CHUNK_DATA, MAX_PACKET};
use crate::recognise::{Framing, recognise};

/// Puts a peer's packets together, one message after the other.
///
/// Checks every field of every header, in the order in which DAOS's receiver does (`src/common/drpc.c`), plus what that one
/// leaves out: the total is bounded, repeated and met, and a chunk's size is the packet's. Memory grows with the bytes that
/// arrived, never with what a header announces.
#[derive(Debug)]
pub struct Assembler {
    limit: usize,
    framing: Option<Framing>,
    partial: Option<Partial>,
}

/// What a packet led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The message goes on in the next packet.
    More,
    /// The message is complete; borrowed from the packet when it was the only one.
    Message(Cow<'a, [u8]>),
}

/// A message of which some chunks came.
#[derive(Debug)]
struct Partial {
    total: u64,
    chunks: u32,
    next: u32,
    data: Vec<u8>,
}

impl Assembler {
    /// An assembler that tells the peer's framing by its first packet; messages over `limit` bytes are refused.
    pub fn new(limit: usize) -> Assembler {
        Assembler {
            limit,
            framing: None,
            partial: None,
        }
    }

    /// An assembler for a peer whose framing is known.
    pub fn with_framing(limit: usize, framing: Framing) -> Assembler {
        Assembler {
            framing: Some(framing),
            ..Assembler::new(limit)
        }
    }

    /// The peer's framing, once its first packet came.
    pub fn framing(&self) -> Option<Framing> {
        self.framing
    }

    /// Bytes held for a message that is not complete.
    pub fn buffered(&self) -> usize {
        self.partial.as_ref().map_or(0, |p| p.data.capacity())
    }

    /// Whether a message is begun and not complete.
    pub fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// Takes the next packet. After an error the stream has no next message boundary: close the connection.
    pub fn push<'a>(&mut self, packet: &'a [u8]) -> Result<Progress<'a>, FrameError> {
        if packet.len() > MAX_PACKET {
            self.partial = None;
            return Err(FrameError::LongPacket(packet.len()));
        }
        let framing = *self.framing.get_or_insert_with(|| recognise(packet));
        match framing {
            Framing::Bare => self.push_bare(packet),
            Framing::Chunked => {
                let partial = self.partial.take();
                match partial {
                    None => self.push_first(packet),
                    Some(partial) => self.push_next(partial, packet),
                }
            }
        }
    }

    fn push_bare<'a>(&self, packet: &'a [u8]) -> Result<Progress<'a>, FrameError> {
        self.check_total(packet.len() as u64)?;
        Ok(Progress::Message(Cow::Borrowed(packet)))
    }

    fn push_first<'a>(&mut self, packet: &'a [u8]) -> Result<Progress<'a>, FrameError> {
        let (header, data) = split(packet)?;
        if header.total_chunks == 0 {
            return Err(FrameError::NoChunks);
        }
        self.check_total(header.total_data_size)?;
        check_chunk(&header, data, header.total_data_size, 0)?;
        if header.chunk_data_size == header.total_data_size {
            // Fewer chunks than announced are fine once all bytes are there, as in DAOS.
            return Ok(Progress::Message(Cow::Borrowed(data)));
        }
        self.keep(
            Partial {
                total: header.total_data_size,
                chunks: header.total_chunks,
                next: 0,
                data: Vec::new(),
            },
            data,
        )?;
        Ok(Progress::More)
    }

    fn push_next<'a>(
        &mut self,
        partial: Partial,
        packet: &'a [u8],
    ) -> Result<Progress<'a>, FrameError> {
        let (header, data) = split(packet)?;
        let remaining = partial.total - partial.data.len() as u64;
        check_sizes(&header, data, remaining)?;
        if header.total_chunks != partial.chunks {
            return Err(FrameError::ChunkCountChanged {
                first: partial.chunks,
                now: header.total_chunks,
            });
        }
        if header.total_data_size != partial.total {
            return Err(FrameError::TotalSizeChanged {
                first: partial.total,
                now: header.total_data_size,
            });
        }
        check_place(&header, data, remaining, partial.next)?;
        let whole = header.chunk_data_size == remaining;
        self.keep(partial, data)?;
        if !whole {
            return Ok(Progress::More);
        }
        let message = self.partial.take().map(|p| p.data).unwrap_or_default();
        Ok(Progress::Message(Cow::Owned(message)))
    }

    fn check_total(&self, total: u64) -> Result<(), FrameError> {
        let limit = self.limit as u64;
        if total > limit {
            return Err(FrameError::TooLong { total, limit });
        }
        Ok(())
    }

    /// Appends a checked chunk. Room is made for what is there, at most doubled, never past the total.
    fn keep(&mut self, mut partial: Partial, data: &[u8]) -> Result<(), FrameError> {
        let needed = partial.data.len() + data.len();
        if needed > partial.data.capacity() {
            let total = usize::try_from(partial.total).unwrap_or(usize::MAX);
            let room = (2 * needed).min(total).max(needed);
            let more = room - partial.data.len();
            partial
                .data
                .try_reserve_exact(more)
                .map_err(|_| FrameError::NoMemory(more))?;
        }
        partial.data.extend_from_slice(data);
        partial.next += 1;
        self.partial = Some(partial);
        Ok(())
    }
}

fn split(packet: &[u8]) -> Result<(ChunkHeader, &[u8]), FrameError> {
    ChunkHeader::split(packet).ok_or(FrameError::ShortPacket(packet.len()))
}

fn check_chunk(
    header: &ChunkHeader,
    data: &[u8],
    remaining: u64,
    expected: u32,
) -> Result<(), FrameError> {
    check_sizes(header, data, remaining)?;
    check_place(header, data, remaining, expected)
}

/// Size of the chunk against the largest chunk, the packet that brought it, and what the message still lacks.
fn check_sizes(header: &ChunkHeader, data: &[u8], remaining: u64) -> Result<(), FrameError> {
    let claimed = header.chunk_data_size;
    let allowed = MAX_CHUNK_DATA.min(data.len()) as u64;
    if claimed > allowed {
        return Err(FrameError::ChunkTooLong { claimed, allowed });
    }
    if claimed > remaining {
        return Err(FrameError::DataOverflow {
            chunk: claimed,
            remaining,
        });
    }
    Ok(())
}

/// Place of the chunk in the message, and that the message can still end.
fn check_place(
    header: &ChunkHeader,
    data: &[u8],
    remaining: u64,
    expected: u32,
) -> Result<(), FrameError> {
    let (index, total) = (header.chunk_idx, header.total_chunks);
    if index >= total {
        return Err(FrameError::IndexPastEnd { index, total });
    }
    if index != expected {
        return Err(FrameError::WrongIndex {
            expected,
            got: index,
        });
    }
    let claimed = header.chunk_data_size;
    if data.len() as u64 != claimed {
        return Err(FrameError::TrailingBytes {
            carried: data.len(),
            claimed,
        });
    }
    if claimed == 0 && remaining > 0 {
        return Err(FrameError::EmptyChunk { index, remaining });
    }
    if index + 1 == total && claimed < remaining {
        return Err(FrameError::Incomplete {
            total: header.total_data_size,
            missing: remaining - claimed,
        });
    }
    Ok(())
}
