//! Where tasks live, by number, and the lists that run through these places: who is ready, who is free.
//!
//! Slots are made in chunks that never move, and all that changes in them is in cells: a task that runs may use the table,
//! and nothing is moved out of the way for that.

use super::body::Body;
use super::table::TaskState;
use super::waker::{SlotWaker, TaskWaker};
use crate::handle::Shared;
use spdk_ring::{PackedStr, UnitKind, UnitName};
use std::cell::{Cell, OnceCell, RefCell};
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;
/// Slots that are made at once.
const CHUNK: usize = 64;

/// The task is to be ended.
pub(super) const ABORTED: u8 = 1;
/// Nobody will join it.
pub(super) const DETACHED: u8 = 2;
/// Somebody waits for its end.
pub(super) const JOINED: u8 = 4;

const _: () = assert!(size_of::<Slot>() == 128 && size_of::<Cold>() == 64);

/// What every poll touches, a cache line; then what only the beginning, the end and the operators do, the next one.
#[repr(C, align(64))]
pub(super) struct Slot {
    /// Kept when the task has ended, for the next one of its type. Borrowed while the task runs.
    pub(super) body: RefCell<Option<Pin<Box<dyn Body>>>>,
    waker: OnceCell<Waker>,
    pub(super) unit: Cell<UnitName>,
    /// In the list that the slot is in, if any: the ready ones, or free ones.
    next: Cell<u32>,
    pub(super) generation: Cell<u32>,
    pub(super) polls: Cell<u32>,
    /// Of the body.
    pub(super) pool: Cell<u16>,
    /// `None`: the slot is free.
    pub(super) state: Cell<Option<TaskState>>,
    pub(super) flags: Cell<u8>,
    pub(super) cold: Cold,
}

#[repr(align(64))]
pub(super) struct Cold {
    pub(super) joiner: Cell<Option<TaskWaker>>,
    pub(super) name: Cell<PackedStr>,
    pub(super) spawned_at: Cell<u64>,
    pub(super) spawned_by: Cell<&'static Location<'static>>,
    pub(super) waits_for: Cell<PackedStr>,
    /// Which request it works for; 0: none.
    pub(super) trace: Cell<u64>,
}

impl Slot {
    fn new() -> Slot {
        Slot {
            body: RefCell::new(None),
            waker: OnceCell::new(),
            unit: Cell::new(UnitName::new(UnitKind::Task, "")),
            next: Cell::new(NONE),
            generation: Cell::new(0),
            polls: Cell::new(0),
            pool: Cell::new(0),
            state: Cell::new(None),
            flags: Cell::new(0),
            cold: Cold {
                joiner: Cell::new(None),
                name: Cell::new(PackedStr::new("")),
                spawned_at: Cell::new(0),
                spawned_by: Cell::new(Location::caller()),
                waits_for: Cell::new(PackedStr::new("")),
                trace: Cell::new(0),
            },
        }
    }

    /// The slot's standard waker, made at its first use.
    #[inline]
    pub(super) fn waker(&self, shared: &Arc<Shared>, index: u32) -> &Waker {
        self.waker
            .get_or_init(|| SlotWaker::waker(shared.clone(), index))
    }

    #[inline]
    pub(super) fn is(&self, state: TaskState) -> bool {
        self.state.get() == Some(state)
    }

    /// Whether one of these flags is set.
    #[inline]
    pub(super) fn has(&self, flags: u8) -> bool {
        self.flags.get() & flags != 0
    }

    #[inline]
    pub(super) fn flag(&self, flag: u8) {
        self.flags.set(self.flags.get() | flag);
    }

    #[inline]
    pub(super) fn take_joiner(&self) -> Option<TaskWaker> {
        if !self.has(JOINED) {
            return None;
        }
        self.flags.set(self.flags.get() & !JOINED);
        self.cold.joiner.take()
    }
}

type Chunk = Box<[Slot; CHUNK]>;

/// All slots of a thread.
pub(super) struct Slots {
    chunks: Box<[OnceCell<Chunk>]>,
    made: Cell<u32>,
    limit: u32,
}

impl Slots {
    pub(super) fn new(limit: u32) -> Slots {
        let chunks = (limit as usize).div_ceil(CHUNK);
        Slots {
            chunks: (0..chunks).map(|_| OnceCell::new()).collect(),
            made: Cell::new(0),
            limit,
        }
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&Slot> {
        let chunk = self.chunks.get(index as usize / CHUNK)?.get()?;
        Some(&chunk[index as usize % CHUNK])
    }

    /// One that was never used, while the limit is not reached.
    #[cold]
    pub(super) fn make(&self) -> Option<u32> {
        let index = self.made.get();
        if index == self.limit {
            return None;
        }
        self.made.set(index + 1);
        let chunk = self.chunks.get(index as usize / CHUNK)?;
        chunk.get_or_init(|| Box::new(std::array::from_fn(|_| Slot::new())));
        Some(index)
    }

    /// Those that were ever used, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0..self.made.get()).filter_map(|index| Some((index, self.get(index)?)))
    }
}

/// Free slots, the last one first.
#[derive(Debug)]
pub(super) struct Stack(Cell<u32>);

impl Stack {
    pub(super) fn new() -> Stack {
        Stack(Cell::new(NONE))
    }

    #[inline]
    pub(super) fn push(&self, index: u32, slot: &Slot) {
        slot.next.set(self.0.replace(index));
    }

    #[inline]
    pub(super) fn pop<'a>(&self, slots: &'a Slots) -> Option<(u32, &'a Slot)> {
        let index = self.0.get();
        let slot = slots.get(index)?;
        self.0.set(slot.next.get());
        Some((index, slot))
    }
}

/// Ready slots, the first one first.
pub(super) struct Queue {
    head: Cell<u32>,
    tail: Cell<u32>,
    len: Cell<usize>,
}

impl Queue {
    pub(super) fn new() -> Queue {
        Queue {
            head: Cell::new(NONE),
            tail: Cell::new(NONE),
            len: Cell::new(0),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len.get()
    }

    #[inline]
    pub(super) fn push(&self, index: u32, slots: &Slots) {
        self.len.set(self.len.get() + 1);
        match slots.get(self.tail.replace(index)) {
            Some(last) if self.len.get() > 1 => last.next.set(index),
            _ => self.head.set(index),
        }
    }

    #[inline]
    pub(super) fn pop<'a>(&self, slots: &'a Slots) -> Option<(u32, &'a Slot)> {
        let len = self.len.get().checked_sub(1)?;
        let index = self.head.get();
        let slot = slots.get(index)?;
        self.len.set(len);
        self.head.set(slot.next.get());
        Some((index, slot))
    }
}
