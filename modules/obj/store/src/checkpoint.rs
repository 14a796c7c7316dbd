//! Checkpoints: the index written into the other half of the log while changes go on.
//!
//! The walk over the index is fuzzy: entries change before and behind it. Every record that becomes durable from its
//! start on is therefore carried over behind the image; records are absolute (see `record`), so image and carry together
//! give the index as it is at the end. Steps, each of which may be the last before a power cut:
//!
//! 1. image frames, then carry frames, into the other half: it has no end frame, so the old half is the log;
//! 2. the log stands still: the last carry, then a flush;
//! 3. the end frame, forced to the medium: from that moment the new half is the log, and nothing newer is in the old one.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::rc::Rc;

use uuid::Uuid;

use crate::device::BlockDev;
use crate::error::StoreError;
use crate::frame::{FrameHeader, Kind};
use crate::index::{Container, Index};
use crate::record::{self, Op};
use crate::replay::Tail;
use crate::store::Inner;

/// How often a checkpoint that the device refuses is tried again before the store gives up writing.
const ATTEMPTS: u32 = 3;
/// Rounds of carrying over before the log is made to wait for the rest.
const ROUNDS: u32 = 4;

/// Where the walk goes on.
enum Cursor {
    Start,
    Pools(Option<Uuid>),
    Conts(u32, Part),
    Done,
}

/// Where in a container.
enum Part {
    Start,
    Heads(Option<Box<str>>),
    Pieces(Option<(u64, u32)>),
    Intents(Option<u64>),
    Reclaims(Option<u64>),
}

/// One frame's worth of records, being filled.
struct Page {
    records: Vec<u8>,
    max: usize,
    full: bool,
}

impl Page {
    /// Appends one entry, or takes it back and is full. The first one always fits.
    fn add(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let before = self.records.len();
        encode(&mut self.records);
        if self.records.len() > self.max && before > 0 {
            self.records.truncate(before);
            self.full = true;
        }
        !self.full
    }
}

/// Appends the entries behind `last` until the page is full: the key to go on from, or `None` when the map is done.
fn walk<K: Ord + Clone, V>(
    map: &BTreeMap<K, V>,
    last: Option<K>,
    page: &mut Page,
    encode: impl Fn(&mut Vec<u8>, &K, &V),
) -> Option<Option<K>> {
    let mut done = last.clone();
    let from = last.as_ref().map_or(Unbounded, Excluded);
    for (key, value) in map.range::<K, _>((from, Unbounded)) {
        if !page.add(|out| encode(out, key, value)) {
            return Some(done);
        }
        done = Some(key.clone());
    }
    None
}

impl Cursor {
    /// Fills the page from one map and says where to go on.
    fn step(self, index: &Index, page: &mut Page) -> Cursor {
        match self {
            Cursor::Start => {
                let (next_version, next_cont) = (index.next_version, index.next_cont);
                page.add(|out| {
                    Op::Counters {
                        next_version,
                        next_cont,
                    }
                    .encode(out)
                });
                Cursor::Pools(None)
            }
            Cursor::Pools(last) => {
                let rest = walk(&index.pools, last, page, |out, uuid, p| {
                    record::put_pool(out, uuid, &p.label, p.quota, p.created);
                });
                rest.map_or_else(|| next_cont(index, None), Cursor::Pools)
            }
            Cursor::Conts(id, part) => match index.conts.get(&id) {
                None => next_cont(index, Some(id)),
                Some(cont) => match part.step(id, cont, page) {
                    Some(part) => Cursor::Conts(id, part),
                    None => next_cont(index, Some(id)),
                },
            },
            Cursor::Done => Cursor::Done,
        }
    }
}

fn next_cont(index: &Index, last: Option<u32>) -> Cursor {
    let from = last.as_ref().map_or(Unbounded, Excluded);
    let next = index.conts.range::<u32, _>((from, Unbounded)).next();
    next.map_or(Cursor::Done, |(id, _)| Cursor::Conts(*id, Part::Start))
}

