//! Calls to many engines at once, along a tree: each engine calls those below it and sends their answers up as one.
//!
//! ```text
//!            0                 ranks 0 to 15, base 4: 0 calls 1, 2, 3, 4, 8 and 12,
//!   ┌──┬──┬──┴─┬─────┬──────┐  4 calls 5, 6 and 7, and so on: 15 calls, two levels.
//!   1  2  3    4     8      12
//!            ┌─┼─┐ ┌─┼──┐ ┌─┼──┐
//!            5 6 7 9 10 11 13 14 15
//! ```
//!
//! The tree is k-nomial, as that of incast variables (DAOS `crt_tree_knomial.c`), but over a list that travels with the call: an
//! engine gets the part of the list that it heads. One that does not answer is named with the reason, and the next of its part takes its place,
//! so that a dead engine does not hide those below it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use daos_errno::Der;
use rpc_wire::{MAX_BODY, Opcode, Stamp};
use spdk_thread::timeout;

use super::heartbeat::GROUP_MODULE;
use super::ranks::{RankCall, Ranks};
use crate::request::Request;
use crate::transport::{Loopback, Transport};

/// Carries a call on.
pub(super) const SPREAD: Opcode = Opcode::new(GROUP_MODULE, 1, 2);
/// Base of the tree: DAOS's engine has 4, too.
const BASE: usize = 4;
/// Most ranks of one call: all that a group may have.
const MAX_RANKS: usize = 65_536;
/// Most bytes of answers that travel together.
const MAX_ANSWERS: usize = MAX_BODY - Stamp::LEN;
/// Of the time that is left, the first engine of a part gets three quarters; the rest is for who takes its place.
const SHARE: (u64, u64) = (3, 4);

/// What is asked of many engines.
#[derive(Clone, Debug)]
pub struct Collective {
    /// The xstream of each engine: 0 = system, 1 + t = main of target t.
    pub tag: u32,
    /// The operation.
    pub opcode: Opcode,
    /// The module's message, the same for all.
    pub body: Vec<u8>,
    /// How long answers are waited for. Engines that have not answered by then are named with TIMEDOUT.
    pub limit: Duration,
}

/// What one engine answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its rank.
    pub rank: u32,
    /// What its handler answered, or why there is no answer: UNREACH, TIMEDOUT, GRPVER (it has another version of the group), TRUNC (its
    /// answer did not fit beside the others).
    pub status: i32,
    /// The module's message. Where the operation gathers ([`crate::HandlerEntry::gathering`]), that of all engines below is in one of them.
    pub body: Vec<u8>,
}

impl Ranks {
    /// Calls engines of the group, this one among them if it is in the list, and gives the answers by rank. Dropped, the call is
    /// forgotten, and the engines are told so.
    ///
    /// # Errors
    /// INVAL: over 65,536 ranks, or an operation of the group's own. OVERFLOW: list and body together exceed a message. Whatever
    /// happens to single engines is in their [`Part::status`].
    pub async fn call_all(&self, ranks: &[u32], call: Collective) -> Result<Vec<Part>, Der> {
        let limit = u64::try_from(call.limit.as_nanos()).unwrap_or(u64::MAX);
        let spread = Spread {
            tag: call.tag,
            opcode: call.opcode,
            limit,
            ranks: ranks.to_vec(),
            body: call.body,
        };
        spread.check()?;
        let me = self.me();
        // This engine heads the tree, whether it is asked or not.
        let is_asked = spread.ranks.contains(&me);
        let others: Vec<u32> = ranks.iter().copied().filter(|rank| *rank != me).collect();
        let mut parts = self.serve_part(&spread, is_asked, &others).await;
        if let Some(gather) = self.gather(spread.opcode) {
            merge(&mut parts, &*gather);
        }
        parts.sort_by_key(|part| part.rank);
        Ok(parts)
    }

    /// Own work if `own`, and everything below: `others` in parts.
    async fn serve_part(&self, spread: &Spread, own: bool, others: &[u32]) -> Vec<Part> {
        let mut work: Vec<Pin<Box<dyn Future<Output = Vec<Part>> + '_>>> = Vec::new();
        if own {
            work.push(Box::pin(self.own_part(spread)));
        }
        for part in children(others) {
            work.push(Box::pin(self.relay(spread, part)));
        }
        let mut parts = Vec::with_capacity(others.len() + 1);
        all(work, &mut parts).await;
        parts
    }

