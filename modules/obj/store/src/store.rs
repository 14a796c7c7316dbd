//! The store: opening, closing, and what it holds.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use uuid::Uuid;

use crate::device::{BlockDev, Media, UNIT};
use crate::error::{NoSpace, StoreError};
use crate::extent::{Allocator, Extent};
use crate::flush::Flusher;
use crate::format::{self, FormatOptions, OpenOptions};
use crate::index::{Index, VERSION_BITS};
use crate::log::Log;
use crate::replay;
use crate::superblock::Superblock;
use crate::sync::{KeyLocks, Mutex};

/// A background task of a store. The host spawns it on the store's xstream and must not abort it: it ends by itself
/// after [`Store::close`].
pub type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

/// One target's store. Clones share it. `!Send`: own xstream only.
pub struct Store<D: BlockDev>(pub(crate) Rc<Inner<D>>);

impl<D: BlockDev> Clone for Store<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

pub(crate) struct Inner<D: BlockDev> {
    pub(crate) media: Media<D>,
    pub(crate) sb: Superblock,
    pub(crate) index: RefCell<Index>,
    pub(crate) flusher: Flusher,
    pub(crate) log: Log,
    /// Buffers for a frame of the log and of a checkpoint, taken at open: neither may fail for want of memory.
    pub(crate) log_buf: RefCell<Option<D::Buf>>,
    pub(crate) checkpoint_buf: RefCell<Option<D::Buf>>,
    pub(crate) keys: KeyLocks,
    /// One change of pools and containers at a time.
    pub(crate) meta: Mutex,
    /// Versions that take pieces: (container, version).
    pub(crate) open: RefCell<HashSet<(u32, u64)>>,
    /// Bytes of records that are allowed in but not applied yet.
    pub(crate) coming: Rc<Cell<u64>>,
    pub(crate) checkpoints: Cell<u64>,
    pub(crate) csum_errors: Cell<u64>,
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// Whose store it is.
    pub superblock: Superblock,
    /// The superblock copy (0 or 1) that was unreadable and has been written again from the other.
    pub repaired_copy: Option<u8>,
    /// Pools, containers, objects whose head is here.
    pub counts: (usize, usize, usize),
    /// Versions whose pieces are to go: uploads that never committed, and replaced or removed objects.
    pub reclaims: usize,
}

/// Space of the data region, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// Held by no object and no request in flight.
    pub free: u64,
    /// Not promised to a pool.
    pub unpromised: u64,
    /// Bytes of metadata (names, extents, checksums) in use.
    pub meta_used: u64,
    /// Most metadata that is allowed.
    pub meta_limit: u64,
}

/// What the store did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests whose records became durable.
    pub commits: u64,
    /// Log frames written for them.
    pub frames: u64,
    /// Flushes of the device.
    pub flushes: u64,
    /// Checkpoints completed.
    pub checkpoints: u64,
    /// Reads and scrubs that found damage.
    pub csum_errors: u64,
}

impl<D: BlockDev> Store<D> {
    /// Makes an empty store on a device that is empty, or on any when forced. Interrupted at any point it leaves the
    /// device empty, never half a store.
    ///
    /// # Errors
    /// The device is too small, not empty, or fails.
    pub async fn format(dev: D, options: &FormatOptions) -> Result<Superblock, StoreError> {
        format::format(&Media::new(dev)?, options).await
    }

    /// Opens the store on a device: the log is replayed, the index rebuilt. The returned tasks must be spawned on this
    /// xstream before the first change.
    ///
    /// # Errors
    /// Not formatted, foreign, newer, another engine's or target's, damaged, or the device fails. Nothing is changed
    /// then.
    pub async fn open(
        dev: D,
        options: &OpenOptions,
    ) -> Result<(Self, OpenReport, [TaskFuture; 2]), StoreError> {
        let media = Media::new(dev)?;
        let (sb, repair) = format::find(&media).await?;
        check_owner(&sb, options)?;
        let (index, tail) = replay::replay(&media, &sb).await?;
        if let Some(unit) = repair {
            format::write_unit(&media, unit, &sb.encode()).await?;
        }
        // What was replayed may be in the device's cache only: new records must not outlive it.
        media.flush().await?;
        let sum = |f: fn(&crate::index::Container) -> usize| index.conts.values().map(f).sum();
        let heads: usize = sum(|c| c.heads.len());
        let report = OpenReport {
            superblock: sb.clone(),
            repaired_copy: repair.map(|unit| u8::from(unit != 0)),
            counts: (index.pools.len(), index.conts.len(), heads),
            reclaims: sum(|c| c.reclaims.len()),
        };
        let inner = Rc::new(Inner {
            media,
            sb,
            index: RefCell::new(index),
            flusher: Flusher::default(),
            log: Log::new(tail),
            log_buf: RefCell::default(),
            checkpoint_buf: RefCell::default(),
            keys: KeyLocks::default(),
            meta: Mutex::default(),
            open: RefCell::default(),
            coming: Rc::default(),
            checkpoints: Cell::new(0),
            csum_errors: Cell::new(0),
        });
        for spare in [&inner.log_buf, &inner.checkpoint_buf] {
            let units = crate::frame::units_for(inner.records_max());
            *spare.borrow_mut() = Some(inner.media.alloc(units)?);
        }
        let log = inner.clone();
        let tasks: [TaskFuture; 2] = [
            Box::pin(async move { log.run_log().await }),
            Box::pin(inner.clone().run_checkpoints()),
        ];
        Ok((Self(inner), report, tasks))
    }

