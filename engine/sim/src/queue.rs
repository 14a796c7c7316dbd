//! Events in the order of time, and of their making where the time is the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use engine_iv::Nanos;

/// The events to come.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    order: BinaryHeap<Reverse<(Nanos, u64, usize)>>,
    events: Vec<Option<T>>,
    free: Vec<usize>,
    made: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Queue<T> {
        Queue {
            order: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            made: 0,
        }
    }

    pub(crate) fn push(&mut self, when: Nanos, event: T) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.made += 1;
        self.order.push(Reverse((when, self.made, slot)));
    }

    pub(crate) fn pop_until(&mut self, end: Nanos) -> Option<(Nanos, T)> {
        let Reverse((when, ..)) = self.order.peek()?;
        if *when > end {
            return None;
        }
        let Reverse((when, _, slot)) = self.order.pop()?;
        self.free.push(slot);
        self.events[slot].take().map(|event| (when, event))
    }
}
