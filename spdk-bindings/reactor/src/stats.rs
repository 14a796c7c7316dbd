//! What a reactor did with its time.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Totals since the reactor started. Published every 20 us or so of busy time, and before each sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReactorStats {
    /// Turns.
    pub turns: u64,
    /// Nanoseconds of turns that did something.
    pub busy_ns: u64,
    /// Nanoseconds of turns that found nothing, pauses included.
    pub idle_ns: u64,
    /// Nanoseconds asleep.
    pub asleep_ns: u64,
    /// Processor pauses: the first depth of rest.
    pub pauses: u64,
    /// Sleeps that were cut short by the latency goal, because something had to be polled: the second depth.
    pub naps: u64,
    /// Sleeps until a wake-up or a deadline: the third depth.
    pub sleeps: u64,
    /// Sleeps that a message or another core's wake-up ended.
    pub doorbells: u64,
    /// Events of watched descriptors.
    pub fd_events: u64,
}

/// The published copy: written by the reactor with plain stores, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Published([AtomicU64; 9]);

impl Published {
    pub(crate) fn store(&self, stats: &ReactorStats) {
        let values = [
            stats.turns,
            stats.busy_ns,
            stats.idle_ns,
            stats.asleep_ns,
            stats.pauses,
            stats.naps,
            stats.sleeps,
            stats.doorbells,
            stats.fd_events,
        ];
        for (cell, value) in self.0.iter().zip(values) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn load(&self) -> ReactorStats {
        let [
            turns,
            busy_ns,
            idle_ns,
            asleep_ns,
            pauses,
            naps,
            sleeps,
            doorbells,
            fd_events,
        ] = std::array::from_fn(|i| self.0[i].load(Ordering::Relaxed));
        ReactorStats {
            turns,
            busy_ns,
            idle_ns,
            asleep_ns,
            pauses,
            naps,
            sleeps,
            doorbells,
            fd_events,
        }
    }
}

/// The reactor's own copy.
#[derive(Debug, Default)]
pub(crate) struct Counters(Cell<ReactorStats>);

impl Counters {
    #[inline]
    pub(crate) fn update(&self, change: impl FnOnce(&mut ReactorStats)) {
        let mut stats = self.0.get();
        change(&mut stats);
        self.0.set(stats);
    }

    pub(crate) fn get(&self) -> ReactorStats {
        self.0.get()
    }
}
