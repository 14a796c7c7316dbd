//! The decoder against every way of cutting and spoiling a stream.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::header::{FLAG_ENGINE, FLAG_OFFER, FLAG_RESPONSE, MAX_BODY, MAX_BULK};
use crate::outgoing::Outgoing;

/// What frames with these flags hear when they want memory.
const SKIP_ALL: u16 = FLAG_ENGINE;
const SKIP_BULK: u16 = FLAG_OFFER;

/// Memory that runs out: after `admits` frames or `bulks` bulks the stream is held until more is granted.
struct Memory {
    admits: usize,
    bulks: usize,
    largest_body: usize,
}

impl Memory {
    fn plenty() -> Memory {
        Memory {
            admits: usize::MAX,
            bulks: usize::MAX,
            largest_body: 0,
        }
    }
}

impl Buffers for Memory {
    type Bulk = Vec<u8>;

    fn admit(&mut self, header: &Header) -> Grant<Vec<u8>> {
        if header.flags & SKIP_ALL != 0 {
            return Grant::Skip;
        }
        let Some(left) = self.admits.checked_sub(1) else {
            return Grant::Hold;
        };
        self.admits = left;
        self.largest_body = self.largest_body.max(header.body_len as usize);
        Grant::Take(b"left over from another request".to_vec())
    }

    fn bulk(&mut self, header: &Header) -> Grant<Vec<u8>> {
        if header.flags & SKIP_BULK != 0 {
            return Grant::Skip;
        }
        let Some(left) = self.bulks.checked_sub(1) else {
            return Grant::Hold;
        };
        self.bulks = left;
        // Longer than asked for, as a pool's buffer is.
        Grant::Take(vec![0xEE; header.bulk_len as usize + 13])
    }
}

fn wire(id: u64, body: &[u8], bulk: &[u8]) -> Vec<u8> {
    let header = Header {
        request_id: id,
        opcode: 0x0401_0002,
        ..Header::default()
    };
    Outgoing::new(header, body, bulk)
        .slices()
        .flat_map(|s| s.to_vec())
        .collect()
}

/// Feeds up to `n` bytes of `input` through `spaces` as one vectored read would; returns how many went.
fn read(decoder: &mut Decoder<Vec<u8>>, input: &[u8], n: usize) -> usize {
    let mut left = &input[..n.min(input.len())];
    let mut total = 0;
    for space in decoder.spaces() {
        let take = space.len().min(left.len());
        space[..take].copy_from_slice(&left[..take]);
        left = &left[take..];
        total += take;
    }
    decoder.filled(total);
    total
}

/// Frames, the error that ended the stream, the decoder as it was left.
type Outcome = (Vec<Frame<Vec<u8>>>, Option<HeaderError>, Decoder<Vec<u8>>);

/// Decodes `input` in reads of the given sizes (repeated), granting memory whenever the stream is held.
fn decode_all(input: &[u8], read_ahead: usize, sizes: &[usize], stingy: bool) -> Outcome {
    let mut decoder = Decoder::new(read_ahead);
    let mut memory = if stingy {
        Memory {
            admits: 0,
            bulks: 0,
            largest_body: 0,
        }
    } else {
        Memory::plenty()
    };
    let mut frames = Vec::new();
    let mut at = 0;
    let mut sizes = sizes.iter().copied().cycle();
    loop {
        match decoder.next(&mut memory) {
            Ok(Step::Frame(frame)) => frames.push(frame),
            Ok(Step::Held) => (memory.admits, memory.bulks) = (1, 1),
            Ok(Step::Skipped(header)) => frames.push(skipped(header)),
            Ok(Step::NeedBytes) if at == input.len() => return (frames, None, decoder),
            Ok(Step::NeedBytes) => {
                let n = read(&mut decoder, &input[at..], sizes.next().unwrap_or(1).max(1));
                assert!(n > 0, "a decoder that needs bytes has space for them");
                at += n;
            }
            Err(error) => return (frames, Some(error), decoder),
        }
    }
}

