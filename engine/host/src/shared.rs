//! Handles that are good on every xstream: ULTs, and what they wait with.
//!
//! As in `handles.rs` a handle is a number: a generation, a shard and an index, with the top bit set, so that it is never
//! one of those. A shard belongs to an xstream, which alone puts objects in; anybody may look one up.

use crate::modules::ModuleEntry;
use crate::sync::{Barrier, Cond, Eventual, Mutex};
use daos_errno::Der;
use engine_xstream::UltRef;
use slab::Slab;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const INDEX_BITS: u32 = 24;
const SHARD_BITS: u32 = 12;
const GENERATIONS: u64 = 1 << 27;
const SHARED: u64 = 1 << 63;

/// More xstreams than this share shards.
const SHARDS: usize = 64;
/// Objects of one shard; beyond, making one answers `DER_NOMEM`.
const OBJECTS_MAX: usize = 1 << 20;

pub(crate) enum Shared {
    Ult(Arc<UltHandle>),
    Eventual(Arc<Eventual>),
    Mutex(Arc<Mutex>),
    Cond(Arc<Cond>),
    Barrier(Arc<Barrier>),
    /// The body of an answer that a module reads.
    Answer(Vec<u8>),
}

/// A ULT of a module.
pub(crate) struct UltHandle {
    pub(crate) address: UltRef,
    /// Set at its end, with its result.
    pub(crate) ended: Arc<Eventual>,
}

impl Shared {
    fn kind(&self) -> &'static str {
        match self {
            Shared::Ult(_) => "ULT handle",
            Shared::Eventual(_) => "eventual",
            Shared::Mutex(_) => "mutex",
            Shared::Cond(_) => "condition",
            Shared::Barrier(_) => "barrier",
            Shared::Answer(_) => "RPC answer",
        }
    }
}

struct Held {
    generation: u64,
    module: &'static ModuleEntry,
    object: Shared,
}

struct Shard {
    next: u64,
    objects: Slab<Held>,
}

static TABLE: [RwLock<Shard>; SHARDS] = [const {
    RwLock::new(Shard {
        next: 1,
        objects: Slab::new(),
    })
}; SHARDS];

fn shard_of(xs_id: i32) -> usize {
    xs_id.unsigned_abs() as usize % SHARDS
}

fn read(shard: usize) -> RwLockReadGuard<'static, Shard> {
    TABLE[shard].read().unwrap_or_else(PoisonError::into_inner) // slab operations only
}

fn write(shard: usize) -> RwLockWriteGuard<'static, Shard> {
    TABLE[shard].write().unwrap_or_else(PoisonError::into_inner)
}

/// A handle for an object, made on an xstream.
///
/// # Errors
/// `DER_NOMEM` at the bound.
pub(crate) fn insert<T>(
    xs_id: i32,
    module: &'static ModuleEntry,
    object: Shared,
) -> Result<*mut T, Der> {
    let place = shard_of(xs_id);
    let mut shard = write(place);
    if shard.objects.len() >= OBJECTS_MAX {
        return Err(Der::NOMEM);
    }
    let generation = shard.next;
    shard.next = generation % (GENERATIONS - 1) + 1;
    let index = shard.objects.insert(Held {
        generation,
        module,
        object,
    });
    let number = SHARED
        | generation << (INDEX_BITS + SHARD_BITS)
        | (place as u64) << INDEX_BITS
        | index as u64;
    Ok(std::ptr::without_provenance_mut(number as usize))
}

/// Whether an object still fits: exact on the xstream itself, which alone puts objects into its shard.
///
/// # Errors
/// `DER_NOMEM` at the bound.
pub(crate) fn room(xs_id: i32) -> Result<(), Der> {
    let full = read(shard_of(xs_id)).objects.len() >= OBJECTS_MAX;
    if full { Err(Der::NOMEM) } else { Ok(()) }
}

/// Looks an object up. `f` answers `None` when it is of another kind; it runs under the shard's lock and calls nobody.
///
/// # Errors
/// `DER_INVAL`: stale, of another kind, or none.
pub(crate) fn get<T, R>(handle: *mut T, f: impl FnOnce(&Shared) -> Option<R>) -> Result<R, Der> {
    let (place, index, generation) = split(handle)?;
    let shard = read(place);
    let held = shard.objects.get(index);
    let held = held.filter(|held| held.generation == generation);
    held.and_then(|held| f(&held.object)).ok_or(Der::INVAL)
}

/// Takes an object for which `wanted` answers `Some(Ok)`; the handle is stale afterwards.
///
/// # Errors
/// As [`get`]; what `wanted` says against it.
pub(crate) fn take<T>(
    handle: *mut T,
    wanted: impl FnOnce(&Shared) -> Option<Result<(), Der>>,
) -> Result<Shared, Der> {
    let (place, index, generation) = split(handle)?;
    let mut shard = write(place);
    match shard.objects.get(index) {
        Some(held) if held.generation == generation => {
            wanted(&held.object).unwrap_or(Err(Der::INVAL))?;
            Ok(shard.objects.remove(index).object)
        }
        _ => Err(Der::INVAL),
    }
}

fn split<T>(handle: *mut T) -> Result<(usize, usize, u64), Der> {
    let number = handle.addr() as u64;
    let place = (number >> INDEX_BITS) as usize & ((1 << SHARD_BITS) - 1);
    if number & SHARED == 0 || place >= SHARDS {
        return Err(Der::INVAL);
    }
    let generation = (number & !SHARED) >> (INDEX_BITS + SHARD_BITS);
    Ok((place, number as usize & ((1 << INDEX_BITS) - 1), generation))
}

/// A module ends: what it forgot goes, named.
pub(crate) fn end(module: &'static ModuleEntry) {
    for place in 0..SHARDS {
        let mut shard = write(place);
        let left: Vec<usize> = shard
            .objects
            .iter()
            .filter(|(_, held)| std::ptr::eq(held.module, module))
            .map(|(index, _)| index)
            .collect();
        let left: Vec<Held> = left
            .into_iter()
            .map(|index| shard.objects.remove(index))
            .collect();
        drop(shard);
        for held in &left {
            tracing::warn!(
                module = module.name,
                what = held.object.kind(),
                "left behind by the module; ended by the engine"
            );
        }
    }
}
