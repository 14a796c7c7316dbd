//! Receiving chunks: the scenarios of DAOS `src/control/drpc/drpc_chunk_test.go` and of the receive half of
//! `src/common/tests/drpc_tests.c`, and what both leave out.

use daos_errno::Der;
use drpc_wire::{
    Assembler, ChunkHeader, Chunker, FrameError, Framing, MAX_BODY, MAX_CHUNK_DATA, MAX_MESSAGE,
    MAX_PACKET, Progress,
};

const LIMIT: usize = MAX_MESSAGE;

/// A packet with any header in front of any data.
fn packet(total: u64, size: u64, index: u32, chunks: u32, data: &[u8]) -> Vec<u8> {
    let header = ChunkHeader {
        total_data_size: total,
        chunk_data_size: size,
        chunk_idx: index,
        total_chunks: chunks,
    };
    [&header.encode()[..], data].concat()
}

/// A packet whose size field is right.
fn chunk(total: usize, index: u32, chunks: u32, data: &[u8]) -> Vec<u8> {
    packet(total as u64, data.len() as u64, index, chunks, data)
}

fn assembler() -> Assembler {
    Assembler::with_framing(LIMIT, Framing::Chunked)
}

/// Pushes all; the result of the last.
fn push_all(packets: &[Vec<u8>]) -> Result<Option<Vec<u8>>, FrameError> {
    let mut assembler = assembler();
    let mut last = None;
    for packet in packets {
        last = match assembler.push(packet)? {
            Progress::More => None,
            Progress::Message(bytes) => Some(bytes.into_owned()),
        };
    }
    Ok(last)
}

fn refused(packets: &[Vec<u8>]) -> FrameError {
    push_all(packets).expect_err("must be refused")
}

#[test]
fn recv_msg_empty_small_maximum_and_multi_chunk_messages_arrive_whole() {
    for len in [
        0,
        1,
        500,
        MAX_CHUNK_DATA,
        MAX_CHUNK_DATA + 1,
        2 * MAX_CHUNK_DATA,
        3 * MAX_CHUNK_DATA + 17,
    ] {
        let message: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8).collect();
        let mut chunker = Chunker::new(message.clone(), Framing::Chunked).expect("fits");
        let mut packets = Vec::new();
        while let Some(packet) = chunker.packet() {
            packets.push(packet.to_vec());
            chunker.advance();
        }
        assert_eq!(push_all(&packets), Ok(Some(message)), "{len} bytes");
    }
}

#[test]
fn recv_msg_of_one_packet_is_not_copied() {
    let packet = chunk(3, 0, 1, b"abc");
    let mut assembler = assembler();
    let Ok(Progress::Message(bytes)) = assembler.push(&packet) else {
        panic!("one packet is a message");
    };
    assert!(matches!(bytes, std::borrow::Cow::Borrowed(b"abc")));
    assert!(!assembler.is_partial());
}

#[test]
fn several_messages_follow_each_other_on_one_connection() {
    let mut assembler = assembler();
    for round in 0..3u8 {
        let first = chunk(2, 0, 2, &[round]);
        assert_eq!(assembler.push(&first), Ok(Progress::More));
        let second = chunk(2, 1, 2, &[9]);
        assert_eq!(
            assembler.push(&second),
            Ok(Progress::Message(vec![round, 9].into()))
        );
    }
}

#[test]
fn packet_shorter_than_a_header_is_trunc() {
    assert_eq!(refused(&[vec![0; 23]]), FrameError::ShortPacket(23));
    assert_eq!(refused(&[vec![]]).der(), Der::TRUNC);
    let later = refused(&[chunk(2, 0, 2, b"a"), vec![1; 5]]);
    assert_eq!(later, FrameError::ShortPacket(5));
}

#[test]
fn packet_longer_than_the_largest_is_trunc() {
    let error = refused(&[vec![0; MAX_PACKET + 1]]);
    assert_eq!(error, FrameError::LongPacket(MAX_PACKET + 1));
    assert_eq!(error.der(), Der::TRUNC);
}

