//! One class of one pool: first come first served, and resent requests merged in by their id.

use crate::slab::{NONE, Place, Slab};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A list through the entries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fifo {
    head: u32,
    tail: u32,
    len: u32,
}

impl Fifo {
    pub(crate) const EMPTY: Fifo = Fifo {
        head: NONE,
        tail: NONE,
        len: 0,
    };

    pub(crate) fn push(&mut self, slab: &mut Slab, index: u32) {
        let entry = &mut slab[index];
        (entry.prev, entry.next) = (self.tail, NONE);
        match self.tail {
            NONE => self.head = index,
            tail => slab[tail].next = index,
        }
        self.tail = index;
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, slab: &mut Slab, index: u32) {
        let (prev, next) = (slab[index].prev, slab[index].next);
        match prev {
            NONE => self.head = next,
            prev => slab[prev].next = next,
        }
        match next {
            NONE => self.tail = prev,
            next => slab[next].prev = prev,
        }
        self.len -= 1;
    }

    pub(crate) fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }
}

#[derive(Debug)]
pub(crate) struct ClassQueue {
    fifo: Fifo,
    /// By id; entries that left by another way (deadline, cancelled) stay until they are met or cleaned out.
    resent: BinaryHeap<Reverse<(u64, u32)>>,
    resent_len: u32,
}

impl ClassQueue {
    pub(crate) fn new() -> ClassQueue {
        ClassQueue {
            fifo: Fifo::EMPTY,
            resent: BinaryHeap::new(),
            resent_len: 0,
        }
    }

    pub(crate) fn len(&self) -> u32 {
        self.fifo.len + self.resent_len
    }

    pub(crate) fn push(&mut self, slab: &mut Slab, index: u32, resent: bool) {
        if !resent {
            slab[index].place = Place::Fifo;
            return self.fifo.push(slab, index);
        }
        slab[index].place = Place::Resent;
        self.resent.push(Reverse((slab[index].id, index)));
        self.resent_len += 1;
    }

    /// The one with the lowest id.
    pub(crate) fn first(&mut self, slab: &Slab) -> Option<u32> {
        let fifo = self.fifo.first();
        if self.resent.is_empty() {
            return fifo;
        }
        while let Some(&Reverse((id, index))) = self.resent.peek() {
            if !is_live(slab, id, index) {
                self.resent.pop();
                continue;
            }
            return match fifo {
                Some(other) if slab[other].id < id => Some(other),
                _ => Some(index),
            };
        }
        fifo
    }

    /// Takes out an entry that is in here.
    pub(crate) fn remove(&mut self, slab: &mut Slab, index: u32) {
        match slab[index].place {
            Place::Fifo => self.fifo.remove(slab, index),
            Place::Resent => {
                self.resent_len -= 1;
                slab[index].place = Place::Free;
                if self.resent.len() > 64 + 2 * self.resent_len as usize {
                    self.resent
                        .retain(|&Reverse((id, index))| is_live(slab, id, index));
                }
            }
            Place::Free | Place::Urgent => {}
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.resent.capacity() * size_of::<(u64, u32)>()
    }

    /// For the record's next pool.
    pub(crate) fn reset(&mut self) {
        self.resent.clear();
    }
}

fn is_live(slab: &Slab, id: u64, index: u32) -> bool {
    let entry = &slab[index];
    entry.place == Place::Resent && entry.id == id
}
