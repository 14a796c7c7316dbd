//! What was kicked of late: weights by class over the last 10,000 cycles, in 16 steps, and not longer than a second ago.

use crate::attr::CLASSES;

const BUCKETS: usize = 16;
/// Cycles per step (DAOS: `SW_CYCLE_MAX`, 10000, by single cycles: 16 steps need 1/600 of the memory).
const CYCLES: u64 = 625;
/// Without a kick for so long, nothing is recent: cycles pass slowly where there is little to do, milliseconds.
const STALE_MS: u64 = 1000;

#[derive(Debug, Clone)]
pub(crate) struct Window {
    buckets: [[u32; CLASSES]; BUCKETS],
    sums: [u32; CLASSES],
    /// Number of the newest step.
    newest: u64,
    last_kick_ms: u64,
}

impl Window {
    pub(crate) fn new() -> Window {
        Window {
            buckets: [[0; CLASSES]; BUCKETS],
            sums: [0; CLASSES],
            newest: 0,
            last_kick_ms: 0,
        }
    }

    /// Weights by class, as of this cycle.
    pub(crate) fn recent(&mut self, cycle: u64, now_ms: u64) -> [u32; CLASSES] {
        let step = cycle / CYCLES;
        let behind = step.saturating_sub(self.newest);
        let stale = now_ms.saturating_sub(self.last_kick_ms) > STALE_MS;
        if stale || behind >= BUCKETS as u64 {
            if self.sums != [0; CLASSES] {
                self.buckets = [[0; CLASSES]; BUCKETS];
                self.sums = [0; CLASSES];
            }
        } else {
            for step in self.newest + 1..=step {
                let old = std::mem::take(&mut self.buckets[(step % BUCKETS as u64) as usize]);
                for (sum, old) in self.sums.iter_mut().zip(old) {
                    *sum -= old;
                }
            }
        }
        self.newest = self.newest.max(step);
        self.sums
    }

    pub(crate) fn add(&mut self, cycle: u64, now_ms: u64, class: usize, weight: u32) {
        self.recent(cycle, now_ms);
        self.last_kick_ms = now_ms;
        self.buckets[(self.newest % BUCKETS as u64) as usize][class] += weight;
        self.sums[class] += weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kicks_leave_after_ten_thousand_cycles_or_a_second() {
        let mut window = Window::new();
        window.add(0, 0, 0, 7);
        window.add(700, 10, 2, 4);
        assert_eq!(window.recent(9_999, 20), [7, 0, 4, 0, 0]);
        assert_eq!(window.recent(10_000, 20), [0, 0, 4, 0, 0]);
        assert_eq!(window.recent(10_700, 20), [0; 5]);
        window.add(10_701, 30, 1, 1);
        assert_eq!(window.recent(10_702, 1_030), [0, 1, 0, 0, 0]);
        assert_eq!(window.recent(10_703, 1_031), [0; 5], "a second has passed");
        window.add(u64::MAX - 5, u64::MAX, 3, 9);
        assert_eq!(window.recent(u64::MAX, u64::MAX), [0, 0, 0, 9, 0]);
    }
}
