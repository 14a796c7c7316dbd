//! What a seed means: how many ranks, which tree, which network, what is done and what goes wrong when.

use engine_iv::{How, Nanos, Rank, Shortcut, Sync, Tree};

use crate::cluster::Network;
use crate::rng::Rng;
use crate::xstreams::Local;

/// A millisecond.
pub(crate) const MS: Nanos = 1_000_000;

/// Something that a user does on a rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// Wants the value.
    Fetch(Shortcut),
    /// Sets a value of this many bytes.
    Update(How, usize),
    /// Invalidates.
    Invalidate(How),
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A user's operation on variable `key` with so much time.
    Do {
        /// Where.
        rank: Rank,
        /// Which variable: its class and its number.
        key: (u32, u8),
        /// What.
        work: Work,
        /// How long.
        budget: Nanos,
    },
    /// A rank loses its memory.
    Crash(Rank),
    /// A crashed rank comes back, in its next life.
    Restart(Rank),
    /// These ranks cannot reach the others; with `one_way` the others still reach them.
    Split {
        /// Those.
        away: Vec<Rank>,
        /// In one direction only.
        one_way: bool,
    },
    /// All reach each other again.
    Heal,
    /// Another leader, for no reason that the ranks can see.
    Elect,
    /// A rank sends what it should not.
    Lie(Rank),
    /// The network changes.
    Weather(Network),
}

/// A run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where it came from.
    pub seed: u64,
    /// Ranks 0 to this, exclusive.
    pub ranks: u32,
    /// The tree of the namespace.
    pub tree: Tree,
    /// The network at first.
    pub network: Network,
    /// Ranks that take longer for everything.
    pub slow: Vec<Rank>,
    /// How long a cached value may be served.
    pub lease: Nanos,
    /// What is below each rank.
    pub local: Local,
    /// What happens, in the order of time.
    pub steps: Vec<(Nanos, Step)>,
}

impl Scenario {
    /// The run of a seed: up to 24 ranks, one in eight of them up to 96; three in four with faults.
    pub fn of(seed: u64) -> Scenario {
        let mut rng = Rng::new(seed);
        let ranks = match rng.below(8) {
            0 => rng.within(24, 96),
            _ => rng.within(1, 24),
        } as u32;
        let tree = match rng.below(3) {
            0 => Tree::Flat,
            1 => Tree::Kary(rng.within(2, 5) as u32),
            _ => Tree::Knomial(rng.within(2, 5) as u32),
        };
        let calm = rng.below(4) == 0;
        let network = if calm {
            Network::default()
        } else {
            weather(&mut rng)
        };
        let slow = (0..ranks).filter(|_| !calm && rng.per_mille(50)).collect();
        let end = rng.within(2_000, 20_000) * MS;
        let mut scenario = Scenario {
            seed,
            ranks,
            tree,
            network,
            slow,
            lease: rng.pick(&[500, 1_000, 3_000, 20_000]) * MS,
            local: Local::default(),
            steps: Vec::new(),
        };
        for _ in 0..rng.within(10, 60) {
            let when = rng.below(end);
            let step = scenario.work(&mut rng);
            scenario.steps.push((when, step));
        }
        if !calm {
            for _ in 0..rng.within(0, 8) {
                scenario.fault(&mut rng, end);
            }
        }
        scenario.local = Local::of(&mut rng, calm);
        scenario.steps.sort_by_key(|(when, _)| *when);
        scenario
    }

    /// Whether nothing goes wrong: then nothing may fail either.
    pub fn is_calm(&self) -> bool {
        let work = |(_, step): &(Nanos, Step)| matches!(step, Step::Do { .. });
        self.network == Network::default() && self.slow.is_empty() && self.steps.iter().all(work)
    }

    fn rank(&self, rng: &mut Rng) -> Rank {
        rng.below(u64::from(self.ranks)) as Rank
    }

    fn work(&self, rng: &mut Rng) -> Step {
        let shortcut = rng.pick(&[Shortcut::None, Shortcut::None, Shortcut::ToRoot]);
        let sync = rng.pick(&[
            Sync::None,
            Sync::Eager,
            Sync::Eager,
            Sync::Lazy,
            Sync::Bidirectional,
        ]);
        let how = How { sync, shortcut };
        let work = match rng.below(10) {
            0..5 => Work::Fetch(shortcut),
            9 if sync != Sync::Bidirectional => Work::Invalidate(how),
            _ => Work::Update(how, rng.pick(&[8, 100, 19_456, 19_457])),
        };
        let class = rng.pick(&[1, 1, 2]);
        let long = matches!(work, Work::Update(_, 19_457)); // too long for the plain class
        Step::Do {
            rank: self.rank(rng),
            key: (if long { 1 } else { class }, rng.below(3) as u8),
            work,
            budget: rng.within(200, 8_000) * MS,
        }
    }

    fn fault(&mut self, rng: &mut Rng, end: Nanos) {
        let when = rng.below(end);
        let later = when + rng.within(100, 6_000) * MS;
        let rank = self.rank(rng);
        match rng.below(7) {
            0 | 1 => {
                self.steps.push((when, Step::Crash(rank)));
                self.steps.push((later, Step::Restart(rank)));
            }
            2 | 3 => {
                let some = rng.within(1, 500);
                // The first leader alone, or some of all.
                let leader = rng.per_mille(300);
                let away = |rank: &Rank| {
                    if leader {
                        *rank == 0
                    } else {
                        rng.per_mille(some)
                    }
                };
                let away: Vec<Rank> = (0..self.ranks).filter(away).collect();
                let one_way = rng.per_mille(300);
                self.steps.push((when, Step::Split { away, one_way }));
                self.steps.push((later, Step::Heal));
            }
            4 => self.steps.push((when, Step::Elect)),
            5 => self.steps.push((when, Step::Lie(rank))),
            _ => self.steps.push((when, Step::Weather(weather(rng)))),
        }
    }
}

fn weather(rng: &mut Rng) -> Network {
    let fastest = rng.within(10, 2_000) * 1_000;
    Network {
        fastest,
        slowest: fastest + rng.within(10, 300_000) * 1_000,
        loss: rng.pick(&[0, 0, 10, 50, 200]),
        doubling: rng.pick(&[0, 20, 100]),
    }
}
