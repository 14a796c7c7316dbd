//! Deadlines of numbered things, earliest first, ties in the order of arming; any of them can be withdrawn.

/// An indexed binary heap: arm, disarm and pop in O(log n), no allocation beyond the most that were ever armed at once.
#[derive(Debug, Default)]
pub(crate) struct DeadlineHeap {
    heap: Vec<Entry>,
    /// key -> place in `heap`, or NOWHERE.
    place: Vec<u32>,
    sequence: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    deadline: u64,
    sequence: u64,
    key: u32,
}

const NOWHERE: u32 = u32::MAX;

impl Entry {
    fn before(&self, other: &Entry) -> bool {
        (self.deadline, self.sequence) < (other.deadline, other.sequence)
    }
}

impl DeadlineHeap {
    /// The earliest deadline.
    #[inline]
    pub(crate) fn earliest(&self) -> Option<u64> {
        self.heap.first().map(|entry| entry.deadline)
    }

    /// Arms `key`, or moves it to a new deadline.
    pub(crate) fn arm(&mut self, key: u32, deadline: u64) {
        self.disarm(key);
        let index = key as usize;
        if self.place.len() <= index {
            self.place.resize(index + 1, NOWHERE);
        }
        self.sequence += 1;
        self.heap.push(Entry {
            deadline,
            sequence: self.sequence,
            key,
        });
        self.sift_up(self.heap.len() - 1);
    }

    /// Withdraws `key` if it is armed.
    pub(crate) fn disarm(&mut self, key: u32) {
        let Some(&place) = self.place.get(key as usize) else {
            return;
        };
        if place != NOWHERE {
            self.remove_at(place as usize);
        }
    }

    /// Whether `key` is armed.
    pub(crate) fn is_armed(&self, key: u32) -> bool {
        self.place
            .get(key as usize)
            .is_some_and(|&place| place != NOWHERE)
    }

    /// Takes the earliest entry if it is due at `now`: its key and deadline.
    #[inline]
    pub(crate) fn pop_due(&mut self, now: u64) -> Option<(u32, u64)> {
        let first = *self.heap.first()?;
        if first.deadline > now {
            return None;
        }
        self.remove_at(0);
        Some((first.key, first.deadline))
    }

    /// Moves every deadline by `ns`: what was armed before the first turn counts from the first turn.
    pub(crate) fn shift(&mut self, ns: u64) {
        for entry in &mut self.heap {
            entry.deadline = entry.deadline.saturating_add(ns);
        }
    }

    fn remove_at(&mut self, place: usize) {
        let removed = self.heap.swap_remove(place);
        self.place[removed.key as usize] = NOWHERE;
        if place < self.heap.len() {
            self.sift_down(place);
            self.sift_up(place);
        }
    }

    fn sift_up(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if !self.heap[place].before(&self.heap[parent]) {
                break;
            }
            self.heap.swap(place, parent);
            self.settle(place);
            place = parent;
        }
        self.settle(place);
    }

    fn sift_down(&mut self, mut place: usize) {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let mut least = place;
            for child in [left, right] {
                if child < self.heap.len() && self.heap[child].before(&self.heap[least]) {
                    least = child;
                }
            }
            if least == place {
                break;
            }
            self.heap.swap(place, least);
            self.settle(place);
            place = least;
        }
        self.settle(place);
    }

    fn settle(&mut self, place: usize) {
        let key = self.heap[place].key;
        self.place[key as usize] = u32::try_from(place).unwrap_or(NOWHERE);
    }
}

#[cfg(test)]
mod tests {
    use super::DeadlineHeap;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Against a sorted map: the same keys come out at the same times in the same order.
        #[test]
        fn agrees_with_a_sorted_map(operations in proptest::collection::vec((0u8..4, 0u32..12, 0u64..40), 1..200)) {
            let mut heap = DeadlineHeap::default();
            let mut oracle: BTreeMap<(u64, u64), u32> = BTreeMap::new();
            let mut sequence = 0;
            for (operation, key, time) in operations {
                match operation {
                    0 | 1 => {
                        sequence += 1;
                        oracle.retain(|_, &mut other| other != key);
                        oracle.insert((time, sequence), key);
                        heap.arm(key, time);
                    }
                    2 => {
                        oracle.retain(|_, &mut other| other != key);
                        heap.disarm(key);
                    }
                    _ => {
                        let expected = oracle.first_key_value().filter(|((deadline, _), _)| *deadline <= time).map(|(k, v)| (*k, *v));
                        if let Some((place, _)) = expected {
                            oracle.remove(&place);
                        }
                        prop_assert_eq!(heap.pop_due(time), expected.map(|((deadline, _), key)| (key, deadline)));
                    }
                }
                prop_assert_eq!(heap.earliest(), oracle.keys().next().map(|(deadline, _)| *deadline));
                for key in 0..12 {
                    prop_assert_eq!(heap.is_armed(key), oracle.values().any(|&other| other == key));
                }
            }
        }
    }
}
