//! What the log says, in memory: pools, containers, heads, pieces, uploads, reclaims.
//!
//! Only [`Index::apply`] changes it, once a record is durable, and the same function replays the log at open. While it
//! replays there is no allocator; [`Index::finish_replay`] builds it from what is left at the end.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use uuid::Uuid;

use crate::device::UNIT;
use crate::extent::{Allocator, Extent, Overlap};
use crate::record::{self, Head, Op, Piece, RECLAIM_LEN};

/// Bytes of the counters' record.
const COUNTERS_LEN: u64 = 13;

/// A pool on this target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolInfo {
    /// Its uuid.
    pub uuid: Uuid,
    /// Its label.
    pub label: String,
    /// Bytes that it may hold on this target.
    pub quota: u64,
    /// Bytes that it holds, in whole units.
    pub used: u64,
    /// When it was created, ns since 1970.
    pub created: u64,
}

/// A container on this target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerInfo {
    /// Its uuid.
    pub uuid: Uuid,
    /// Its pool.
    pub pool: Uuid,
    /// Its label.
    pub label: String,
    /// When it was created, ns since 1970.
    pub created: u64,
}

pub(crate) struct Pool {
    pub(crate) label: Box<str>,
    pub(crate) quota: u64,
    pub(crate) created: u64,
    /// Units held by durable pieces and by puts in flight. Shared with the containers, so that one that is still being
    /// taken apart does not count against a later pool of the same uuid.
    pub(crate) used: Rc<Cell<u64>>,
}

/// An upload that has neither committed nor ended.
pub(crate) struct Intent {
    pub(crate) name: Box<str>,
    pub(crate) began: u64,
}

pub(crate) struct Container {
    pub(crate) uuid: Uuid,
    pub(crate) pool: Uuid,
    pub(crate) label: Box<str>,
    pub(crate) created: u64,
    pub(crate) used: Rc<Cell<u64>>,
    pub(crate) heads: BTreeMap<Box<str>, Head>,
    pub(crate) pieces: BTreeMap<(u64, u32), Rc<Piece>>,
    pub(crate) intents: BTreeMap<u64, Intent>,
    pub(crate) reclaims: BTreeMap<u64, ()>,
}

