//! What others may know of a thread at any time, also while something on it does not return.

use spdk_ring::{Marker, Unit};
use std::sync::atomic::{AtomicU64, Ordering};

/// Written by the thread with relaxed stores, one for each unit and two for each turn; read by the watchdog.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    turns: AtomicU64,
    pub(crate) unit: Marker,
}

impl Pulse {
    /// One more turn has ended. Owner only: no read-modify-write.
    #[inline]
    pub(crate) fn end_turn(&self) {
        self.unit.clear();
        self.turns.store(self.turns() + 1, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    pub(crate) fn read(&self) -> PulseReading {
        // In this order: a unit that is read with a count of turns began in that turn or later.
        let turns = self.turns();
        PulseReading {
            turns,
            unit: self.unit.get(),
        }
    }
}

/// How far a thread has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PulseReading {
    /// Turns that it has ended.
    pub turns: u64,
    /// What runs now: the same unit with the same turns means that it has not returned in between. None: nothing.
    pub unit: Option<Unit>,
}
