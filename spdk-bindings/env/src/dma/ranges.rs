//! [`Ranges`]: which parts of an arena are free. Numbers only.

use std::collections::BTreeMap;

/// Free ranges by offset; first fit, neighbours grow together.
pub(super) struct Ranges {
    free: BTreeMap<usize, usize>,
    /// Nobody ever had anything beyond this.
    touched: usize,
}

/// A range that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) offset: usize,
    /// So many of its first bytes somebody had before.
    pub(super) dirty: usize,
}

impl Ranges {
    pub(super) fn new(len: usize) -> Ranges {
        Ranges {
            free: BTreeMap::from([(0, len)]),
            touched: 0,
        }
    }

    /// `len` bytes (more than none) at a multiple of `align`, a power of two; `None` when no free range holds them.
    pub(super) fn take(&mut self, len: usize, align: usize) -> Option<Taken> {
        let fits = |(&start, &size): (&usize, &usize)| {
            let offset = start.checked_next_multiple_of(align)?;
            let end = offset.checked_add(len)?;
            (end <= start + size).then_some((start, size, offset, end))
        };
        let (start, size, offset, end) = self.free.iter().find_map(fits)?;
        self.free.remove(&start);
        if offset > start {
            self.free.insert(start, offset - start);
        }
        if start + size > end {
            self.free.insert(end, start + size - end);
        }
        let dirty = self.touched.saturating_sub(offset).min(len);
        self.touched = self.touched.max(end);
        Some(Taken { offset, dirty })
    }

    /// Gives a range back that was taken.
    pub(super) fn give_back(&mut self, offset: usize, len: usize) {
        let (mut start, mut end) = (offset, offset + len);
        if let Some((&before, &size)) = self.free.range(..offset).next_back()
            && before + size == offset
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(size) = self.free.remove(&end) {
            end += size;
        }
        self.free.insert(start, end - start);
    }

    /// Bytes that are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.free.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_together_again() {
        let mut ranges = Ranges::new(100);
        let taken: Vec<usize> = (0..10)
            .map(|_| ranges.take(10, 1).unwrap().offset)
            .collect();
        assert_eq!(ranges.take(1, 1), None);
        for &offset in [3, 5, 4, 0, 9, 1, 2, 8, 6, 7].map(|at| &taken[at]) {
            ranges.give_back(offset, 10);
        }
        assert_eq!((ranges.free.len(), ranges.free()), (1, 100));
    }

    #[test]
    fn what_somebody_had_before_is_dirty_and_the_rest_is_not() {
        let mut ranges = Ranges::new(1 << 20);
        let first = ranges.take(4096, 4096).unwrap();
        assert_eq!(first.dirty, 0);
        ranges.give_back(first.offset, 4096);
        let longer = ranges.take(12288, 4096).unwrap();
        assert_eq!((longer.offset, longer.dirty), (0, 4096));
    }

    /// Against a map of bytes: nothing is given twice, alignment holds, and everything comes back.
    #[test]
    fn any_order_of_taking_and_giving_back() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        let mut ranges = Ranges::new(4096);
        let (mut used, mut held) = (vec![false; 4096], Vec::new());
        for _ in 0..20_000 {
            if random(2) == 0 || held.is_empty() {
                let (len, align) = (1 + random(600), 1 << random(9));
                if let Some(taken) = ranges.take(len, align) {
                    assert!(taken.offset.is_multiple_of(align));
                    let bytes = &mut used[taken.offset..taken.offset + len];
                    assert!(bytes.iter().all(|byte| !*byte), "given twice");
                    bytes.fill(true);
                    held.push((taken.offset, len));
                }
            } else {
                let (offset, len) = held.swap_remove(random(held.len()));
                used[offset..offset + len].fill(false);
                ranges.give_back(offset, len);
            }
            let unused = used.iter().filter(|byte| !**byte).count();
            assert_eq!(ranges.free(), unused);
        }
    }
}
