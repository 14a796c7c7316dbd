//! Records of pools: made when one is first heard of, reused when unused.

use crate::PoolId;
use crate::attr::CLASSES;
use crate::pressure::Pressure;
use crate::queue::ClassQueue;
use crate::ring::Link;
use crate::slab::NONE;
use crate::window::Window;
use std::collections::HashMap;

/// The record that pools share which came when all others were in use.
pub(crate) const SHARED: u32 = 0;

#[derive(Debug)]
pub(crate) struct Pool {
    pub id: PoolId,
    pub queues: [ClassQueue; CLASSES],
    pub window: Window,
    pub pressure: Pressure,
    /// Places in the rings of client requests and of background work.
    pub links: [Link; 2],
    /// Limits and what was kicked of them, in the cycle that they are of.
    pub limits: [u32; CLASSES],
    pub spent: [u32; CLASSES],
    pub limits_of: u64,
    /// Weights that background work of a pool with space may still have, all classes together.
    pub background_left: u32,
    /// Its last report told of pressure.
    pub told_pressure: bool,
    /// Background kicks; 0 lets scrub through.
    pub generation: u8,
    /// ULTs that have said that they work for this pool, and those of them that sleep.
    pub attached: [u32; CLASSES],
    pub asleep: [u32; CLASSES],
    /// The pool does not exist any more.
    pub gone: bool,
    pub queued: u32,
    /// Neighbours among the unused, oldest first.
    unused: Option<(u32, u32)>,
}

impl Pool {
    fn new(id: PoolId) -> Pool {
        Pool {
            id,
            queues: std::array::from_fn(|_| ClassQueue::new()),
            window: Window::new(),
            pressure: Pressure::default(),
            links: [Link::OUT; 2],
            limits: [0; CLASSES],
            spent: [0; CLASSES],
            limits_of: 0,
            background_left: 0,
            told_pressure: false,
            generation: 1,
            attached: [0; CLASSES],
            asleep: [0; CLASSES],
            gone: false,
            queued: 0,
            unused: None,
        }
    }

    /// For another pool; the memory of its queues stays.
    fn reset(&mut self, id: PoolId) {
        let mut queues =
            std::mem::replace(&mut self.queues, std::array::from_fn(|_| ClassQueue::new()));
        queues.iter_mut().for_each(ClassQueue::reset);
        *self = Pool {
            queues,
            ..Pool::new(id)
        };
    }

    fn is_used(&self) -> bool {
        self.queued > 0 || self.attached.iter().any(|&count| count > 0)
    }

    /// Whether every ULT that collects garbage sleeps, or there is none.
    pub(crate) fn gc_asleep(&self, queued: u32) -> bool {
        let gc = crate::Class::Gc.at();
        queued == 0 && self.attached[gc] == self.asleep[gc]
    }
}

#[derive(Debug)]
pub(crate) struct Pools {
    pub(crate) all: Vec<Pool>,
    by_id: HashMap<PoolId, u32>,
    free: Vec<u32>,
    oldest: u32,
    youngest: u32,
    max: u32,
    last: (PoolId, u32),
    /// Pools whose last report told of pressure.
    pub(crate) pressed: u32,
}

impl Pools {
    pub(crate) fn new(max: u32) -> Pools {
        Pools {
            all: vec![Pool::new(PoolId::default())],
            by_id: HashMap::new(),
            free: Vec::new(),
            oldest: NONE,
            youngest: NONE,
            max: max.max(1),
            last: (PoolId::default(), SHARED),
            pressed: 0,
        }
    }

    /// How many pools have a record of their own.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn find(&self, id: PoolId) -> Option<u32> {
        if id == self.last.0 {
            return Some(self.last.1);
        }
        if id == PoolId::default() {
            return Some(SHARED);
        }
        self.by_id.get(&id).copied()
    }

    /// The pool's record: its own, a new one, that of the pool that has been unused for longest, or the shared one.
    pub(crate) fn get(&mut self, id: PoolId) -> u32 {
        if let Some(index) = self.find(id) {
            self.last = (id, index);
            return index;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None if (self.all.len() as u32) <= self.max => {
                self.all.push(Pool::new(id));
                self.all.len() as u32 - 1
            }
            None if self.oldest != NONE => {
                let index = self.oldest;
                self.release(index);
                self.free.pop().unwrap_or(SHARED)
            }
            None => return SHARED,
        };
        self.pressed -= u32::from(self.all[index as usize].told_pressure);
        self.all[index as usize].reset(id);
        self.by_id.insert(id, index);
        self.last = (id, index);
        self.set_unused(index, true);
        index
    }

    /// To be called after what makes a record used or unused has changed.
    pub(crate) fn note_use(&mut self, index: u32) {
        if index == SHARED {
            return;
        }
        let pool = &self.all[index as usize];
        let (used, gone) = (pool.is_used(), pool.gone);
        if used == pool.unused.is_some() {
            self.set_unused(index, !used);
        }
        if !used && gone {
            self.release(index);
        }
    }

    fn set_unused(&mut self, index: u32, unused: bool) {
        if unused {
            let prev = self.youngest;
            self.all[index as usize].unused = Some((prev, NONE));
            match prev {
                NONE => self.oldest = index,
                prev => self.relink(prev, |links| links.1 = index),
            }
            self.youngest = index;
            return;
        }
        let Some((prev, next)) = self.all[index as usize].unused.take() else {
            return;
        };
        match prev {
            NONE => self.oldest = next,
            prev => self.relink(prev, |links| links.1 = next),
        }
        match next {
            NONE => self.youngest = prev,
            next => self.relink(next, |links| links.0 = prev),
        }
    }

    fn relink(&mut self, index: u32, change: impl Fn(&mut (u32, u32))) {
        if let Some(links) = &mut self.all[index as usize].unused {
            change(links);
        }
    }

    /// Forgets an unused pool. The record that was asked for last may be it.
    fn release(&mut self, index: u32) {
        self.set_unused(index, false);
        let id = self.all[index as usize].id;
        self.by_id.remove(&id);
        if self.last.1 == index {
            self.last = (PoolId::default(), SHARED);
        }
        self.free.push(index);
    }

    pub(crate) fn bytes(&self) -> usize {
        let queues = self.all.iter().flat_map(|pool| &pool.queues);
        self.all.capacity() * size_of::<Pool>() + queues.map(ClassQueue::bytes).sum::<usize>()
    }
}
