//! What a reactor did with its time.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// A depth of rest, from the shallowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Depth {
    /// Turns that found nothing, one after the other.
    Poll = 0,
    /// A processor pause between turns.
    Pause = 1,
    /// A sleep cut short by the latency goal, because something had to be polled.
    Nap = 2,
    /// A sleep until a wake-up or a deadline.
    Sleep = 3,
}

impl Depth {
    /// All, from the shallowest.
    pub const ALL: [Depth; 4] = [Depth::Poll, Depth::Pause, Depth::Nap, Depth::Sleep];

    /// As metrics call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Depth::Poll => "poll",
            Depth::Pause => "pause",
            Depth::Nap => "nap",
            Depth::Sleep => "sleep",
        }
    }
}

/// How often and how long a reactor rested at one depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Residency {
    /// Times.
    pub count: u64,
    /// Nanoseconds.
    pub ns: u64,
}

/// Totals since the reactor started. Published every 20 us or so while it is awake, and before each sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReactorStats {
    /// Turns.
    pub turns: u64,
    /// Nanoseconds of turns that did something.
    pub busy_ns: u64,
    /// By [`Depth`].
    pub rest: [Residency; 4],
    /// Sleeps that a message or another core's wake-up ended.
    pub doorbells: u64,
    /// Events of watched descriptors.
    pub fd_events: u64,
    /// Times that sleeping was given up for a while, because wake-ups missed the goal.
    pub holds: u64,
}

impl ReactorStats {
    /// How it rested at one depth.
    #[must_use]
    pub fn at(&self, depth: Depth) -> Residency {
        self.rest[depth as usize]
    }

    /// Nanoseconds in which it had nothing to do, awake or asleep.
    #[must_use]
    pub fn idle_ns(&self) -> u64 {
        self.rest.iter().map(|rest| rest.ns).sum()
    }

    fn to_words(self) -> [u64; WORDS] {
        let [poll, pause, nap, sleep] = self.rest;
        [
            self.turns,
            self.busy_ns,
            poll.count,
            poll.ns,
            pause.count,
            pause.ns,
            nap.count,
            nap.ns,
            sleep.count,
            sleep.ns,
            self.doorbells,
            self.fd_events,
            self.holds,
        ]
    }

    fn from_words(words: [u64; WORDS]) -> ReactorStats {
        let rest = |place: usize| Residency {
            count: words[place],
            ns: words[place + 1],
        };
        ReactorStats {
            turns: words[0],
            busy_ns: words[1],
            rest: [rest(2), rest(4), rest(6), rest(8)],
            doorbells: words[10],
            fd_events: words[11],
            holds: words[12],
        }
    }
}

const WORDS: usize = 13;

/// The published copy: written by the reactor with plain stores, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Published([AtomicU64; WORDS]);

impl Published {
    pub(crate) fn store(&self, stats: &ReactorStats) {
        for (cell, value) in self.0.iter().zip(stats.to_words()) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn load(&self) -> ReactorStats {
        ReactorStats::from_words(std::array::from_fn(|i| self.0[i].load(Ordering::Relaxed)))
    }
}

/// The reactor's own copy, a cell for each: a turn touches those that it counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) turns: Cell<u64>,
    pub(crate) busy_ns: Cell<u64>,
    rest_count: [Cell<u64>; 4],
    rest_ns: [Cell<u64>; 4],
    pub(crate) doorbells: Cell<u64>,
    pub(crate) fd_events: Cell<u64>,
    pub(crate) holds: Cell<u64>,
}

impl Counters {
    /// A rest at this depth has begun.
    #[inline]
    pub(crate) fn rested(&self, depth: Depth) {
        add(&self.rest_count[depth as usize], 1);
    }

    /// Time of rests at this depth.
    #[inline]
    pub(crate) fn rested_for(&self, depth: Depth, ns: u64) {
        add(&self.rest_ns[depth as usize], ns);
    }

    pub(crate) fn get(&self) -> ReactorStats {
        ReactorStats {
            turns: self.turns.get(),
            busy_ns: self.busy_ns.get(),
            rest: std::array::from_fn(|depth| Residency {
                count: self.rest_count[depth].get(),
                ns: self.rest_ns[depth].get(),
            }),
            doorbells: self.doorbells.get(),
            fd_events: self.fd_events.get(),
            holds: self.holds.get(),
        }
    }
}

/// Adds to a cell of the owner's.
#[inline]
pub(crate) fn add(cell: &Cell<u64>, value: u64) {
    cell.set(cell.get() + value);
}

#[cfg(test)]
mod tests {
    use super::{Published, ReactorStats, Residency, WORDS};

    #[test]
    fn what_is_published_comes_out_in_its_place() {
        let words: [u64; WORDS] = std::array::from_fn(|i| i as u64 + 1);
        let stats = ReactorStats::from_words(words);
        let published = Published::default();
        published.store(&stats);
        assert_eq!(published.load(), stats);
        assert_eq!(stats.to_words(), words);
        let nap = Residency { count: 7, ns: 8 };
        assert_eq!(stats.rest[2], nap);
        assert_eq!(stats.idle_ns(), 4 + 6 + 8 + 10);
    }
}
