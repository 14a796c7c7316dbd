//! systemd's watchdog: fed only if every xstream has turned since it was fed last.

/// Decides when `WATCHDOG=1` may be sent. Pure.
#[derive(Debug)]
pub(crate) struct Feeder {
    /// Nanoseconds after which systemd loses patience.
    limit: u64,
    since: u64,
    seen: Vec<u64>,
}

impl Feeder {
    pub(crate) fn new(limit: u64, xstreams: usize) -> Feeder {
        Feeder {
            limit,
            // The first look may feed.
            since: limit,
            seen: vec![u64::MAX; xstreams],
        }
    }

    /// How long an xstream may be quiet before it has to be asked whether it lives.
    pub(crate) fn nudge(&self) -> u64 {
        self.limit / 8
    }

    /// A look `passed` nanoseconds after the last one; `turns` of every xstream. Whether to feed now.
    pub(crate) fn look(&mut self, passed: u64, turns: impl Iterator<Item = u64> + Clone) -> bool {
        self.since = self.since.saturating_add(passed);
        let all_turned = turns
            .clone()
            .zip(&self.seen)
            .all(|(turns, &seen)| turns != seen);
        if self.since < self.limit / 4 || !all_turned {
            return false;
        }
        self.since = 0;
        self.seen = turns.collect();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Feeder;

    #[test]
    fn one_xstream_that_does_not_turn_starves_it() {
        let mut feeder = Feeder::new(8_000, 3);
        let mut turns = [1u64, 1, 1];
        assert!(feeder.look(100, turns.iter().copied()), "all are up");
        let mut fed = 0;
        for _ in 0..100 {
            turns.iter_mut().for_each(|turns| *turns += 1);
            fed += u32::from(feeder.look(1_000, turns.iter().copied()));
        }
        assert_eq!(fed, 50, "each quarter of the limit");
        for stuck in 0..3 {
            for _ in 0..100 {
                let advance = |(i, turns): (usize, &mut u64)| *turns += u64::from(i != stuck);
                turns.iter_mut().enumerate().for_each(advance);
                // What it did before it got stuck counts once.
                feeder.look(1_000, turns.iter().copied());
            }
            assert!(!feeder.look(1_000, turns.iter().copied()), "{stuck}");
            turns[stuck] += 1;
        }
    }

    #[test]
    fn the_first_look_feeds() {
        let mut feeder = Feeder::new(8_000, 1);
        assert!(feeder.look(0, [0].into_iter()));
        assert!(!feeder.look(10_000, [0].into_iter()), "no turn since");
        assert!(feeder.look(0, [1].into_iter()));
    }
}