    async fn own_part(&self, spread: &Spread) -> Vec<Part> {
        let work = async {
            let loopback = Loopback::current()?;
            let body = spread.body.clone();
            loopback.call(spread.tag, spread.opcode, body, None).await
        };
        let (status, body) = match timeout(spread.limit, work).await {
            Ok(Ok(reply)) => (reply.status, reply.body),
            Ok(Err(der)) => (der.neg(), Vec::new()),
            Err(_) => (Der::TIMEDOUT.neg(), Vec::new()),
        };
        let rank = self.me();
        vec![Part { rank, status, body }]
    }

    /// Calls the first engine of a part, which calls the others; each that does not answer is replaced by the next.
    async fn relay(&self, spread: &Spread, mut part: &[u32]) -> Vec<Part> {
        let until = self.now().saturating_add(spread.limit);
        let mut parts = Vec::new();
        while let Some((&head, rest)) = part.split_first() {
            let left = until.saturating_sub(self.now());
            let share = match rest.is_empty() {
                true => left,
                false => left / SHARE.1 * SHARE.0,
            };
            match self.ask_head(spread, part, share).await {
                Ok(answers) => {
                    parts.extend(answers);
                    return parts;
                }
                Err(der) => parts.push(Part {
                    rank: head,
                    status: der.neg(),
                    body: Vec::new(),
                }),
            }
            part = rest;
        }
        parts
    }

    async fn ask_head(&self, spread: &Spread, part: &[u32], share: u64) -> Result<Vec<Part>, Der> {
        // It answers before it is given up: an eighth is for the way.
        let body = spread.encode(part, share - share / 8);
        let call = RankCall::new(SPREAD, body, Duration::from_nanos(share));
        let head = part.first().copied().unwrap_or_default();
        let reply = self.call(head, call).await?.into_result()?;
        let parts = decode(&reply.body).ok_or(Der::PROTO)?;
        // Exactly those that it was asked for, or it is not believed.
        let mut named: Vec<u32> = parts.iter().map(|part| part.rank).collect();
        named.sort_unstable();
        let mut asked = part.to_vec();
        asked.sort_unstable();
        match named == asked {
            true => Ok(parts),
            false => Err(Der::PROTO),
        }
    }
}

/// The other side: a part of somebody's call.
pub(super) fn serve(request: Request) {
    if request.engine().is_none() {
        return request.reply_error(Der::NO_PERM);
    }
    request.serve_in_ult("rpc collective", |request| async move {
        match work(request.body()).await {
            Ok(answer) => request.reply(0, &answer, None),
            Err(der) => request.reply_error(der),
        }
    });
}

async fn work(body: &[u8]) -> Result<Vec<u8>, Der> {
    let spread = Spread::decode(body).ok_or(Der::PROTO)?;
    spread.check()?;
    let ranks = Ranks::current()?;
    let (&head, others) = spread.ranks.split_first().ok_or(Der::PROTO)?;
    if head != ranks.me() {
        return Err(Der::BAD_TARGET);
    }
    let mut parts = ranks.serve_part(&spread, true, others).await;
    if let Some(gather) = ranks.gather(spread.opcode) {
        merge(&mut parts, &*gather);
    }
    Ok(encode(&parts))
}

/// The parts of a list that the children of its head get: of lengths 1, 1, 1, 4, 4, 4, 16 and so on.
fn children(others: &[u32]) -> Vec<&[u32]> {
    let (mut parts, mut from, mut unit) = (Vec::new(), 0, 1);
    while from < others.len() {
        for _ in 1..BASE {
            let to = (from + unit).min(others.len());
            parts.extend((from < to).then(|| &others[from..to]));
            from = to;
        }
        unit *= BASE;
    }
    parts
}

/// Bodies of engines that did it go into the first such body.
fn merge(parts: &mut [Part], gather: &dyn Fn(&mut Vec<u8>, &[u8])) {
    let mut done = parts.iter_mut().filter(|part| part.status == 0);
    let Some(first) = done.next() else {
        return;
    };
    for part in done {
        let body = std::mem::take(&mut part.body);
        if !body.is_empty() {
            gather(&mut first.body, &body);
        }
    }
}