#[test]
fn recv_call_with_total_chunks_zero_is_proto() {
    let error = refused(&[chunk(3, 0, 0, b"abc")]);
    assert_eq!(error, FrameError::NoChunks);
    assert_eq!(error.der(), Der::PROTO);
}

#[test]
fn recv_call_with_a_chunk_larger_than_received_or_allowed_is_trunc() {
    let larger_than_received = refused(&[packet(100, 4, 0, 1, b"abc")]);
    assert_eq!(
        larger_than_received,
        FrameError::ChunkTooLong {
            claimed: 4,
            allowed: 3
        }
    );
    assert_eq!(larger_than_received.der(), Der::TRUNC);
    let larger_than_allowed = MAX_CHUNK_DATA as u64 + 1;
    let error = refused(&[packet(1 << 20, larger_than_allowed, 0, 9, b"abc")]);
    assert_eq!(error.der(), Der::TRUNC);
    assert_eq!(
        refused(&[packet(1 << 20, u64::MAX, 0, 9, b"abc")]).der(),
        Der::TRUNC
    );
}

#[test]
fn recv_msg_data_overflow_is_trunc() {
    let first = refused(&[chunk(2, 0, 1, b"abc")]);
    assert_eq!(
        first,
        FrameError::DataOverflow {
            chunk: 3,
            remaining: 2
        }
    );
    let later = refused(&[chunk(3, 0, 2, b"ab"), chunk(3, 1, 2, b"cd")]);
    assert_eq!(
        later,
        FrameError::DataOverflow {
            chunk: 2,
            remaining: 1
        }
    );
    assert_eq!(later.der(), Der::TRUNC);
}

#[test]
fn recv_msg_inconsistent_total_chunks_is_proto() {
    let error = refused(&[chunk(4, 0, 3, b"a"), chunk(4, 1, 4, b"b")]);
    assert_eq!(error, FrameError::ChunkCountChanged { first: 3, now: 4 });
    assert_eq!(error.der(), Der::PROTO);
}

#[test]
fn recv_msg_inconsistent_data_size_is_proto() {
    let error = refused(&[chunk(4, 0, 3, b"a"), chunk(5, 1, 3, b"b")]);
    assert_eq!(error, FrameError::TotalSizeChanged { first: 4, now: 5 });
    assert_eq!(error.der(), Der::PROTO);
}

#[test]
fn recv_msg_index_past_the_end_is_proto() {
    let error = refused(&[chunk(4, 0, 2, b"a"), chunk(4, 2, 2, b"b")]);
    assert_eq!(error, FrameError::IndexPastEnd { index: 2, total: 2 });
    assert_eq!(error.der(), Der::PROTO);
}

#[test]
fn recv_msg_lost_doubled_or_swapped_chunk_is_mismatch() {
    let first_is_one = refused(&[chunk(4, 1, 3, b"a")]);
    assert_eq!(
        first_is_one,
        FrameError::WrongIndex {
            expected: 0,
            got: 1
        }
    );
    let skipped = refused(&[chunk(4, 0, 4, b"a"), chunk(4, 2, 4, b"b")]);
    assert_eq!(
        skipped,
        FrameError::WrongIndex {
            expected: 1,
            got: 2
        }
    );
    let doubled = refused(&[chunk(4, 0, 4, b"a"), chunk(4, 0, 4, b"a")]);
    assert_eq!(doubled.der(), Der::MISMATCH);
    assert!(doubled.to_string().contains("lost chunk"));
}

#[test]
fn recv_msg_with_less_data_than_announced_is_refused_at_its_last_chunk() {
    let error = refused(&[chunk(4, 0, 2, b"a"), chunk(4, 1, 2, b"b")]);
    assert_eq!(
        error,
        FrameError::Incomplete {
            total: 4,
            missing: 2
        }
    );
    assert!(error.to_string().starts_with("expected message of size 4"));
}

#[test]
fn bytes_complete_before_the_announced_count_are_a_message_as_in_daos() {
    assert_eq!(
        push_all(&[chunk(3, 0, 9, b"abc")]),
        Ok(Some(b"abc".to_vec()))
    );
    assert_eq!(push_all(&[chunk(0, 0, 5, b"")]), Ok(Some(vec![])));
}

