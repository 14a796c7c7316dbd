//! One message out, packet by packet.

use crate::frame_error::FrameError;
use crate::header::{ChunkHeader, HEADER_LEN, MAX_CHUNK_DATA, MAX_MESSAGE, MAX_PACKET};
use crate::recognise::Framing;

/// A message on its way out. Holds the place, so that a sender whose socket is full goes on later at the same chunk.
#[derive(Debug)]
pub struct Chunker {
    message: Vec<u8>,
    framing: Framing,
    chunks: u32,
    next: u32,
}

/// One packet, in two pieces so that the message is not copied to put a header in front.
#[derive(Debug)]
pub struct Packet<'a> {
    header: Option<[u8; HEADER_LEN]>,
    /// The message's bytes in this packet.
    pub data: &'a [u8],
}

impl Packet<'_> {
    /// The chunk header; empty in the bare framing.
    pub fn header(&self) -> &[u8] {
        self.header.as_ref().map_or(&[], |header| header)
    }

    /// Bytes on the wire.
    pub fn wire_len(&self) -> usize {
        self.header().len() + self.data.len()
    }

    /// The packet in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        [self.header(), self.data].concat()
    }
}

impl Chunker {
    /// A message to be sent in `framing`. Refused (`TooLong`) over [`MAX_MESSAGE`], in the bare framing over one packet.
    pub fn new(message: Vec<u8>, framing: Framing) -> Result<Chunker, FrameError> {
        let limit = match framing {
            Framing::Chunked => MAX_MESSAGE,
            Framing::Bare => MAX_PACKET,
        };
        if message.len() > limit {
            return Err(FrameError::TooLong {
                total: message.len() as u64,
                limit: limit as u64,
            });
        }
        let chunks = match framing {
            Framing::Chunked => ChunkHeader::chunks_of(message.len()),
            Framing::Bare => 1,
        };
        Ok(Chunker {
            message,
            framing,
            chunks,
            next: 0,
        })
    }

    /// The packet to send now; the same one until [`Chunker::advance`]. `None` once all are sent.
    pub fn packet(&self) -> Option<Packet<'_>> {
        if self.next >= self.chunks {
            return None;
        }
        if self.framing == Framing::Bare {
            return Some(Packet {
                header: None,
                data: &self.message,
            });
        }
        let start = self.next as usize * MAX_CHUNK_DATA;
        let end = self.message.len().min(start + MAX_CHUNK_DATA);
        let data = &self.message[start..end];
        let header = ChunkHeader {
            total_data_size: self.message.len() as u64,
            chunk_data_size: data.len() as u64,
            chunk_idx: self.next,
            total_chunks: self.chunks,
        };
        Some(Packet {
            header: Some(header.encode()),
            data,
        })
    }

    /// The current packet was sent.
    pub fn advance(&mut self) {
        self.next = self.chunks.min(self.next + 1);
    }

    /// Whether some but not all packets were sent.
    pub fn is_partly_sent(&self) -> bool {
        self.next > 0 && self.next < self.chunks
    }

    /// Bytes of memory held until the message is sent.
    pub fn message_len(&self) -> usize {
        self.message.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(len: usize) -> Vec<Vec<u8>> {
        let mut chunker = Chunker::new(vec![7; len], Framing::Chunked).expect("fits");
        let mut all = Vec::new();
        while let Some(packet) = chunker.packet() {
            assert!(packet.wire_len() <= MAX_PACKET);
            all.push(packet.to_vec());
            chunker.advance();
        }
        all
    }

    #[test]
    fn send_msg_empty_small_and_exactly_maximum_are_one_packet_twice_the_maximum_two() {
        assert_eq!(packets(0).len(), 1);
        assert_eq!(packets(0)[0].len(), HEADER_LEN);
        assert_eq!(packets(10).len(), 1);
        assert_eq!(packets(MAX_CHUNK_DATA).len(), 1);
        assert_eq!(packets(MAX_CHUNK_DATA)[0].len(), MAX_PACKET);
        assert_eq!(packets(2 * MAX_CHUNK_DATA).len(), 2);
        assert_eq!(packets(2 * MAX_CHUNK_DATA + 1).len(), 3);
    }

    #[test]
    fn every_chunk_repeats_total_and_count_and_numbers_itself() {
        for (index, packet) in packets(3 * MAX_CHUNK_DATA - 5).iter().enumerate() {
            let (header, data) = ChunkHeader::split(packet).expect("has a header");
            assert_eq!(header.total_data_size as usize, 3 * MAX_CHUNK_DATA - 5);
            assert_eq!(header.total_chunks, 3);
            assert_eq!(header.chunk_idx as usize, index);
            assert_eq!(header.chunk_data_size as usize, data.len());
        }
    }

    #[test]
    fn a_packet_stays_current_until_advanced() {
        let mut chunker =
            Chunker::new(vec![1; MAX_CHUNK_DATA + 1], Framing::Chunked).expect("fits");
        assert_eq!(
            chunker.packet().map(|p| p.to_vec()),
            chunker.packet().map(|p| p.to_vec())
        );
        assert!(!chunker.is_partly_sent());
        chunker.advance();
        assert!(chunker.is_partly_sent());
        assert_eq!(chunker.packet().map(|p| p.data.len()), Some(1));
        chunker.advance();
        chunker.advance();
        assert!(chunker.packet().is_none());
    }

    #[test]
    fn over_the_limit_is_refused_before_a_byte_is_sent() {
        let too_long = Chunker::new(vec![0; MAX_MESSAGE + 1], Framing::Chunked);
        assert!(matches!(too_long, Err(FrameError::TooLong { .. })));
        let too_long = Chunker::new(vec![0; MAX_PACKET + 1], Framing::Bare);
        assert!(matches!(too_long, Err(FrameError::TooLong { .. })));
        assert!(Chunker::new(vec![0; MAX_PACKET], Framing::Bare).is_ok());
    }
}
