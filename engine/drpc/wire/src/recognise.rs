//! Which framing a peer speaks, from its first packet.
//!
//! Before dRPC had chunks, one packet was one message: the bare protobuf `Call`. Such a peer is recognised and answered in
//! kind. A packet whose first 24 bytes make a consistent first chunk is chunked. Otherwise, a packet that is in every byte a
//! canonical `Call` (fields 1 to 4 in ascending order, nothing else) is the older framing. Everything else counts as
//! chunked, so that the checks of the chunk framing say what is wrong with it.

use crate::header::{ChunkHeader, MAX_PACKET};

/// How messages are put into packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Framing {
    /// DAOS today: every packet starts with a chunk header.
    #[default]
    Chunked,
    /// DAOS before chunking: a packet is a message, at most 131072 bytes.
    Bare,
}

/// The framing of the peer whose first packet this is.
pub fn recognise(packet: &[u8]) -> Framing {
    if !is_first_chunk(packet) && is_bare_call(packet) {
        Framing::Bare
    } else {
        Framing::Chunked
    }
}

/// A header that is in every field what a first chunk must have. The two high bytes of the total would be 256 TiB and more;
/// a bare call nearly always has its body's tag or length there.
fn is_first_chunk(packet: &[u8]) -> bool {
    ChunkHeader::split(packet).is_some_and(|(header, data)| {
        header.chunk_idx == 0
            && header.total_chunks >= 1
            && header.chunk_data_size == data.len() as u64
            && header.chunk_data_size <= header.total_data_size
            && header.total_data_size >> 48 == 0
    })
}

/// Exactly an encoded `Call`: module, method, sequence as varints, body as bytes, each at most once, in that order.
fn is_bare_call(packet: &[u8]) -> bool {
    let mut rest = packet;
    let mut last_field = 0;
    while let Some((&tag, after)) = rest.split_first() {
        let field = tag >> 3;
        if field <= last_field {
            return false;
        }
        last_field = field;
        let Some((value, after)) = varint(after) else {
            return false;
        };
        rest = match tag {
            0x08 | 0x10 | 0x18 => after,
            0x22 => match usize::try_from(value).ok().and_then(|n| after.get(n..)) {
                Some(after) => after,
                None => return false,
            },
            _ => return false,
        };
    }
    last_field != 0 && packet.len() <= MAX_PACKET
}

/// One base-128 number and what follows it; `None` if it does not end within ten bytes.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, Chunker};
    use prost::Message;

    fn call(module: i32, method: i32, sequence: i64, body: Vec<u8>) -> Vec<u8> {
        Call {
            module,
            method,
            sequence,
            body,
        }
        .encode_to_vec()
    }

    fn first_packet(message: Vec<u8>) -> Vec<u8> {
        Chunker::new(message, Framing::Chunked)
            .expect("fits")
            .packet()
            .expect("there is a first packet")
            .to_vec()
    }

    #[test]
    fn chunked_calls_of_every_shape_are_chunked() {
        for message in [
            call(0, 0, 0, vec![]),
            call(2, 202, 1, vec![8, 1]),
            call(-1, i32::MIN, -1, vec![0; 22]),
            call(0, 1, 7, vec![0; 300_000]),
        ] {
            assert_eq!(recognise(&first_packet(message)), Framing::Chunked);
        }
    }

    #[test]
    fn bare_calls_of_every_shape_are_bare() {
        for message in [
            call(2, 202, 1, vec![8, 1]),
            call(2, 225, 0, vec![]),
            call(0, 0, 1, vec![]),
            call(0, 0, 0, vec![0; 22]),
            call(-1, i32::MIN, -1, vec![0; 1000]),
            call(0, 1, 7, vec![0xff; 131_000]),
        ] {
            assert_eq!(
                recognise(&message),
                Framing::Bare,
                "{:02x?}",
                &message[..message.len().min(30)]
            );
        }
    }

    #[test]
    fn neither_counts_as_chunked_so_that_its_checks_name_the_fault() {
        assert_eq!(recognise(&[]), Framing::Chunked);
        assert_eq!(recognise(&[0; 24]), Framing::Chunked);
        assert_eq!(recognise(b"hello"), Framing::Chunked);
        assert_eq!(recognise(&[0x22, 0x05, 1]), Framing::Chunked);
        assert_eq!(recognise(&[0x10, 1, 0x08, 2]), Framing::Chunked);
        assert_eq!(recognise(&[0x08; 40]), Framing::Chunked);
    }
}
