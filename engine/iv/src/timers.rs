//! What is due when. Timers are never taken back: one that fires for something that is gone does nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::operation::OpId;
use crate::options::Nanos;
use crate::{Key, NsId};

/// What is looked at when its time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// An operation may have to end.
    Deadline(OpId),
    /// An operation's pause is over, or its peer has been silent for long.
    Again(OpId, u32),
    /// A fetch from the parent has been silent for long.
    Miss(NsId, Key, u64),
    /// A change of another rank went up and no answer came down.
    Passing(NsId, u64),
    /// Children have been silent for long.
    Spread(NsId, u64),
}

#[derive(Debug, Default)]
pub(crate) struct Timers(BinaryHeap<Reverse<(Nanos, Timer)>>);

impl Timers {
    pub(crate) fn at(&mut self, when: Nanos, timer: Timer) {
        self.0.push(Reverse((when, timer)));
    }

    pub(crate) fn next(&self) -> Option<Nanos> {
        self.0.peek().map(|Reverse((when, _))| *when)
    }

    pub(crate) fn pop_due(&mut self, now: Nanos) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((_, timer))| timer)
    }
}