/// Stands for a frame that went by.
fn skipped(header: Header) -> Frame<Vec<u8>> {
    Frame {
        header,
        body: b"skipped".to_vec(),
        bulk: None,
        damage: None,
    }
}

fn assert_same(frames: &[Frame<Vec<u8>>], sent: &[(Vec<u8>, Vec<u8>)]) {
    assert_eq!(frames.len(), sent.len());
    for (i, (frame, (body, bulk))) in frames.iter().zip(sent).enumerate() {
        assert_eq!(frame.header.request_id, i as u64);
        assert_eq!(&frame.body, body);
        assert_eq!(
            frame.bulk.as_deref().map_or(&[][..], |b| &b[..bulk.len()]),
            bulk.as_slice()
        );
        assert_eq!(frame.bulk.is_some(), !bulk.is_empty());
        assert_eq!(frame.damage, None);
    }
}

proptest! {
    #[test]
    fn any_cutting_gives_the_same_frames(
        sent in vec((vec(any::<u8>(), 0..300), vec(any::<u8>(), 0..700)), 0..8),
        sizes in vec(1usize..900, 1..6),
        read_ahead in 0usize..600,
        stingy: bool,
    ) {
        let stream: Vec<u8> = sent.iter().enumerate().flat_map(|(i, (body, bulk))| wire(i as u64, body, bulk)).collect();
        let (frames, error, decoder) = decode_all(&stream, read_ahead, &sizes, stingy);
        prop_assert_eq!(error, None);
        prop_assert!(!decoder.is_mid_frame());
        assert_same(&frames, &sent);
    }

    #[test]
    fn what_there_is_no_memory_for_goes_by_and_the_rest_stays_whole(
        sent in vec((vec(any::<u8>(), 0..300), vec(any::<u8>(), 0..700), prop::sample::select(vec![0, SKIP_ALL, SKIP_BULK])), 0..8),
        sizes in vec(1usize..900, 1..6),
        read_ahead in 0usize..600,
    ) {
        let flagged = |(id, (body, bulk, flags)): (usize, &(Vec<u8>, Vec<u8>, u16))| {
            let header = Header { request_id: id as u64, flags: *flags, ..Header::default() };
            Outgoing::new(header, body, bulk).slices().flat_map(|s| s.to_vec()).collect::<Vec<u8>>()
        };
        let stream: Vec<u8> = sent.iter().enumerate().flat_map(flagged).collect();
        let (frames, error, decoder) = decode_all(&stream, read_ahead, &sizes, false);
        prop_assert_eq!(error, None);
        prop_assert!(!decoder.is_mid_frame());
        prop_assert_eq!(frames.len(), sent.len());
        for (i, (frame, (body, bulk, flags))) in frames.iter().zip(&sent).enumerate() {
            prop_assert_eq!(frame.header.request_id, i as u64);
            let whole = *flags == 0 || (*flags == SKIP_BULK && bulk.is_empty());
            prop_assert_eq!(&frame.body[..], if whole { &body[..] } else { &b"skipped"[..] });
            prop_assert_eq!(frame.damage, None);
        }
    }

    #[test]
    fn random_bytes_are_refused_at_the_first_header(bytes in vec(any::<u8>(), 64..400), size in 1usize..100) {
        let (frames, error, _) = decode_all(&bytes, 128, &[size], false);
        prop_assert!(frames.is_empty());
        prop_assert!(error.is_some());
    }

    #[test]
    fn one_flipped_bit_never_passes_for_sound(
        body in vec(any::<u8>(), 1..100),
        bulk in vec(any::<u8>(), 1..100),
        position: prop::sample::Index,
        bit in 0u8..8,
    ) {
        let mut stream = wire(0, &body, &bulk);
        let at = position.index(stream.len());
        stream[at] ^= 1 << bit;
        stream.extend(wire(1, b"next", b""));
        let (frames, error, _) = decode_all(&stream, 256, &[50], false);
        if at < HEADER_LEN {
            prop_assert!(error.is_some() && frames.is_empty());
        } else {
            let expected = if at < HEADER_LEN + body.len() { Damage::Body } else { Damage::Bulk };
            prop_assert_eq!(error, None);
            prop_assert_eq!(frames[0].damage, Some(expected));
            prop_assert_eq!((frames[1].damage, frames[1].body.as_slice()), (None, &b"next"[..]));
        }
    }

    #[test]
    fn a_cut_stream_is_mid_frame_and_gives_nothing_more(body in vec(any::<u8>(), 0..50), cut: prop::sample::Index) {
        let stream = wire(0, &body, b"bulk");
        let at = cut.index(stream.len());
        let (frames, error, decoder) = decode_all(&stream[..at], 128, &[7], false);
        prop_assert!(frames.is_empty() && error.is_none());
        prop_assert_eq!(decoder.is_mid_frame(), at > 0);
    }

    #[test]
    fn bytes_left_out_or_doubled_inside_headers_are_noticed(at in 0usize..64, double: bool) {
        let mut stream = wire(0, b"", b"");
        if double { stream.insert(at, stream[at]) } else { stream.remove(at); }
        stream.extend(wire(1, b"", b""));
        let (frames, error, _) = decode_all(&stream, 128, &[128], false);
        // A doubled last byte of the header leaves that frame sound and spoils the next.
        prop_assert!(error.is_some(), "{} frames", frames.len());
        prop_assert!(frames.len() <= usize::from(double && at >= 62));
    }
}

