//! Extents and the allocator of the data region.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::EXTENTS_MAX;

/// Consecutive units of the data region, counted from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) start: u64,
    pub(crate) units: u32,
}

/// Two pieces claim the same unit, or one lies outside the region: the index is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overlap(pub(crate) Extent);

/// Free units of the data region: best fit, neighbours merged at once.
#[derive(Debug)]
pub(crate) struct Allocator {
    by_start: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
    free: u64,
    total: u64,
}

impl Allocator {
    /// All `total` units free.
    pub(crate) fn new(total: u64) -> Self {
        let mut new = Self {
            by_start: BTreeMap::new(),
            by_size: BTreeSet::new(),
            free: total,
            total,
        };
        if total > 0 {
            new.insert(0, total);
        }
        new
    }

    pub(crate) fn free_units(&self) -> u64 {
        self.free
    }

    pub(crate) fn total_units(&self) -> u64 {
        self.total
    }

    /// `units` units: one extent if any is large enough, else the largest ones, at most [`EXTENTS_MAX`]. `None` leaves
    /// everything as it was.
    pub(crate) fn alloc(&mut self, units: u32) -> Option<Vec<Extent>> {
        let mut left = u64::from(units);
        if left > self.free {
            return None;
        }
        let mut got = Vec::with_capacity(1);
        while left > 0 {
            let fit = self
                .by_size
                .range((left, 0)..)
                .next()
                .or(self.by_size.last())
                .copied();
            let enough = got.len() < EXTENTS_MAX;
            let Some((size, start)) = fit.filter(|_| enough) else {
                got.into_iter().for_each(|e| self.release(e));
                return None;
            };
            let take = size.min(left);
            self.remove(start, size);
            if size > take {
                self.insert(start + take, size - take);
            }
            self.free -= take;
            left -= take;
            got.push(Extent {
                start,
                units: take as u32,
            });
        }
        Some(got)
    }

    /// Takes a given extent, while the index is rebuilt.
    pub(crate) fn claim(&mut self, e: Extent) -> Result<(), Overlap> {
        let len = u64::from(e.units);
        let end = e.start.checked_add(len).ok_or(Overlap(e))?;
        let (start, size) = self
            .by_start
            .range(..=e.start)
            .next_back()
            .map(|(s, n)| (*s, *n))
            .filter(|(s, n)| s + n >= end && len > 0)
            .ok_or(Overlap(e))?;
        self.remove(start, size);
        if e.start > start {
            self.insert(start, e.start - start);
        }
        if start + size > end {
            self.insert(end, start + size - end);
        }
        self.free -= len;
        Ok(())
    }

    /// Gives an extent back.
    pub(crate) fn release(&mut self, e: Extent) {
        let (mut start, mut size) = (e.start, u64::from(e.units));
        self.free += size;
        if let Some((&s, &n)) = self.by_start.range(..start).next_back() {
            debug_assert!(s + n <= start, "extent freed twice");
            if s + n == start {
                self.remove(s, n);
                (start, size) = (s, n + size);
            }
        }
        if let Some(&n) = self.by_start.get(&(start + size)) {
            self.remove(start + size, n);
            size += n;
        }
        self.insert(start, size);
    }

    fn insert(&mut self, start: u64, size: u64) {
        self.by_start.insert(start, size);
        self.by_size.insert((size, start));
    }

    fn remove(&mut self, start: u64, size: u64) {
        self.by_start.remove(&start);
        self.by_size.remove(&(size, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn best_fit_then_the_largest_pieces() {
        let mut a = Allocator::new(100);
        let taken: Vec<_> = (0..10).map(|_| a.alloc(10).unwrap()[0]).collect();
        assert_eq!(a.alloc(1), None);
        for i in [1, 3, 4, 7] {
            a.release(taken[i]);
        }
        assert_eq!(
            a.alloc(20).unwrap(),
            [Extent {
                start: 30,
                units: 20
            }]
        );
        assert_eq!(
            a.alloc(15).unwrap().len(),
            2,
            "no single extent is large enough"
        );
        assert_eq!(a.free_units(), 5);
    }

    #[test]
    fn crumbs_beyond_the_bound_are_out_of_space_and_change_nothing() {
        let mut a = Allocator::new(400);
        let all: Vec<_> = (0..400).map(|_| a.alloc(1).unwrap()[0]).collect();
        all.iter().step_by(2).for_each(|e| a.release(*e));
        assert_eq!(a.free_units(), 200);
        assert_eq!(a.alloc(EXTENTS_MAX as u32 + 1), None);
        assert_eq!(a.free_units(), 200);
        assert_eq!(a.alloc(EXTENTS_MAX as u32).unwrap().len(), EXTENTS_MAX);
    }

    #[test]
    fn claims_outside_or_twice_are_refused() {
        let mut a = Allocator::new(10);
        let e = |start, units| Extent { start, units };
        assert_eq!(a.claim(e(2, 3)), Ok(()));
        for bad in [e(2, 1), e(4, 2), e(9, 2), e(u64::MAX, 1), e(0, 0)] {
            assert_eq!(a.claim(bad), Err(Overlap(bad)));
        }
        assert_eq!(a.free_units(), 7);
    }

    proptest! {
        #[test]
        fn no_unit_is_given_out_twice(ops in prop::collection::vec((any::<bool>(), 1u32..40), 1..200)) {
            let mut a = Allocator::new(300);
            let mut held: Vec<Extent> = Vec::new();
            let mut owner = [false; 300];
            for (alloc, n) in ops {
                if alloc {
                    for e in a.alloc(n).unwrap_or_default() {
                        for u in e.start..e.start + u64::from(e.units) {
                            prop_assert!(!std::mem::replace(&mut owner[u as usize], true));
                        }
                        held.push(e);
                    }
                } else if !held.is_empty() {
                    let e = held.swap_remove(n as usize % held.len());
                    (e.start..e.start + u64::from(e.units)).for_each(|u| owner[u as usize] = false);
                    a.release(e);
                }
                prop_assert_eq!(a.free_units(), owner.iter().filter(|o| !**o).count() as u64);
            }
            held.into_iter().for_each(|e| a.release(e));
            prop_assert_eq!(a.alloc(300).unwrap(), vec![Extent { start: 0, units: 300 }]);
        }
    }
}
