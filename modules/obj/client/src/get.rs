//! Getting: the head and the first piece in one request, the others eight at a time and in order.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

use obj_proto::{Op, PIECE_SIZE, Placement, main_tag, verify, wire};
use rpc_wire::{ClientError, Reply};

use crate::links::{Answer, Links, open_reply};
use crate::put::WINDOW;
use crate::{Container, ObjError, ObjectInfo, Progress};

/// How often a piece is asked for when it arrives damaged.
const ATTEMPTS: u32 = 3;

/// How to get.
#[derive(Default)]
pub struct GetOptions<'a> {
    /// Where to begin.
    pub offset: u64,
    /// How many bytes, at most what the object has; `None`: to the end.
    pub length: Option<u64>,
    /// Called as data is written to the destination, at least once at the end.
    pub progress: Option<&'a mut dyn FnMut(Progress)>,
}

impl fmt::Debug for GetOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("GetOptions");
        out.field("offset", &self.offset)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

pub(crate) fn get(
    cont: &Container,
    name: &str,
    destination: &mut impl Write,
    mut options: GetOptions<'_>,
) -> Result<ObjectInfo, ObjError> {
    let mut links = cont.engine.links();
    let place = cont.place(name);
    let tag = main_tag(place.head());
    if options.length == Some(0) {
        drop(links);
        return cont.stat(name);
    }
    let (offset, length) = (options.offset, options.length.unwrap_or(0));
    let req = wire::GetReq {
        cont: cont.id(),
        name: name.to_owned(),
        offset,
        length,
    };
    let mut attempt = 1;
    let head = loop {
        let result = links
            .call::<wire::GetRep>(tag, Op::Get, &req, &[], true)
            .and_then(|head| check(name, 0, attempt, &head.message.csums.clone(), head));
        match result {
            Err(error) if attempt < ATTEMPTS && is_damage(&error) => attempt += 1,
            result => break result?,
        }
    };
    let info = ObjectInfo::from(head.message.object.clone().unwrap_or_default());
    let end = options
        .length
        .map_or(info.size, |n| offset.saturating_add(n).min(info.size));
    let total = end.saturating_sub(offset);
    let mut reader = Reader {
        cont,
        name,
        links: &mut links,
        place,
        version: info.version,
        pin: head.message.pin,
        renew_every: Duration::from_nanos(head.message.lease / 3),
        renewed: Instant::now(),
        flying: VecDeque::with_capacity(WINDOW),
    };
    let mut sink = Sink {
        name,
        destination,
        done: 0,
        total,
        progress: options.progress.take(),
    };
    let result = reader.copy(&head, (offset, end), &mut sink);
    reader.close(result.is_err());
    result.map(|()| info)
}

/// Where data goes, and who is told.
struct Sink<'a, 'p, W> {
    name: &'a str,
    destination: &'a mut W,
    done: u64,
    total: u64,
    progress: Option<&'p mut dyn FnMut(Progress)>,
}

impl<W: Write> Sink<'_, '_, W> {
    fn write(&mut self, data: &[u8]) -> Result<(), ObjError> {
        let failed = |source| ObjError::Destination {
            name: self.name.to_owned(),
            source,
        };
        self.destination.write_all(data).map_err(failed)?;
        self.done += data.len() as u64;
        let progress = Progress {
            done: self.done,
            total: Some(self.total),
        };
        if let Some(report) = &mut self.progress {
            report(progress);
        }
        Ok(())
    }
}

/// A piece that was asked for, and its reply once that is there.
struct Flying {
    piece: u32,
    /// Wanted bytes of the piece.
    range: (u32, u32),
    tag: u32,
    id: u64,
    attempt: u32,
    reply: Option<Result<Reply, ClientError>>,
}

struct Reader<'a> {
    cont: &'a Container,
    name: &'a str,
    links: &'a mut Links,
    place: Placement,
    version: u64,
    pin: u64,
    renew_every: Duration,
    renewed: Instant,
    flying: VecDeque<Flying>,
}