#[test]
fn size_field_must_be_what_the_packet_carries() {
    let error = refused(&[packet(10, 2, 0, 5, b"abc")]);
    assert_eq!(
        error,
        FrameError::TrailingBytes {
            carried: 3,
            claimed: 2
        }
    );
    assert_eq!(error.der(), Der::PROTO);
}

#[test]
fn a_chunk_without_data_cannot_keep_a_message_open() {
    let error = refused(&[chunk(4, 0, u32::MAX, b"")]);
    assert_eq!(
        error,
        FrameError::EmptyChunk {
            index: 0,
            remaining: 4
        }
    );
}

#[test]
fn total_size_is_bounded_and_announcing_costs_no_memory() {
    let error = refused(&[packet(LIMIT as u64 + 1, 1, 0, 600, b"a")]);
    assert_eq!(error.der(), Der::OVERFLOW);
    assert_eq!(
        refused(&[packet(u64::MAX, 1, 0, 600, b"a")]).der(),
        Der::OVERFLOW
    );
    let mut assembler = assembler();
    let announced = packet(LIMIT as u64, 1, 0, u32::MAX, b"a");
    assert_eq!(assembler.push(&announced), Ok(Progress::More));
    assert!(assembler.buffered() <= 2);
}

#[test]
fn checks_come_in_daos_order() {
    // Everything is wrong with this one; the count of chunks is looked at first, then sizes, then the count's change, ...
    let everything = |chunks| packet(u64::MAX, u64::MAX, 9, chunks, b"abc");
    assert_eq!(refused(&[everything(0)]), FrameError::NoChunks);
    assert_eq!(refused(&[everything(1)]).der(), Der::OVERFLOW);
    let begun = chunk(4, 0, 4, b"a");
    let size = packet(4, 9, 9, 5, b"abc");
    assert_eq!(refused(&[begun.clone(), size]).der(), Der::TRUNC);
    let count = packet(4, 3, 9, 5, b"abc");
    assert!(matches!(
        refused(&[begun.clone(), count]),
        FrameError::ChunkCountChanged { .. }
    ));
    let place = packet(4, 3, 9, 4, b"abc");
    assert!(matches!(
        refused(&[begun, place]),
        FrameError::IndexPastEnd { .. }
    ));
}

#[test]
fn the_framing_is_fixed_by_the_first_packet() {
    let mut assembler = Assembler::new(LIMIT);
    let bare = [0x08, 2, 0x10, 0xe1, 1, 0x18, 1];
    assert_eq!(
        assembler.push(&bare),
        Ok(Progress::Message(bare[..].into()))
    );
    assert_eq!(assembler.framing(), Some(Framing::Bare));
    let chunked = chunk(3, 0, 1, b"abc");
    assert_eq!(
        assembler.push(&chunked),
        Ok(Progress::Message(chunked[..].into())),
        "a bare peer's packets are messages, whatever they look like"
    );
    let mut assembler = Assembler::new(LIMIT);
    assert!(assembler.push(&chunked).is_ok());
    assert_eq!(assembler.framing(), Some(Framing::Chunked));
    assert_eq!(assembler.push(&bare), Err(FrameError::ShortPacket(7)));
}

#[test]
fn a_body_of_64_mib_fits_and_memory_stays_within_the_message() {
    let message = vec![0x5a; MAX_BODY + 20];
    let mut chunker = Chunker::new(message, Framing::Chunked).expect("fits");
    let mut assembler = assembler();
    let mut packets = 0;
    while let Some(packet) = chunker.packet() {
        packets += 1;
        match assembler.push(&packet.to_vec()).expect("is in order") {
            Progress::More => assert!(assembler.buffered() <= MAX_BODY + 20),
            Progress::Message(bytes) => assert_eq!(bytes.len(), MAX_BODY + 20),
        }
        chunker.advance();
    }
    assert_eq!(packets, 513);
    assert_eq!(assembler.buffered(), 0);
}
