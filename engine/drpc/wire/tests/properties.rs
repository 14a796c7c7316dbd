//! Any bytes, in any packets: the assembler answers, never panics, never holds more than arrived or than its limit.

use drpc_wire::{
    Assembler, Call, ChunkHeader, Chunker, Framing, HEADER_LEN, MAX_CHUNK_DATA, Message, Progress,
    recognise,
};
use proptest::prelude::*;

/// Headers that are nearly right, so that the later checks are reached.
fn likely_packet() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![4 => 0u64..6, 1 => any::<u64>(), 1 => Just(MAX_CHUNK_DATA as u64)];
    let data = proptest::collection::vec(any::<u8>(), 0..6);
    (
        number.clone(),
        number.clone(),
        0u32..5,
        0u32..5,
        data,
        any::<bool>(),
    )
        .prop_map(|(total, size, index, chunks, data, honest)| {
            let header = ChunkHeader {
                total_data_size: total,
                chunk_data_size: if honest { data.len() as u64 } else { size },
                chunk_idx: index,
                total_chunks: chunks,
            };
            [&header.encode()[..], &data].concat()
        })
}

fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => likely_packet(),
        1 => proptest::collection::vec(any::<u8>(), 0..80),
    ]
}

proptest! {
    #[test]
    fn any_packets_are_answered_and_memory_is_bounded(
        packets in proptest::collection::vec(any_packet(), 0..30),
        limit in 0usize..64,
    ) {
        let mut assembler = Assembler::new(limit);
        let mut arrived = 0;
        for packet in &packets {
            arrived += packet.len();
            match assembler.push(packet) {
                Ok(Progress::Message(bytes)) => {
                    prop_assert!(bytes.len() <= limit);
                    prop_assert_eq!(assembler.buffered(), 0);
                }
                Ok(Progress::More) => prop_assert!(assembler.is_partial()),
                Err(_) => {
                    prop_assert!(!assembler.is_partial());
                    break;
                }
            }
            prop_assert!(assembler.buffered() <= limit.min(2 * arrived));
        }
    }

    #[test]
    fn every_message_comes_back(message in proptest::collection::vec(any::<u8>(), 0..400_000)) {
        let mut chunker = Chunker::new(message.clone(), Framing::Chunked).expect("fits");
        let mut assembler = Assembler::with_framing(message.len(), Framing::Chunked);
        let mut got = None;
        while let Some(packet) = chunker.packet() {
            prop_assert!(got.is_none());
            if let Progress::Message(bytes) = assembler.push(&packet.to_vec()).expect("in order") {
                got = Some(bytes.into_owned());
            }
            chunker.advance();
        }
        prop_assert_eq!(got, Some(message));
    }

    #[test]
    fn both_framings_of_any_call_are_recognised(
        module in any::<i32>(),
        method in any::<i32>(),
        sequence in 1i64..,
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = Call { module, method, sequence, body }.encode_to_vec();
        prop_assert_eq!(recognise(&bytes), Framing::Bare);
        let chunked = Chunker::new(bytes, Framing::Chunked).expect("fits");
        let packet = chunked.packet().expect("one packet").to_vec();
        prop_assert_eq!(recognise(&packet), Framing::Chunked);
        prop_assert!(packet.len() > HEADER_LEN);
    }
}