    /// Refuses new changes, waits for those in the log and for a checkpoint under way, and ends the store's tasks. Reads
    /// may go on.
    pub async fn close(&self) {
        let log = &self.0.log;
        log.close();
        log.changed.wait(|| log.quiet.get().then_some(())).await;
    }

    /// Whose store this is.
    pub fn superblock(&self) -> &Superblock {
        &self.0.sb
    }

    /// Why no change is accepted any more, if so.
    pub fn read_only(&self) -> Option<StoreError> {
        self.0.log.failure()
    }

    /// Space of the data region.
    pub fn space(&self) -> Space {
        let index = self.0.index.borrow();
        let units = |f: fn(&Allocator) -> u64| index.alloc.as_ref().map_or(0, f) * UNIT as u64;
        Space {
            total: units(Allocator::total_units),
            free: units(Allocator::free_units),
            unpromised: index.unpromised(),
            meta_used: index.image_bytes,
            meta_limit: self.0.meta_limit(),
        }
    }

    /// Counters since the open.
    pub fn stats(&self) -> Stats {
        let inner = &self.0;
        Stats {
            commits: inner.log.commits.get(),
            frames: inner.log.frames.get(),
            flushes: inner.flusher.count(),
            checkpoints: inner.checkpoints.get(),
            csum_errors: inner.csum_errors.get(),
        }
    }
}

fn check_owner(sb: &Superblock, options: &OpenOptions) -> Result<(), StoreError> {
    if let Some(expected) = options.engine.filter(|e| *e != sb.engine) {
        return Err(StoreError::OtherEngine {
            found: sb.engine,
            expected,
        });
    }
    match options.target {
        Some((expected, expected_of)) if (expected, expected_of) != (sb.target, sb.targets) => {
            let (found, found_of) = (sb.target, sb.targets);
            Err(StoreError::OtherTarget {
                found,
                found_of,
                expected,
                expected_of,
            })
        }
        _ => Ok(()),
    }
}

/// Blocks and metadata set aside for a put until its record is applied.
pub(crate) struct Reserved {
    pub(crate) cont: u32,
    pub(crate) extents: Vec<Extent>,
    pub(crate) pool_used: Rc<Cell<u64>>,
    _coming: Coming,
}

/// Metadata on its way in. Counts until dropped.
struct Coming(Rc<Cell<u64>>, u64);

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.set(self.0.get() - self.1);
    }
}

impl<D: BlockDev> Inner<D> {
    /// Most bytes of metadata: an image of them, what was carried over and new records must fit a half together.
    pub(crate) fn meta_limit(&self) -> u64 {
        self.sb.half_units * UNIT as u64 / 8 * 3
    }

    pub(crate) fn cont_id(&self, cont: &Uuid) -> Result<u32, StoreError> {
        let index = self.index.borrow();
        index
            .cont_ids
            .get(cont)
            .copied()
            .ok_or(StoreError::NoContainer(*cont))
    }

    /// Sets `units` blocks and `meta` bytes of records aside for a container.
    pub(crate) fn reserve(
        &self,
        cont: &Uuid,
        units: u32,
        meta: u64,
    ) -> Result<Reserved, StoreError> {
        if let Some(error) = self.log.failure() {
            return Err(error);
        }
        let id = self.cont_id(cont)?;
        let mut index = self.index.borrow_mut();
        index.sweep();
        let (used, limit) = (index.image_bytes + self.coming.get(), self.meta_limit());
        if used + meta > limit {
            return Err(NoSpace::Metadata { used, limit }.into());
        }
        let c = &index.conts[&id];
        let (pool, pool_used) = (c.pool, c.used.clone());
        let quota = index.pools.get(&pool).map_or(0, |p| p.quota);
        let needed = u64::from(units) * UNIT as u64;
        let left = quota.saturating_sub(pool_used.get() * UNIT as u64);
        if needed > left {
            return Err(NoSpace::Quota { pool, needed, left }.into());
        }
        let alloc = index.alloc.as_mut();
        let left = alloc.as_ref().map_or(0, |a| a.free_units()) * UNIT as u64;
        let extents = alloc
            .and_then(|a| a.alloc(units))
            .ok_or(NoSpace::Data { needed, left })?;
        pool_used.set(pool_used.get() + u64::from(units));
        self.coming.set(self.coming.get() + meta);
        let _coming = Coming(self.coming.clone(), meta);
        Ok(Reserved {
            cont: id,
            extents,
            pool_used,
            _coming,
        })
    }

    /// Gives back what a put that failed had set aside. After a failed log nothing is given back: the record may be
    /// there at the next open.
    pub(crate) fn unreserve(&self, extents: &[Extent], pool_used: &Cell<u64>) {
        if self.log.failure().is_some() {
            return;
        }
        let units: u64 = extents.iter().map(|e| u64::from(e.units)).sum();
        pool_used.set(pool_used.get() - units);
        self.index.borrow_mut().release(extents);
    }

    /// A version that no object ever had.
    pub(crate) fn new_version(&self) -> u64 {
        let mut index = self.index.borrow_mut();
        let number = index.next_version;
        index.next_version += 1;
        u64::from(self.sb.target) << VERSION_BITS | number
    }
}