#[test]
fn largest_frame_goes_through_a_small_buffer() {
    let sent = [(vec![7; MAX_BODY], vec![9; MAX_BULK]), (vec![], vec![])];
    let stream: Vec<u8> = sent
        .iter()
        .enumerate()
        .flat_map(|(i, (b, k))| wire(i as u64, b, k))
        .collect();
    let (frames, error, _) = decode_all(&stream, 16 << 10, &[1 << 20, 1 << 17, 777], false);
    assert_eq!(error, None);
    assert_same(&frames, &sent);
}

#[test]
fn memory_is_not_set_aside_on_the_peers_word() {
    let mut decoder: Decoder<Vec<u8>> = Decoder::new(128);
    let header = Header {
        body_len: MAX_BODY as u32,
        flags: FLAG_RESPONSE,
        ..Header::default()
    }
    .encode();
    read(&mut decoder, &header, HEADER_LEN);
    assert!(matches!(
        decoder.next(&mut Memory::plenty()),
        Ok(Step::NeedBytes)
    ));
    let [direct, _] = decoder.spaces();
    assert_eq!(direct.len(), BODY_STEP);
}

#[test]
fn held_streams_offer_the_same_frame_again() {
    let mut decoder: Decoder<Vec<u8>> = Decoder::new(1024);
    let stream = wire(5, b"body", b"bulk");
    assert_eq!(read(&mut decoder, &stream, stream.len()), stream.len());
    let mut memory = Memory {
        admits: 0,
        bulks: 0,
        largest_body: 0,
    };
    assert!(matches!(decoder.next(&mut memory), Ok(Step::Held)));
    assert!(matches!(decoder.next(&mut memory), Ok(Step::Held)));
    memory.admits = 1;
    assert!(matches!(decoder.next(&mut memory), Ok(Step::Held)));
    assert_eq!(memory.largest_body, 4);
    memory.bulks = 1;
    assert!(matches!(decoder.next(&mut memory), Ok(Step::Frame(f)) if f.header.request_id == 5));
    assert!(matches!(decoder.next(&mut memory), Ok(Step::NeedBytes)));
}

#[test]
fn a_lost_stream_stays_lost() {
    let mut decoder: Decoder<Vec<u8>> = Decoder::new(1024);
    read(&mut decoder, &[0x55; 64], 64);
    assert!(decoder.next(&mut Memory::plenty()).is_err());
    let good = wire(0, b"", b"");
    read(&mut decoder, &good, good.len());
    assert!(decoder.next(&mut Memory::plenty()).is_err());
}