impl Reader<'_> {
    /// Writes `from..to` of the object, whose head has come.
    fn copy<W: Write>(
        &mut self,
        head: &Answer<wire::GetRep>,
        (from, to): (u64, u64),
        sink: &mut Sink<'_, '_, W>,
    ) -> Result<(), ObjError> {
        let mut at = from;
        if !head.bulk.is_empty() {
            let part = wanted(&head.bulk, head.message.offset, from, to)
                .ok_or_else(|| not_covering(Op::Get))?;
            sink.write(part)?;
            at += part.len() as u64;
        }
        if at == to && sink.total == 0 {
            sink.write(&[])?;
        }
        let piece_size = PIECE_SIZE as u64;
        let mut next = at;
        while at < to {
            while next < to && self.flying.len() < WINDOW {
                let piece = (next / piece_size) as u32;
                let end = ((next / piece_size + 1) * piece_size).min(to);
                let range = ((next % piece_size) as u32, (end - next) as u32);
                self.ask(piece, range, 1)?;
                next = end;
            }
            self.renew()?;
            at += self.take_next(sink)?;
        }
        Ok(())
    }

    fn ask(&mut self, piece: u32, range: (u32, u32), attempt: u32) -> Result<(), ObjError> {
        let req = wire::GetPieceReq {
            cont: self.cont.id(),
            name: self.name.to_owned(),
            version: self.version,
            piece,
            offset: range.0,
            length: range.1,
        };
        let tag = main_tag(self.place.piece(piece));
        let id = self.links.send(tag, Op::GetPiece, &req, &[])?;
        let asked = Flying {
            piece,
            range,
            tag,
            id,
            attempt,
            reply: None,
        };
        if attempt == 1 {
            self.flying.push_back(asked);
        } else {
            self.flying.push_front(asked);
        }
        Ok(())
    }

    /// Waits for the oldest piece and writes it.
    fn take_next<W: Write>(&mut self, sink: &mut Sink<'_, '_, W>) -> Result<u64, ObjError> {
        loop {
            let Some(front) = self.flying.front() else {
                return Ok(0);
            };
            if front.reply.is_some() {
                break;
            }
            let tag = front.tag;
            let (id, reply) = self.links.recv(tag)?;
            if let Some(f) = self.flying.iter_mut().find(|f| (f.tag, f.id) == (tag, id)) {
                f.reply = Some(reply);
            }
        }
        let Some(Flying {
            piece,
            range,
            tag,
            attempt,
            reply: Some(reply),
            ..
        }) = self.flying.pop_front()
        else {
            return Ok(0);
        };
        let result = reply
            .map_err(ObjError::from)
            .and_then(|reply| open_reply::<wire::GetPieceRep>(Op::GetPiece, reply))
            .and_then(|a| check(self.name, piece, attempt, &a.message.csums.clone(), a));
        let answer = match result {
            Err(error) if attempt < ATTEMPTS && is_damage(&error) => {
                self.ask(piece, range, attempt + 1)?;
                return Ok(0);
            }
            result => result?,
        };
        let (from, to) = (u64::from(range.0), u64::from(range.0) + u64::from(range.1));
        let part = wanted(&answer.bulk, answer.message.offset.into(), from, to)
            .filter(|part| part.len() as u64 == to - from)
            .ok_or_else(|| not_covering(Op::GetPiece))?;
        sink.write(part)?;
        self.links.recycle(tag, answer.bulk);
        Ok(to - from)
    }

    fn renew(&mut self) -> Result<(), ObjError> {
        if self.pin == 0 || self.renewed.elapsed() < self.renew_every {
            return Ok(());
        }
        let req = wire::GetRenewReq { pin: self.pin };
        let tag = main_tag(self.place.head());
        self.links
            .call::<wire::Empty>(tag, Op::GetRenew, &req, &[], false)?;
        self.renewed = Instant::now();
        Ok(())
    }

    /// Gives the pin back. After a failure replies may be outstanding that nobody wants: those connections go. A pin that
    /// cannot be given back ends with its lease.
    fn close(&mut self, failed: bool) {
        if failed {
            let tags: Vec<u32> = self.flying.iter().map(|f| f.tag).collect();
            tags.into_iter().for_each(|tag| self.links.drop_link(tag));
        }
        if self.pin != 0 {
            let req = wire::GetCloseReq { pin: self.pin };
            let tag = main_tag(self.place.head());
            let _ = self
                .links
                .call::<wire::Empty>(tag, Op::GetClose, &req, &[], false);
        }
    }
}

/// The part of `bulk`, which begins at `start`, that lies in `from..to`. `None` when it does not begin with `from`.
fn wanted(bulk: &[u8], start: u64, from: u64, to: u64) -> Option<&[u8]> {
    let skip = usize::try_from(from.checked_sub(start)?).ok()?;
    let len = usize::try_from(to - from).ok()?;
    let rest = bulk.get(skip..)?;
    Some(&rest[..len.min(rest.len())])
}

fn not_covering(op: Op) -> ObjError {
    ObjError::Answer {
        op: op.name(),
        why: "the data does not cover what was asked for".into(),
    }
}

fn check<M>(
    name: &str,
    piece: u32,
    attempts: u32,
    csums: &[u32],
    answer: Answer<M>,
) -> Result<Answer<M>, ObjError> {
    let damaged = |e: obj_proto::ChunkMismatch| ObjError::Damaged {
        name: name.to_owned(),
        piece,
        attempts,
        detail: e.to_string(),
    };
    verify(&answer.bulk, csums)
        .map_err(damaged)
        .map(|()| answer)
}

/// Damaged on the way here; asking again may help. Damage on the engine's device is an [`ObjError::Engine`].
fn is_damage(error: &ObjError) -> bool {
    matches!(
        error,
        ObjError::Damaged { .. } | ObjError::Transport(ClientError::Damaged { .. })
    )
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn a_range_is_cut_out_of_widened_data() {
        let bulk: Vec<u8> = (0..100).collect();
        assert_eq!(wanted(&bulk, 1000, 1010, 1020), Some(&bulk[10..20]));
        assert_eq!(wanted(&bulk, 1000, 1000, 5000), Some(&bulk[..]));
        assert_eq!(wanted(&bulk, 1000, 999, 1001), None);
        assert_eq!(wanted(&bulk, 1000, 1101, 1102), None);
    }
}