/// Everything one target knows.
#[derive(Default)]
pub(crate) struct Index {
    pub(crate) pools: BTreeMap<Uuid, Pool>,
    pub(crate) conts: BTreeMap<u32, Container>,
    pub(crate) cont_ids: HashMap<Uuid, u32>,
    pub(crate) next_version: u64,
    pub(crate) next_cont: u32,
    /// Bytes that a checkpoint of all this takes, frame headers aside.
    pub(crate) image_bytes: u64,
    /// `None` while the log is replayed.
    pub(crate) alloc: Option<Allocator>,
    /// Freed pieces that someone still reads.
    limbo: Vec<Rc<Piece>>,
    /// Destroyed containers whose pieces are not freed yet.
    graveyard: VecDeque<Container>,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self {
            next_version: 1,
            next_cont: 1,
            image_bytes: COUNTERS_LEN,
            ..Self::default()
        }
    }

    /// Applies one durable change. What refers to a container or pool that is gone changes nothing (a piece gives its
    /// units back).
    pub(crate) fn apply(&mut self, op: Op) {
        match op {
            Op::PoolPut {
                uuid,
                label,
                quota,
                created,
            } => {
                self.pool_put(uuid, label, quota, created);
            }
            Op::PoolDel { uuid } => self.pool_del(uuid),
            Op::ContPut {
                cont,
                uuid,
                pool,
                label,
                created,
            } => {
                self.cont_put(cont, uuid, pool, label, created);
            }
            Op::ContDel { cont } => self.cont_del(cont),
            Op::HeadPut { cont, name, head } => {
                self.next_version = self.next_version.max(version_number(head.version) + 1);
                if let Some(c) = self.conts.get_mut(&cont) {
                    let len = record::head_len(&name);
                    if c.heads.insert(name, head).is_none() {
                        self.image_bytes += len;
                    }
                }
            }
            Op::HeadDel { cont, name } => {
                let gone = self
                    .conts
                    .get_mut(&cont)
                    .and_then(|c| c.heads.remove(&name));
                if gone.is_some() {
                    self.image_bytes -= record::head_len(&name);
                }
            }
            Op::PiecePut {
                cont,
                version,
                piece,
                data,
            } => {
                self.piece_put(cont, version, piece, data);
            }
            Op::VersionDrop { cont, version } => self.version_drop(cont, version),
            Op::IntentPut {
                cont,
                version,
                name,
                began,
            } => {
                self.next_version = self.next_version.max(version_number(version) + 1);
                if let Some(c) = self.conts.get_mut(&cont) {
                    let len = record::intent_cost(&name);
                    if c.intents.insert(version, Intent { name, began }).is_none() {
                        self.image_bytes += len;
                    }
                }
            }
            Op::IntentDel { cont, version } => self.intent_del(cont, version),
            Op::ReclaimPut { cont, version } => {
                self.intent_del(cont, version);
                if let Some(c) = self.conts.get_mut(&cont)
                    && c.reclaims.insert(version, ()).is_none()
                {
                    self.image_bytes += RECLAIM_LEN;
                }
            }
            Op::ReclaimDel { cont, version } => {
                self.intent_del(cont, version);
                if let Some(c) = self.conts.get_mut(&cont)
                    && c.reclaims.remove(&version).is_some()
                {
                    self.image_bytes -= RECLAIM_LEN;
                }
            }
            Op::Counters {
                next_version,
                next_cont,
            } => {
                self.next_version = self.next_version.max(next_version);
                self.next_cont = self.next_cont.max(next_cont);
            }
        }
    }

    fn pool_put(&mut self, uuid: Uuid, label: Box<str>, quota: u64, created: u64) {
        let added = record::pool_len(&label);
        let old = self.pools.get(&uuid);
        let used = old.map(|p| p.used.clone()).unwrap_or_default();
        self.image_bytes -= old.map_or(0, |p| record::pool_len(&p.label));
        self.image_bytes += added;
        self.pools.insert(
            uuid,
            Pool {
                label,
                quota,
                created,
                used,
            },
        );
    }

    fn pool_del(&mut self, uuid: Uuid) {
        if let Some(pool) = self.pools.remove(&uuid) {
            self.image_bytes -= record::pool_len(&pool.label);
        }
        let of_pool = |(id, c): (&u32, &Container)| (c.pool == uuid).then_some(*id);
        let conts: Vec<u32> = self.conts.iter().filter_map(of_pool).collect();
        conts.into_iter().for_each(|cont| self.cont_del(cont));
    }

    fn cont_put(&mut self, cont: u32, uuid: Uuid, pool: Uuid, label: Box<str>, created: u64) {
        self.next_cont = self.next_cont.max(cont + 1);
        let Some(used) = self.pools.get(&pool).map(|p| p.used.clone()) else {
            return;
        };
        self.image_bytes += record::cont_len(&label);
        if let Some(old) = self.conts.get_mut(&cont) {
            self.image_bytes -= record::cont_len(&old.label);
            (old.label, old.created) = (label, created);
            return;
        }
        let new = Container {
            uuid,
            pool,
            label,
            created,
            used,
            heads: BTreeMap::new(),
            pieces: BTreeMap::new(),
            intents: BTreeMap::new(),
            reclaims: BTreeMap::new(),
        };
        self.conts.insert(cont, new);
        self.cont_ids.insert(uuid, cont);
    }

    fn cont_del(&mut self, cont: u32) {
        let Some(gone) = self.conts.remove(&cont) else {
            return;
        };
        self.cont_ids.remove(&gone.uuid);
        self.image_bytes -= record::cont_len(&gone.label);
        self.graveyard.push_back(gone);
        if self.alloc.is_none() {
            while self.bury(u32::MAX) {}
        }
    }

    fn piece_put(&mut self, cont: u32, version: u64, piece: u32, data: Rc<Piece>) {
        let Some(c) = self.conts.get_mut(&cont) else {
            data.uncount();
            self.release(&data.extents);
            return;
        };
        self.image_bytes += record::piece_len(data.extents.len(), data.csums.len());
        if let Some(old) = c.pieces.insert((version, piece), data) {
            self.piece_gone(old);
        }
    }

    fn version_drop(&mut self, cont: u32, version: u64) {
        let Some(c) = self.conts.get_mut(&cont) else {
            return;
        };
        let of_version = c.pieces.range((version, 0)..=(version, u32::MAX));
        let keys: Vec<(u64, u32)> = of_version.map(|(key, _)| *key).collect();
        for key in keys {
            let gone = self
                .conts
                .get_mut(&cont)
                .and_then(|c| c.pieces.remove(&key));
            if let Some(piece) = gone {
                self.piece_gone(piece);
            }
        }
    }

    fn intent_del(&mut self, cont: u32, version: u64) {
        let gone = self
            .conts
            .get_mut(&cont)
            .and_then(|c| c.intents.remove(&version));
        if let Some(intent) = gone {
            self.image_bytes -= record::intent_cost(&intent.name);
        }
    }

    /// A piece left the index: its units are free, or will be when its last reader is done.
    fn piece_gone(&mut self, piece: Rc<Piece>) {
        self.image_bytes -= record::piece_len(piece.extents.len(), piece.csums.len());
        if self.alloc.is_none() {
            return;
        }
        if Rc::strong_count(&piece) > 1 {
            self.limbo.push(piece);
        } else {
            piece.uncount();
            self.release(&piece.extents);
        }
    }

    /// Gives units back that no record names.
    pub(crate) fn release(&mut self, extents: &[Extent]) {
        if let Some(alloc) = &mut self.alloc {
            extents.iter().for_each(|e| alloc.release(*e));
        }
    }

    /// Frees pieces whose last reader is done.
    pub(crate) fn sweep(&mut self) {
        let mut i = 0;
        while i < self.limbo.len() {
            if Rc::strong_count(&self.limbo[i]) > 1 {
                i += 1;
                continue;
            }
            let piece = self.limbo.swap_remove(i);
            piece.uncount();
            self.release(&piece.extents);
        }
    }

    /// Frees up to `max` entries of destroyed containers; `true` when some are left.
    pub(crate) fn bury(&mut self, max: u32) -> bool {
        let Some(mut dead) = self.graveyard.pop_front() else {
            return false;
        };
        for _ in 0..max {
            if let Some((_, piece)) = dead.pieces.pop_first() {
                self.piece_gone(piece);
            } else if let Some((name, _)) = dead.heads.pop_first() {
                self.image_bytes -= record::head_len(&name);
            } else if let Some((_, intent)) = dead.intents.pop_first() {
                self.image_bytes -= record::intent_cost(&intent.name);
            } else if dead.reclaims.pop_first().is_some() {
                self.image_bytes -= RECLAIM_LEN;
            } else {
                return !self.graveyard.is_empty();
            }
        }
        self.graveyard.push_front(dead);
        true
    }

    /// After the last record: uploads that never committed are to be reclaimed, and what no piece holds is free.
    pub(crate) fn finish_replay(&mut self, data_units: u64) -> Result<(), Overlap> {
        let mut alloc = Allocator::new(data_units);
        let mut abandoned = Vec::new();
        for (id, cont) in &mut self.conts {
            abandoned.extend(cont.intents.keys().map(|version| (*id, *version)));
            for piece in cont.pieces.values_mut() {
                cont.used.set(cont.used.get() + piece.units());
                if let Some(piece) = Rc::get_mut(piece) {
                    piece.pool_used = Some(cont.used.clone());
                }
                piece.extents.iter().try_for_each(|e| alloc.claim(*e))?;
            }
        }
        for (cont, version) in abandoned {
            self.apply(Op::ReclaimPut { cont, version });
        }
        self.alloc = Some(alloc);
        Ok(())
    }

    pub(crate) fn pool_info(&self, uuid: &Uuid) -> Option<PoolInfo> {
        self.pools.get(uuid).map(|p| PoolInfo {
            uuid: *uuid,
            label: p.label.to_string(),
            quota: p.quota,
            used: p.used.get() * UNIT as u64,
            created: p.created,
        })
    }

    /// Bytes of the data region that are not promised to a pool.
    pub(crate) fn unpromised(&self) -> u64 {
        let total = self.alloc.as_ref().map_or(0, Allocator::total_units) * UNIT as u64;
        total.saturating_sub(self.pools.values().map(|p| p.quota).sum())
    }
}

/// Bits of a version that count; the others name the target that gave it out.
pub(crate) const VERSION_BITS: u32 = 48;

/// The counting part of a version.
pub(crate) fn version_number(version: u64) -> u64 {
    version & ((1 << VERSION_BITS) - 1)
}
