//! What is due when. Timers are not taken back: one that fires for something that is gone does nothing, and when most are of that kind they are
//! swept out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::iv::Iv;
use crate::operation::OpId;
use crate::options::Nanos;
use crate::{Key, NsId};

/// Timers that are kept without asking what for.
const FEW: usize = 64;

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
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Nanos, Timer)>>,
    /// With more than so many over `FEW` it is time to sweep: twice what was left the last time.
    most: usize,
}

impl Timers {
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse((when, _))| *when)
    }

    pub(crate) fn pop_due(&mut self, now: Nanos) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, timer))| timer)
    }
}

impl Iv {
    /// Looks at `timer` when its time has come.
    pub(crate) fn at(&mut self, when: Nanos, timer: Timer) {
        self.timers.heap.push(Reverse((when, timer)));
        if self.timers.heap.len() > self.timers.most + FEW {
            self.sweep();
        }
    }

    #[cold]
    fn sweep(&mut self) {
        let mut timers = std::mem::take(&mut self.timers);
        timers.heap.retain(|Reverse((_, timer))| self.waits(timer));
        timers.most = 2 * timers.heap.len();
        self.timers = timers;
    }

    /// Whether what a timer is for is still there.
    fn waits(&self, timer: &Timer) -> bool {
        let space = |ns: &NsId| self.spaces.get(ns);
        match timer {
            Timer::Deadline(op) => self.operations.contains_key(op),
            Timer::Again(op, attempt) => {
                let operation = self.operations.get(op);
                operation.is_some_and(|operation| operation.attempts == *attempt)
            }
            Timer::Miss(ns, key, token) => {
                let miss = space(ns).and_then(|space| space.misses.get(key));
                miss.is_some_and(|miss| miss.token == *token)
            }
            Timer::Passing(ns, token) => {
                space(ns).is_some_and(|space| space.passing.contains_key(token))
            }
            Timer::Spread(ns, token) => {
                space(ns).is_some_and(|space| space.spreads.contains_key(token))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use daos_errno::Der;

    use super::*;
    use crate::iv::Output;
    use crate::{Class, Group, Options, Sync, Tree, Value};

    struct Plain;

    impl Class for Plain {}

    fn ends(iv: &mut Iv) -> Vec<(OpId, Option<Der>)> {
        let outputs = std::iter::from_fn(|| iv.poll());
        let end = |output| match output {
            Output::Done(done) => Some((done.op, done.result.err().map(|failure| failure.der))),
            _ => None,
        };
        outputs.filter_map(end).collect()
    }

    #[test]
    fn what_has_ended_leaves_no_timers_and_what_waits_keeps_its_own() {
        let mut iv = Iv::new(0, 1, Options::default());
        iv.register(1, Box::new(Plain)).unwrap();
        iv.connect(1, Tree::default()).unwrap();
        iv.set_group(0, 1, Group::new(1, 0..2));
        iv.set_leader(0, 1, 0, 1);
        let key = Key::new(1, b"key").unwrap();
        let value: Value = b"value".as_slice().into();
        // Rank 1 never answers.
        let waits = iv.update(0, 1, key, value.clone(), Sync::Eager.into(), 1_000_000_000);
        for now in 1..10_000 {
            iv.update(now, 1, key, value.clone(), Sync::None.into(), 1_000_000_000);
            assert!(ends(&mut iv).iter().all(|(_, failed)| failed.is_none()));
            assert!(iv.timers.heap.len() <= 2 * FEW, "{}", iv.timers.heap.len());
        }
        let mut ended = Vec::new();
        while ended.is_empty() {
            let next = iv.next_deadline().unwrap();
            iv.tick(next);
            ended = ends(&mut iv);
        }
        assert!(
            matches!(ended[..], [(op, Some(_))] if op == waits),
            "{ended:?}"
        );
    }
}
