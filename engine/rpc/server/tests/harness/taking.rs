//! Handlers that take what requests offer.

use std::collections::VecDeque;
use std::sync::Arc;

use engine_rpc::{HandlerEntry, Opcode, Request};

use super::MODULE;

/// Takes all that is offered in parts of [`PART`], four under way at a time, and answers a checksum of it.
pub const TAKE: Opcode = Opcode::new(MODULE, 1, 7);
/// Takes the one part that the body names (offset and length) and answers its checksum, or why it cannot.
pub const PART_OF: Opcode = Opcode::new(MODULE, 1, 8);
/// Bytes of a part.
pub const PART: usize = 64 << 10;

pub fn handlers() -> [HandlerEntry; 2] {
    let take = |request: Request| request.serve_in_ult("take", take);
    let part_of = |request: Request| request.serve_in_ult("part", part_of);
    [
        HandlerEntry::new(TAKE.index(), "take", Arc::new(take)),
        HandlerEntry::new(PART_OF.index(), "part of", Arc::new(part_of)),
    ]
}

async fn take(request: Request) {
    let bytes = request.offered();
    let part = |at: u64| request.pull(at, PART.min((bytes - at) as usize));
    let mut under_way = VecDeque::new();
    let (mut next, mut crc) = (0, 0);
    loop {
        while next < bytes && under_way.len() < 4 {
            under_way.push_back(part(next));
            next += PART as u64;
        }
        let Some(first) = under_way.pop_front() else {
            break;
        };
        match first.await {
            Ok(buffer) => crc = crc32c::crc32c_append(crc, buffer.as_slice()),
            Err(der) => {
                drop(under_way);
                return request.reply_error(der);
            }
        }
    }
    request.reply(0, &crc.to_le_bytes(), None);
}

async fn part_of(request: Request) {
    let word = |at: usize| u64::from_le_bytes(request.body()[at..at + 8].try_into().unwrap());
    let taken = request.pull(word(0), word(8) as usize).await;
    match taken {
        Ok(buffer) => {
            let crc = crc32c::crc32c(buffer.as_slice());
            request.reply(0, &crc.to_le_bytes(), None);
        }
        Err(der) => request.reply_error(der),
    }
}