/// Waits for all of `work`; what each gives goes into `parts`.
async fn all(mut work: Vec<Pin<Box<dyn Future<Output = Vec<Part>> + '_>>>, parts: &mut Vec<Part>) {
    poll_fn(|cx| {
        work.retain_mut(|one| match one.as_mut().poll(cx) {
            Poll::Ready(answers) => {
                parts.extend(answers);
                false
            }
            Poll::Pending => true,
        });
        match work.is_empty() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

/// A call on its way down. Little-endian: opcode, tag, milliseconds, number of ranks, ranks, body.
struct Spread {
    tag: u32,
    opcode: Opcode,
    /// Nanoseconds.
    limit: u64,
    ranks: Vec<u32>,
    body: Vec<u8>,
}

const HEAD: usize = 16;

impl Spread {
    fn check(&self) -> Result<(), Der> {
        if self.ranks.len() > MAX_RANKS || self.opcode.module() == GROUP_MODULE {
            return Err(Der::INVAL);
        }
        match HEAD + 4 * self.ranks.len() + self.body.len() > MAX_ANSWERS {
            true => Err(Der::OVERFLOW),
            false => Ok(()),
        }
    }

    fn encode(&self, part: &[u32], limit: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + 4 * part.len() + self.body.len() + Stamp::LEN);
        let limit_ms = u32::try_from(limit / 1_000_000).unwrap_or(u32::MAX).max(1);
        for word in [self.opcode.0, self.tag, limit_ms, part.len() as u32] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for rank in part {
            out.extend_from_slice(&rank.to_le_bytes());
        }
        out.extend_from_slice(&self.body);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Spread> {
        let mut rest = bytes;
        let (opcode, tag, limit_ms) = (word(&mut rest)?, word(&mut rest)?, word(&mut rest)?);
        let count = word(&mut rest)? as usize;
        let (list, body) = rest.split_at_checked(count.checked_mul(4)?)?;
        let mut list = list;
        Some(Spread {
            tag,
            opcode: Opcode(opcode),
            limit: u64::from(limit_ms) * 1_000_000,
            ranks: std::iter::from_fn(|| word(&mut list)).collect(),
            body: body.to_vec(),
        })
    }
}

fn word(bytes: &mut &[u8]) -> Option<u32> {
    let (first, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*first))
}

/// Rank, status, length and body of each. Bodies that do not fit are left out.
fn encode(parts: &[Part]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut room = MAX_ANSWERS.saturating_sub(12 * parts.len());
    for part in parts {
        let fits = part.body.len() <= room;
        let (status, body) = match fits {
            true => (part.status, part.body.as_slice()),
            false => (Der::TRUNC.neg(), &[][..]),
        };
        room -= body.len();
        out.extend_from_slice(&part.rank.to_le_bytes());
        out.extend_from_slice(&status.to_le_bytes());
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(body);
    }
    out
}

fn decode(mut bytes: &[u8]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let (rank, status) = (word(&mut bytes)?, word(&mut bytes)?.cast_signed());
        let len = word(&mut bytes)? as usize;
        let (body, rest) = bytes.split_at_checked(len)?;
        bytes = rest;
        let body = body.to_vec();
        parts.push(Part { rank, status, body });
    }
    Some(parts)
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spread({} to {} ranks)", self.opcode, self.ranks.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_as_a_knomial_tree() {
        let list: Vec<u32> = (1..16).collect();
        let parts = children(&list);
        assert_eq!(
            parts,
            [
                &[1][..],
                &[2],
                &[3],
                &[4, 5, 6, 7],
                &[8, 9, 10, 11],
                &[12, 13, 14, 15]
            ]
        );
        assert_eq!(children(&parts[3][1..]), [&[5][..], &[6], &[7]]);
        assert_eq!(children(&[]), Vec::<&[u32]>::new());
        for len in 0..300 {
            let list: Vec<u32> = (0..len).collect();
            assert_eq!(children(&list).concat(), list);
        }
    }

    #[test]
    fn messages_come_back_as_they_were_and_short_ones_are_refused() {
        let spread = Spread {
            tag: 2,
            opcode: Opcode::new(3, 1, 4),
            limit: 0,
            ranks: vec![],
            body: b"what".to_vec(),
        };
        let bytes = spread.encode(&[7, 9], 5_000_000);
        let back = Spread::decode(&bytes).unwrap();
        assert_eq!(
            (back.tag, back.opcode, back.limit),
            (2, spread.opcode, 5_000_000)
        );
        assert_eq!((back.ranks, back.body), (vec![7, 9], b"what".to_vec()));
        for cut in 0..HEAD + 8 {
            assert!(Spread::decode(&bytes[..cut]).is_none(), "{cut}");
        }
        let part = |rank, body: &[u8]| Part {
            rank,
            status: -5,
            body: body.to_vec(),
        };
        let parts = vec![part(1, b""), part(u32::MAX, b"some")];
        assert_eq!(decode(&encode(&parts)), Some(parts.clone()));
        assert_eq!(decode(&encode(&parts)[..15]), None);
    }

    #[test]
    fn answers_that_do_not_fit_are_named() {
        let part = |rank| Part {
            rank,
            status: 0,
            body: vec![7; MAX_ANSWERS / 2],
        };
        let parts = decode(&encode(&[part(0), part(1), part(2)])).unwrap();
        let statuses: Vec<i32> = parts.iter().map(|part| part.status).collect();
        assert_eq!(statuses, [0, Der::TRUNC.neg(), Der::TRUNC.neg()]);
    }
}
