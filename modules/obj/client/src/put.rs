//! Putting: small objects in one request, larger ones in pieces that become the object at once.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use obj_proto::{OBJECT_MAX, Op, PIECE_SIZE, Placement, csums, main_tag, pieces_of, wire};

use crate::links::{Links, open_reply};
use crate::{Container, ObjError, ObjectInfo, Progress};

/// Pieces on their way at the same time.
pub(crate) const WINDOW: usize = 8;

/// How to put.
#[derive(Default)]
pub struct PutOptions<'a> {
    /// Bytes that the source has. When it then gives fewer or more, nothing is stored. `None`: until it ends.
    pub size: Option<u64>,
    /// Called as the engine acknowledges data, at least once at the end.
    pub progress: Option<&'a mut dyn FnMut(Progress)>,
}

impl fmt::Debug for PutOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutOptions")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Reads until the buffer is full or the source ends.
fn fill(source: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buf.len() {
        match source.read(&mut buf[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

/// A source that is read a piece at a time and must keep its promised length.
struct Pieces<'a, R> {
    source: &'a mut R,
    name: &'a str,
    promised: Option<u64>,
    read: u64,
    /// One byte more than a piece: whether it is filled tells if another piece follows.
    buf: Vec<u8>,
    held: usize,
}

impl<'a, R: Read> Pieces<'a, R> {
    fn new(source: &'a mut R, name: &'a str, promised: Option<u64>) -> Result<Self, ObjError> {
        if promised.is_some_and(|size| size > OBJECT_MAX) {
            return Err(ObjError::TooLarge {
                name: name.to_owned(),
            });
        }
        let room = promised.map_or(PIECE_SIZE, |s| s.min(PIECE_SIZE as u64) as usize) + 1;
        Ok(Self {
            source,
            name,
            promised,
            read: 0,
            buf: vec![0; room],
            held: 0,
        })
    }

    /// The next piece, and whether it is the last one. An empty source gives one empty piece.
    fn next(&mut self) -> Result<(&[u8], bool), ObjError> {
        let name = || self.name.to_owned();
        let got =
            fill(self.source, &mut self.buf[self.held..]).map_err(|source| ObjError::Source {
                name: name(),
                source,
            })?;
        let have = self.held + got;
        let len = have.min(PIECE_SIZE);
        let last = have <= PIECE_SIZE;
        self.read += len as u64;
        let more = u64::from(!last);
        if self.read + more > OBJECT_MAX && self.promised.is_none() {
            return Err(ObjError::TooLarge { name: name() });
        }
        if let Some(promised) = self.promised {
            let found = match self.read + more {
                n if n > promised => Some("more".to_owned()),
                n if last && n < promised => Some(format!("only {n}")),
                _ => None,
            };
            if let Some(found) = found {
                return Err(ObjError::SourceChanged {
                    name: name(),
                    promised,
                    found,
                });
            }
        }
        Ok((&self.buf[..len], last))
    }

    /// Keeps the byte that was read beyond the piece.
    fn advance(&mut self) {
        self.buf[0] = self.buf[PIECE_SIZE];
        self.held = 1;
    }
}

pub(crate) fn put(
    cont: &Container,
    name: &str,
    source: &mut impl Read,
    mut options: PutOptions<'_>,
) -> Result<ObjectInfo, ObjError> {
    let mut pieces = Pieces::new(source, name, options.size)?;
    let (first, last) = pieces.next()?;
    let mut links = cont.engine.links();
    let place = cont.place(name);
    if !last {
        return Upload::begin(cont, name, &mut links, place)?.run(&mut pieces, options);
    }
    let req = wire::PutReq {
        cont: cont.id(),
        name: name.to_owned(),
        csums: csums(first),
    };
    let size = first.len() as u64;
    let tag = main_tag(place.head());
    // Repeating it after a lost reply stores the same bytes again.
    let rep = links.call::<wire::PutRep>(tag, Op::Put, &req, first, true)?;
    if let Some(progress) = &mut options.progress {
        progress(Progress {
            done: size,
            total: Some(size),
        });
    }
    Ok(rep.message.object.unwrap_or_default().into())
}

/// A version under way.
struct Upload<'a> {
    cont: &'a Container,
    name: &'a str,
    links: &'a mut Links,
    place: Placement,
    version: u64,
    renew_every: Duration,
    renewed: Instant,
    /// Pieces without a reply, oldest first: connection, request, bytes.
    flying: VecDeque<(u32, u64, u64)>,
    done: u64,
}

impl<'a> Upload<'a> {
    fn begin(
        cont: &'a Container,
        name: &'a str,
        links: &'a mut Links,
        place: Placement,
    ) -> Result<Self, ObjError> {
        let req = wire::PutBeginReq {
            cont: cont.id(),
            name: name.to_owned(),
        };
        let tag = main_tag(place.head());
        let rep = links
            .call::<wire::PutBeginRep>(tag, Op::PutBegin, &req, &[], true)?
            .message;
        let renew_every = Duration::from_nanos(rep.lease / 3);
        Ok(Self {
            cont,
            name,
            links,
            place,
            version: rep.version,
            renew_every,
            renewed: Instant::now(),
            flying: VecDeque::with_capacity(WINDOW),
            done: 0,
        })
    }

    /// Sends all pieces and commits, or aborts.
    fn run(
        mut self,
        pieces: &mut Pieces<'_, impl Read>,
        mut options: PutOptions<'_>,
    ) -> Result<ObjectInfo, ObjError> {
        let result = self
            .send_all(pieces, &mut options)
            .and_then(|size| self.commit(size));
        if result.is_err() {
            self.abort();
        }
        result
    }

    fn send_all(
        &mut self,
        pieces: &mut Pieces<'_, impl Read>,
        options: &mut PutOptions<'_>,
    ) -> Result<u64, ObjError> {
        let total = options.size;
        let mut report = |done| {
            if let Some(progress) = &mut options.progress {
                progress(Progress { done, total });
            }
        };
        // The first piece was read when its size decided that this is an upload; it is in the buffer still.
        let mut index = 0;
        let mut len = PIECE_SIZE;
        let mut last = false;
        loop {
            if self.flying.len() == WINDOW {
                self.take_reply()?;
                report(self.done);
            }
            self.renew()?;
            self.send_piece(index, &pieces.buf[..len])?;
            if last {
                break;
            }
            pieces.advance();
            let next = pieces.next()?;
            (len, last) = (next.0.len(), next.1);
            index += 1;
        }
        while !self.flying.is_empty() {
            self.take_reply()?;
            report(self.done);
        }
        Ok(pieces.read)
    }

    fn send_piece(&mut self, piece: u32, data: &[u8]) -> Result<(), ObjError> {
        let req = wire::PutPieceReq {
            cont: self.cont.id(),
            name: self.name.to_owned(),
            version: self.version,
            piece,
            csums: csums(data),
        };
        let tag = main_tag(self.place.piece(piece));
        let id = self.links.send(tag, Op::PutPiece, &req, data)?;
        self.flying.push_back((tag, id, data.len() as u64));
        Ok(())
    }

    /// Waits for a reply on the connection of the oldest piece.
    fn take_reply(&mut self) -> Result<(), ObjError> {
        let Some(&(tag, ..)) = self.flying.front() else {
            return Ok(());
        };
        let (id, reply) = self.links.recv(tag)?;
        let at = self.flying.iter().position(|f| (f.0, f.1) == (tag, id));
        let bytes = at.and_then(|at| self.flying.remove(at)).map_or(0, |f| f.2);
        open_reply::<wire::Empty>(Op::PutPiece, reply?)?;
        self.done += bytes;
        Ok(())
    }

    fn renew(&mut self) -> Result<(), ObjError> {
        if self.renewed.elapsed() < self.renew_every {
            return Ok(());
        }
        let (cont, name) = (self.cont.id(), self.name.to_owned());
        let req = wire::PutRenewReq {
            cont,
            name,
            version: self.version,
        };
        let tag = main_tag(self.place.head());
        self.links
            .call::<wire::Empty>(tag, Op::PutRenew, &req, &[], false)?;
        self.renewed = Instant::now();
        Ok(())
    }

    fn commit(&mut self, size: u64) -> Result<ObjectInfo, ObjError> {
        debug_assert!(pieces_of(size) > 1);
        let (cont, name) = (self.cont.id(), self.name.to_owned());
        let req = wire::PutCommitReq {
            cont,
            name,
            version: self.version,
            size,
        };
        let tag = main_tag(self.place.head());
        let rep = self
            .links
            .call::<wire::PutCommitRep>(tag, Op::PutCommit, &req, &[], false)?;
        Ok(rep.message.object.unwrap_or_default().into())
    }

    /// Takes in what is still under way, so that the connections stay usable, and tells the engine to forget the rest.
    /// If that fails, too, the engine does so by itself when the lease ends.
    fn abort(&mut self) {
        while let Some(&(tag, id, _)) = self.flying.front() {
            match self.links.recv(tag) {
                Ok((got, _)) => self.flying.retain(|f| (f.0, f.1) != (tag, got)),
                Err(_) => {
                    self.links.drop_link(tag);
                    self.flying.retain(|f| f.0 != tag);
                }
            }
            debug_assert!(self.flying.len() <= WINDOW, "request {id}");
        }
        let (cont, name) = (self.cont.id(), self.name.to_owned());
        let req = wire::PutAbortReq {
            cont,
            name,
            version: self.version,
        };
        let tag = main_tag(self.place.head());
        let _ = self
            .links
            .call::<wire::Empty>(tag, Op::PutAbort, &req, &[], false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(mut data: &[u8], promised: Option<u64>) -> Result<Vec<usize>, ObjError> {
        let mut pieces = Pieces::new(&mut data, "x", promised)?;
        let mut lens = Vec::new();
        loop {
            let (piece, last) = pieces.next()?;
            lens.push(piece.len());
            if last {
                return Ok(lens);
            }
            pieces.advance();
        }
    }

    #[test]
    fn a_source_is_cut_into_pieces() {
        let data = vec![1; 3 * PIECE_SIZE];
        for promised in [false, true] {
            for (len, lens) in [
                (0, vec![0]),
                (1, vec![1]),
                (PIECE_SIZE, vec![PIECE_SIZE]),
                (PIECE_SIZE + 1, vec![PIECE_SIZE, 1]),
                (3 * PIECE_SIZE, vec![PIECE_SIZE; 3]),
            ] {
                let promise = promised.then_some(len as u64);
                assert_eq!(read_all(&data[..len], promise).unwrap(), lens);
            }
        }
    }

    #[test]
    fn a_source_that_changed_is_seen_before_its_last_piece_counts() {
        let data = vec![1; 2 * PIECE_SIZE];
        for (len, promised, found) in [
            (10, 11, "only 10"),
            (10, 9, "more"),
            (0, 1, "only 0"),
            (1, 0, "more"),
            (PIECE_SIZE + 5, 2 * PIECE_SIZE as u64, "only 1048581"),
            (2 * PIECE_SIZE, PIECE_SIZE as u64 + 7, "more"),
            (PIECE_SIZE + 1, PIECE_SIZE as u64, "more"),
        ] {
            match read_all(&data[..len], Some(promised)) {
                Err(ObjError::SourceChanged { found: said, .. }) => assert_eq!(said, found),
                other => panic!("{len} {promised}: {other:?}"),
            }
        }
        assert!(matches!(
            read_all(&[], Some(OBJECT_MAX + 1)),
            Err(ObjError::TooLarge { .. })
        ));
    }
}
