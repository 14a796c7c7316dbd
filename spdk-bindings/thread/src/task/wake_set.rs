//! Wake-ups of tasks from other OS threads: one bit per task slot, never lost, bounded, no message needed.

// Loom's in a model check (`tests/loom.rs`), so that the code that is checked is the code that runs.
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// Two levels of bits: a word per 64 task slots, and a summary bit per group of words.
pub(crate) struct WakeSet {
    words: Box<[AtomicU64]>,
    summary: AtomicU64,
    /// Words per summary bit, as a shift.
    group: u32,
}

impl WakeSet {
    /// Room for `tasks` slots.
    pub(crate) fn new(tasks: u32) -> WakeSet {
        let words = (tasks as usize).div_ceil(64).max(1);
        let group = words.div_ceil(64).next_power_of_two().trailing_zeros();
        WakeSet {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            summary: AtomicU64::new(0),
            group,
        }
    }

    /// Marks a slot. Any OS thread. The caller notifies the reactor afterwards.
    pub(crate) fn set(&self, index: u32) {
        let word = index as usize / 64;
        self.words[word].fetch_or(1 << (index % 64), Ordering::AcqRel);
        // Also when the bit was set before: whoever set it may not have come this far yet, and may be long in coming.
        self.summary
            .fetch_or(1 << (word >> self.group), Ordering::AcqRel);
    }

    /// Whether a slot may be marked: one load.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.summary.load(Ordering::Acquire) != 0
    }

    /// Whether no slot is marked, ordered against [`set`](Self::set) for somebody who is about to sleep: a later `set`
    /// sees everything that was done before this call, the sleeper's flag included.
    pub(crate) fn settle(&self) -> bool {
        self.summary.fetch_or(0, Ordering::AcqRel) == 0
    }

    /// Takes all marks, lowest slot first. Owning thread only.
    #[cold]
    pub(crate) fn take(&self, mut each: impl FnMut(u32)) {
        let mut summary = self.summary.swap(0, Ordering::AcqRel);
        while summary != 0 {
            let group = summary.trailing_zeros() as usize;
            summary &= summary - 1;
            let first = group << self.group;
            let last = (first + (1 << self.group)).min(self.words.len());
            for word in first..last {
                let mut bits = self.words[word].swap(0, Ordering::AcqRel);
                while bits != 0 {
                    each((word * 64) as u32 + bits.trailing_zeros());
                    bits &= bits - 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::WakeSet;

    fn taken(set: &WakeSet) -> Vec<u32> {
        let mut all = Vec::new();
        set.take(|index| all.push(index));
        all
    }

    #[test]
    fn marks_come_out_once_and_in_order_whatever_the_size() {
        for tasks in [1, 64, 65, 4096, 4097, 16_384, 100_000] {
            let set = WakeSet::new(tasks);
            assert!(!set.any() && set.settle() && taken(&set).is_empty());
            let marks = [0, tasks / 3, tasks / 2, tasks - 1];
            for index in marks.iter().rev() {
                set.set(*index);
                set.set(*index);
            }
            assert!(set.any() && !set.settle());
            let mut expected = marks.to_vec();
            expected.dedup();
            assert_eq!(taken(&set), expected, "{tasks} tasks");
            assert!(!set.any() && taken(&set).is_empty());
        }
    }

    #[test]
    fn marks_set_from_several_os_threads_are_all_taken() {
        let set = WakeSet::new(1000);
        let mut seen = vec![false; 1000];
        std::thread::scope(|scope| {
            for part in 0..4u32 {
                let set = &set;
                scope.spawn(move || (0..250).for_each(|i| set.set(part * 250 + i)));
            }
            while !seen.iter().all(|&s| s) {
                set.take(|index| seen[index as usize] = true);
                std::thread::yield_now();
            }
        });
        assert!(taken(&set).is_empty());
    }
}
