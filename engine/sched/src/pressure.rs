//! Space pressure: levels by free space, looked up at most every two seconds.

/// A level is looked up again after so long at the earliest, milliseconds (DAOS).
pub(crate) const REQUERY_MS: u64 = 2000;
/// Level 5 holds updates for the gap in which nothing can be freed, and so much longer (DAOS), milliseconds.
const GRACE_MS: u64 = 10_000;

/// By level: free percent that every medium must exceed, and the share of garbage collection (DAOS:
/// `src/engine/sched.c`). The last row takes what the others leave.
pub const PRESSURE_LEVELS: [(u64, u32); 6] =
    [(40, 10), (30, 30), (20, 45), (10, 60), (5, 75), (0, 90)];
const LAST: u8 = 5;

/// Space of one kind that a pool has on a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Medium {
    /// Bytes; 0: there is no such medium, or no limit.
    pub total: u64,
    /// Bytes that are free; more than `total` counts as `total`.
    pub free: u64,
    /// Bytes of both that the system keeps for itself.
    pub reserved: u64,
}

/// The level that these media have together: 0 is none, 5 the worst.
#[must_use]
pub fn pressure_level(media: &[Medium]) -> u8 {
    let fits = |percent: u64| {
        media
            .iter()
            .filter(|medium| medium.total > 0)
            .all(|medium| {
                let total = medium.total.saturating_sub(medium.reserved);
                let free = medium
                    .free
                    .min(medium.total)
                    .saturating_sub(medium.reserved);
                u128::from(free) * 100 > u128::from(total) * u128::from(percent)
            })
    };
    let rows = &PRESSURE_LEVELS[..LAST as usize];
    rows.iter()
        .position(|&(percent, _)| fits(percent))
        .map_or(LAST, |row| row as u8)
}

/// A pool's pressure on this target.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pressure {
    level: u8,
    looked_ms: Option<u64>,
    /// When the present level began.
    since_ms: u64,
    told: Option<u8>,
    /// How long garbage collection may have to sleep though there is something to free, milliseconds.
    gap_ms: u64,
}

impl Pressure {
    /// What the pool has now; `true`: there is some pressure.
    pub(crate) fn report(&mut self, media: &[Medium], gap_ms: u64) -> bool {
        let level = pressure_level(media);
        self.told = Some(level);
        self.gap_ms = gap_ms;
        level > 0
    }

    pub(crate) fn level(&mut self, now_ms: u64) -> u8 {
        let due = self
            .looked_ms
            .is_none_or(|looked| now_ms.saturating_sub(looked) >= REQUERY_MS);
        if let (true, Some(level)) = (due, self.told) {
            self.looked_ms = Some(now_ms);
            if level != self.level {
                (self.level, self.since_ms) = (level, now_ms);
            }
        }
        self.level
    }

    /// Whether updates go on though garbage collection has not had its share: when it has nothing to do, and at the last
    /// level after a while, so that clients hear that there is no space.
    pub(crate) fn lets_through(&self, now_ms: u64, gc_asleep: bool) -> bool {
        let nothing_to_free = gc_asleep && (self.level < LAST || self.gap_ms == 0);
        let long = now_ms.saturating_sub(self.since_ms) > self.gap_ms.saturating_add(GRACE_MS);
        nothing_to_free || self.level == LAST && long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(percent: u64) -> Medium {
        Medium {
            total: 1000,
            free: percent * 10,
            reserved: 0,
        }
    }

    #[test]
    fn the_level_is_the_first_row_that_every_medium_exceeds() {
        let levels =
            [100, 41, 40, 31, 30, 21, 20, 11, 10, 6, 5, 0].map(|p| pressure_level(&[free(p)]));
        assert_eq!(levels, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
        assert_eq!(
            pressure_level(&[free(90), free(25)]),
            2,
            "the fullest decides"
        );
        let unlimited = Medium::default();
        assert_eq!(pressure_level(&[unlimited, free(50)]), 0);
        assert_eq!(pressure_level(&[]), 0);
        let kept = Medium {
            total: 1000,
            free: 500,
            reserved: 400,
        };
        assert_eq!(pressure_level(&[kept]), 3, "100 of 600 are free");
        let lie = Medium {
            total: u64::MAX,
            free: u64::MAX,
            reserved: 0,
        };
        assert_eq!(pressure_level(&[lie]), 0);
        let all_kept = Medium {
            total: 10,
            free: u64::MAX,
            reserved: 20,
        };
        assert_eq!(pressure_level(&[all_kept]), 5);
    }

    #[test]
    fn a_level_is_looked_up_every_two_seconds_at_most() {
        let mut pressure = Pressure::default();
        assert_eq!(pressure.level(0), 0);
        pressure.report(&[free(25)], 0);
        assert_eq!(pressure.level(100), 2);
        pressure.report(&[free(1)], 0);
        assert_eq!(pressure.level(2_099), 2);
        assert_eq!(pressure.level(2_100), 5);
        pressure.report(&[free(99)], 0);
        assert_eq!((pressure.level(4_099), pressure.level(4_100)), (5, 0));
    }

    #[test]
    fn updates_are_let_through_when_waiting_is_of_no_use() {
        let mut pressure = Pressure::default();
        pressure.report(&[free(15)], 5_000);
        assert_eq!(pressure.level(1_000), 3);
        assert!(pressure.lets_through(1_000, true) && !pressure.lets_through(100_000, false));
        pressure.report(&[free(1)], 5_000);
        assert_eq!(pressure.level(3_000), 5);
        assert!(
            !pressure.lets_through(18_000, true),
            "it may only be waiting for its gap"
        );
        assert!(
            pressure.lets_through(18_001, false),
            "gap and ten seconds are over"
        );
        pressure.report(&[free(1)], 0);
        assert!(
            pressure.lets_through(3_000, true),
            "without a gap sleeping means there is nothing"
        );
    }
}
