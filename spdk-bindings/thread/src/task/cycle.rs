//! The cycle: the tasks that were ready when it began, run over as many turns as it takes.
//!
//! DAOS freezes the ULT count of a cycle and polls the network after 32 ULTs and the device after 64 in the middle of it
//! (`src/engine/sched.c`, `SCHED_AGE_NET_MAX`, `SCHED_AGE_NVME_MAX`). Here a turn ends after a batch: mailbox, pollers and,
//! on a shared core, the other threads come round in between, and no task overtakes another.

use std::cell::Cell;

/// Totals over the cycles that have ended and had at least one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CycleStats {
    /// Cycles.
    pub cycles: u64,
    /// Their tasks.
    pub tasks: u64,
    /// Nanoseconds from the beginning of each to its end.
    pub ns: u64,
    /// The longest, nanoseconds.
    pub longest_ns: u64,
    /// Tasks of the largest.
    pub largest: u32,
}

pub(crate) struct Cycle {
    batch: usize,
    /// Tasks that are still to be polled in it.
    left: Cell<usize>,
    /// Tasks that it began with; 0: none is open.
    size: Cell<usize>,
    began: Cell<u64>,
    stats: Cell<CycleStats>,
}

impl Cycle {
    pub(crate) fn new(batch: usize) -> Cycle {
        Cycle {
            batch: batch.max(1),
            left: Cell::new(0),
            size: Cell::new(0),
            began: Cell::new(0),
            stats: Cell::new(CycleStats::default()),
        }
    }

    /// How many tasks this turn polls; begins a cycle of all that are `ready` if none is under way.
    #[inline]
    pub(crate) fn take(&self, now: u64, ready: impl FnOnce() -> usize) -> usize {
        let mut left = self.left.get();
        if left == 0 {
            if self.size.get() != 0 {
                self.end(now);
            }
            left = ready();
            self.size.set(left);
            self.began.set(now);
        }
        let now = left.min(self.batch);
        self.left.set(left - now);
        now
    }

    #[inline]
    fn end(&self, now: u64) {
        let (ns, size) = (now.saturating_sub(self.began.get()), self.size.get());
        let mut stats = self.stats.get();
        stats.cycles += 1;
        stats.tasks += size as u64;
        stats.ns += ns;
        stats.longest_ns = stats.longest_ns.max(ns);
        stats.largest = stats.largest.max(u32::try_from(size).unwrap_or(u32::MAX));
        self.stats.set(stats);
    }

    /// Whether the next task phase begins a cycle.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.left.get() == 0
    }

    pub(crate) fn stats(&self) -> CycleStats {
        self.stats.get()
    }
}
