//! Reading: head records, data, names.

use std::ops::Bound::{Excluded, Included, Unbounded};
use std::rc::Rc;

use uuid::Uuid;

use crate::device::{BlockDev, Buf, Run, UNIT};
use crate::error::{DataDamage, StoreError};
use crate::put::CSUM_CHUNK;
use crate::put::retire;
use crate::record::{Head, Op, Piece};
use crate::store::{Inner, Store};

/// An object as its head record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Which upload of the name this is.
    pub version: u64,
    /// ns since 1970.
    pub modified: u64,
    /// Pieces; more than one are spread over targets.
    pub pieces: u32,
}

impl ObjectInfo {
    fn of(name: &str, head: &Head) -> Self {
        let Head {
            version,
            size,
            modified,
            pieces,
        } = *head;
        Self {
            name: name.to_owned(),
            size,
            version,
            modified,
            pieces,
        }
    }
}

/// Verified data of a piece: `len` bytes at the start of `buf`, which begin `offset` bytes into the piece and cover whole
/// checksum chunks.
pub struct PieceData<B> {
    /// Holds the data.
    pub buf: B,
    /// How much of it is data.
    pub len: usize,
    /// Where in the piece it begins.
    pub offset: u32,
    /// Checksums of its chunks, as the writer computed them.
    pub csums: Vec<u32>,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In order of the names' bytes.
    pub objects: Vec<ObjectInfo>,
    /// There are more behind the last one.
    pub more: bool,
}

/// Most bytes of names in one page.
const PAGE_BYTES: usize = 128 << 10;
/// Most entries in one page.
const PAGE_MAX: usize = 1000;

impl<D: BlockDev> Inner<D> {
    /// Reads the chunks of a piece that cover `offset..offset + len` and verifies them. `whose` names them when they are
    /// damaged.
    pub(crate) async fn read_piece(
        &self,
        piece: Rc<Piece>,
        (offset, len): (u32, u32),
        whose: impl Fn(u32, u64) -> DataDamage,
    ) -> Result<PieceData<D::Buf>, StoreError> {
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= piece.len && len > 0);
        let Some(end) = end else {
            let have = piece.len;
            let what = format!("{len} bytes at {offset} of a piece that has {have}");
            return Err(StoreError::Invalid { what });
        };
        let first = offset as usize / CSUM_CHUNK;
        let start = first * CSUM_CHUNK;
        let end = (end as usize)
            .next_multiple_of(CSUM_CHUNK)
            .min(piece.len as usize);
        let runs = slice_runs(&piece, (start / UNIT) as u32, end.div_ceil(UNIT) as u32);
        let runs: Vec<Run> = runs
            .map(|r| Run {
                unit: r.unit + self.sb.data_start(),
                ..r
            })
            .collect();
        let units = runs.iter().map(|r| r.units).sum();
        let buf = self.media.read(&runs, self.media.alloc(units)?).await?;
        let chunks = buf.as_slice()[..end - start].chunks(CSUM_CHUNK);
        for (i, (bytes, csum)) in chunks.zip(&piece.csums[first..]).enumerate() {
            if crc32c::crc32c(bytes) != *csum {
                self.csum_errors.set(self.csum_errors.get() + 1);
                let at = nth_unit(&runs, i * CSUM_CHUNK / UNIT);
                return Err(StoreError::Csum(Box::new(whose((first + i) as u32, at))));
            }
        }
        let count = (end - start).div_ceil(CSUM_CHUNK);
        let csums = piece.csums[first..first + count].to_vec();
        Ok(PieceData {
            buf,
            len: end - start,
            offset: start as u32,
            csums,
        })
    }
}

/// Units `from..to` of a piece, as runs of the data region.
fn slice_runs(piece: &Piece, from: u32, to: u32) -> impl Iterator<Item = Run> + '_ {
    let mut at = 0;
    piece.extents.iter().filter_map(move |e| {
        let (start, end) = (at, at + e.units);
        at = end;
        let (lo, hi) = (from.max(start), to.min(end));
        (lo < hi).then(|| Run {
            unit: e.start + u64::from(lo - start),
            units: hi - lo,
        })
    })
}