impl Part {
    fn step(self, id: u32, cont: &Container, page: &mut Page) -> Option<Part> {
        let next = match self {
            Part::Start => {
                let put = |out: &mut Vec<u8>| {
                    record::put_cont(out, id, &cont.uuid, &cont.pool, &cont.label, cont.created);
                };
                if page.add(put) {
                    Part::Heads(None)
                } else {
                    Part::Start
                }
            }
            Part::Heads(last) => walk(&cont.heads, last, page, |out, name, head| {
                record::put_head(out, id, name, head);
            })
            .map_or(Part::Pieces(None), Part::Heads),
            Part::Pieces(last) => walk(&cont.pieces, last, page, |out, key, piece| {
                record::put_piece(out, id, key.0, key.1, piece);
            })
            .map_or(Part::Intents(None), Part::Pieces),
            Part::Intents(last) => walk(&cont.intents, last, page, |out, version, intent| {
                record::put_intent(out, id, *version, &intent.name, intent.began);
            })
            .map_or(Part::Reclaims(None), Part::Intents),
            Part::Reclaims(last) => {
                let rest = walk(&cont.reclaims, last, page, |out, version, ()| {
                    record::put_version(out, record::RECLAIM_TAG, id, *version);
                });
                return rest.map(Part::Reclaims);
            }
        };
        Some(next)
    }
}

/// Where the new half stands.
struct Writer {
    half: u8,
    generation: u64,
    seq: u64,
    next: u64,
}

impl Writer {
    async fn frame<D: BlockDev>(
        &mut self,
        inner: &Inner<D>,
        kind: Kind,
        records: &[u8],
    ) -> Result<(), StoreError> {
        let (generation, seq) = (self.generation, self.seq);
        let header = FrameHeader {
            kind,
            generation,
            seq,
            len: records.len() as u32,
        };
        let fua = kind == Kind::End;
        let place = (self.half, self.next);
        inner
            .write_frame(place, header, records, &inner.checkpoint_buf, fua)
            .await?;
        self.seq += 1;
        self.next += u64::from(header.units());
        Ok(())
    }
}

impl<D: BlockDev> Inner<D> {
    /// The task that writes checkpoints. Ends after the log task.
    pub(crate) async fn run_checkpoints(self: Rc<Self>) {
        let log = &self.log;
        loop {
            let work = || match (log.checkpoint_wanted.get(), log.ended()) {
                (_, true) => Some(false),
                (true, _) => Some(true),
                _ => None,
            };
            if !log.changed.wait(work).await {
                log.quiet.set(true);
                log.changed.notify();
                return;
            }
            let mut attempt = 0;
            while let Err(error) = self.checkpoint().await {
                attempt += 1;
                self.log.carry.replace(None);
                if attempt == ATTEMPTS || log.failure().is_some() {
                    log.fail(&error);
                    break;
                }
            }
            log.checkpoint_wanted.set(false);
            log.changed.notify();
        }
    }

    async fn checkpoint(&self) -> Result<(), StoreError> {
        let log = &self.log;
        // A generation of its own for each attempt: what an earlier one left in the half never chains to this one.
        let mut tail = log.tail.get();
        tail.newest += 1;
        log.tail.set(tail);
        let generation = tail.newest;
        let mut new = Writer {
            half: 1 - tail.half,
            generation,
            seq: 0,
            next: 0,
        };
        log.carry.replace(Some(VecDeque::new()));
        self.image(&mut new).await?;
        for _ in 0..ROUNDS {
            self.carry_over(&mut new).await?;
        }
        let _turn = log.turn.lock().await;
        self.carry_over(&mut new).await?;
        self.flusher.flush(&self.media).await?;
        if let Err(error) = new.frame(self, Kind::End, &[]).await {
            // It may be on the medium: a record in the old half could be forgotten at the next open.
            log.fail(&error);
            return Err(error);
        }
        let Writer {
            half,
            generation,
            seq,
            next,
        } = new;
        log.tail.set(Tail {
            half,
            generation,
            seq,
            next,
            newest: generation,
        });
        log.carry.replace(None);
        self.checkpoints.set(self.checkpoints.get() + 1);
        Ok(())
    }

    async fn image(&self, new: &mut Writer) -> Result<(), StoreError> {
        let mut cursor = Cursor::Start;
        while !matches!(cursor, Cursor::Done) {
            let max = self.records_max();
            let mut page = Page {
                records: Vec::with_capacity(max),
                max,
                full: false,
            };
            while !page.full && !matches!(cursor, Cursor::Done) {
                cursor = cursor.step(&self.index.borrow(), &mut page);
            }
            new.frame(self, Kind::Image, &page.records).await?;
        }
        Ok(())
    }

    /// Writes what was carried up to now.
    async fn carry_over(&self, new: &mut Writer) -> Result<(), StoreError> {
        let carried = self
            .log
            .carry
            .replace(Some(VecDeque::new()))
            .unwrap_or_default();
        for records in carried {
            new.frame(self, Kind::Carry, &records).await?;
        }
        Ok(())
    }
}