/// Device unit of the `n`-th unit of some runs.
fn nth_unit(runs: &[Run], mut n: usize) -> u64 {
    for run in runs {
        if n < run.units as usize {
            return run.unit + n as u64;
        }
        n -= run.units as usize;
    }
    0
}

impl<D: BlockDev> Store<D> {
    /// Head target: the object's head record.
    ///
    /// # Errors
    /// No container, no object.
    pub fn stat(&self, cont: &Uuid, name: &str) -> Result<ObjectInfo, StoreError> {
        let id = self.0.cont_id(cont)?;
        let index = self.0.index.borrow();
        let head = index.conts.get(&id).and_then(|c| c.heads.get(name));
        let none = || StoreError::NoObject {
            name: name.to_owned(),
        };
        head.map(|head| ObjectInfo::of(name, head)).ok_or_else(none)
    }

    /// A piece's bytes `offset..offset + len`, widened to whole checksum chunks, verified. `name` is for messages.
    ///
    /// # Errors
    /// [`StoreError::Csum`] when damaged (others stay readable), [`StoreError::Stale`] when the version is gone, a range
    /// outside the piece, or the device fails.
    pub async fn get_piece(
        &self,
        cont: &Uuid,
        name: &str,
        (version, piece): (u64, u32),
        range: (u32, u32),
    ) -> Result<PieceData<D::Buf>, StoreError> {
        let id = self.0.cont_id(cont)?;
        let (found, pool) = {
            let index = self.0.index.borrow();
            let c = &index.conts[&id];
            (c.pieces.get(&(version, piece)).cloned(), c.pool)
        };
        let found = found.ok_or_else(|| StoreError::Stale {
            name: name.to_owned(),
            version,
        })?;
        let whose = |chunk, unit| {
            let object = name.to_owned();
            DataDamage {
                pool,
                cont: *cont,
                object,
                version,
                piece,
                chunk,
                unit,
            }
        };
        let result = self.0.read_piece(found, range, whose).await;
        self.0.index.borrow_mut().sweep();
        result
    }

    /// Head target: removes an object. Its pieces become a reclaim, or are dropped if they are only here.
    ///
    /// # Errors
    /// No container, no object, read-only.
    pub async fn remove(&self, cont: &Uuid, name: &str) -> Result<(), StoreError> {
        let id = self.0.cont_id(cont)?;
        let _key = self.0.keys.lock(id, name).await;
        let old = self
            .0
            .index
            .borrow()
            .conts
            .get(&id)
            .and_then(|c| c.heads.get(name))
            .copied();
        let old = old.ok_or_else(|| StoreError::NoObject {
            name: name.to_owned(),
        })?;
        let gone = Op::HeadDel {
            cont: id,
            name: name.into(),
        };
        self.0.log.commit(vec![gone, retire(id, &old)]).await
    }

    /// Names whose heads are here, after `after` (empty: from the start), that begin with `prefix`. At most `limit`, and
    /// no more than a page takes.
    ///
    /// # Errors
    /// No container.
    pub fn list(
        &self,
        cont: &Uuid,
        after: &str,
        prefix: &str,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let id = self.0.cont_id(cont)?;
        let index = self.0.index.borrow();
        let mut page = Page {
            objects: Vec::new(),
            more: false,
        };
        let Some(c) = index.conts.get(&id) else {
            return Ok(page);
        };
        let limit = if limit == 0 {
            PAGE_MAX
        } else {
            limit.min(PAGE_MAX)
        };
        let from = if after >= prefix && !after.is_empty() {
            Excluded(after)
        } else {
            Included(prefix)
        };
        let mut bytes = 0;
        for (name, head) in c.heads.range::<str, _>((from, Unbounded)) {
            if !name.starts_with(prefix) {
                break;
            }
            if page.objects.len() == limit || bytes > PAGE_BYTES {
                page.more = true;
                break;
            }
            bytes += name.len();
            page.objects.push(ObjectInfo::of(name, head));
        }
        Ok(page)
    }
}
