//! Chooses the depth of rest, and learns from how late the reactor woke: the goal is kept by measuring, as Linux's menu
//! and TEO governors do for the states of a processor. Pure: time and latencies are handed in.
//!
//! If rings of the doorbell find the reactor too late too often, sleeping is not what this machine can do within the goal. The
//! reactor then *holds*: after work it stays awake, pausing, for up to [`LINGER_NS`] in case more comes. Work that comes
//! more rarely finds it asleep and gets what the machine's wake-up takes: rare work does not burn a core.

use crate::idle::{IdleGoal, Rest, Situation};

/// Pausing longer than this before a sleep saves no wake-up worth its processor time: one costs 5 to 50 us.
const LONGEST_PAUSE_NS: u64 = 50_000;
/// During a hold: how long after work the reactor waits awake for more.
const LINGER_NS: u64 = 10_000_000;
/// Wake-ups that one half of the sliding window counts.
const WINDOW: u32 = 512;
/// So many late wake-ups are no accident any more.
const FEWEST_LATE: u32 = 3;
/// One late wake-up in more than so many is within the goal, which is one for the 99th percentile; the rest is room for chance.
const ONE_IN: u32 = 80;
/// For each late wake-up, this many have to be on time before sleeping is tried again.
const ON_TIME_PER_LATE: u32 = 100;
/// The first hold, and the longest: it doubles from one to the next.
const FIRST_HOLD_NS: u64 = 10_000_000;
const LONGEST_HOLD_NS: u64 = 10_000_000_000;
/// A hold is futile when so much more work came after the linger than within it.
const FUTILE: u32 = 8;
/// After futile holds it takes up to this many times more late wake-ups for another one.
const MOST_DOUBT: u32 = 256;

/// How late rings of the doorbell found the reactor: two halves of a sliding window.
#[derive(Debug, Clone, Copy, Default)]
struct Rings {
    count: u32,
    late: u32,
    count_before: u32,
    late_before: u32,
}

impl Rings {
    fn add(&mut self, is_late: bool) {
        if self.count == WINDOW {
            (self.count_before, self.late_before) = (self.count, self.late);
            (self.count, self.late) = (0, 0);
        }
        self.count += 1;
        self.late += u32::from(is_late);
    }

    fn count(&self) -> u32 {
        self.count + self.count_before
    }

    fn late(&self) -> u32 {
        self.late + self.late_before
    }

    /// More than one in a hundred or so, and no accident.
    fn misses_the_goal(&self, fewest: u32) -> bool {
        self.late() >= fewest && self.late() * ONE_IN > self.count()
    }
}

/// How late timed sleeps end: smoothed as TCP smooths round trips (RFC 6298), with slower gains.
#[derive(Debug, Clone, Copy, Default)]
struct Overshoot {
    mean: u64,
    deviation: u64,
}

impl Overshoot {
    fn add(&mut self, ns: u64) {
        self.deviation = (self.deviation * 15 + ns.abs_diff(self.mean)) / 16;
        self.mean = (self.mean * 15 + ns) / 16;
    }

    /// Where nearly all lie.
    fn typical(&self) -> u64 {
        self.mean + 2 * self.deviation
    }
}

/// How good pausing is: a core that is taken away for longer than the goal is late without having slept.
#[derive(Debug, Clone, Copy, Default)]
struct Gaps {
    total: u64,
    lost: u64,
}

impl Gaps {
    /// Both are halved when the total reaches this: about the last second counts.
    const MEMORY_NS: u64 = 1_000_000_000;

    fn add(&mut self, ns: u64, goal: u64) {
        if self.total >= Self::MEMORY_NS {
            self.total /= 2;
            self.lost /= 2;
        }
        self.total += ns;
        self.lost += if ns > goal { ns } else { 0 };
    }

    /// Whether pausing is not much better than sleeps of which `late` in `count` were late.
    fn are_as_bad_as(&self, late: u32, count: u32) -> bool {
        let lost = u128::from(self.lost) * 2 * u128::from(count);
        lost > u128::from(self.total) * u128::from(late)
    }
}

/// Awake for a while, because sleeps were late.
#[derive(Debug, Clone, Copy)]
struct Hold {
    until: u64,
    /// Work that has to come on time before sleeping is tried again.
    owed: u32,
    /// Work that came after the linger, less that which came within it.
    missed: u32,
    /// What sleeping was like before.
    late: u32,
    count: u32,
}

/// Decides after each turn that found nothing.
#[derive(Debug)]
pub(crate) struct Governor {
    goal: u64,
    rings: Rings,
    overshoot: Overshoot,
    pauses: Gaps,
    hold: Option<Hold>,
    next_hold_ns: u64,
    doubt: u32,
    holds: u64,
}

impl Governor {
    pub(crate) fn new(goal: IdleGoal) -> Governor {
        Governor {
            goal: goal.ns(),
            rings: Rings::default(),
            overshoot: Overshoot::default(),
            pauses: Gaps::default(),
            hold: None,
            next_hold_ns: FIRST_HOLD_NS,
            doubt: 1,
            holds: 0,
        }
    }

    /// Poll; then pause for the goal, longer during a hold; then sleep.
    pub(crate) fn decide(&mut self, now: u64, situation: Situation) -> Rest {
        if self.goal == 0 || situation.busy || situation.deadline_in == Some(0) {
            return Rest::Poll;
        }
        let quiet = situation.quiet_ns;
        if quiet < self.goal.min(LONGEST_PAUSE_NS) || quiet < LINGER_NS && self.is_held(now) {
            return Rest::Pause;
        }
        // A nap is not over when its time is: the wake-up takes some, too.
        let typical = self.overshoot.typical();
        let nap = self.goal.saturating_sub(typical).max(self.goal / 4);
        let bound = situation.needs_polling.then_some(nap);
        match situation.deadline_in {
            // It would be over before the sleep had begun.
            Some(ns) if ns <= self.overshoot.mean.min(self.goal / 4) => Rest::Pause,
            deadline => Rest::Sleep(deadline.into_iter().chain(bound).min()),
        }
    }

    fn is_held(&mut self, now: u64) -> bool {
        let Some(hold) = self.hold else { return false };
        if now >= hold.until && hold.owed == 0 {
            self.doubt = 1;
            self.hold = None;
        } else if self.pauses.are_as_bad_as(hold.late, hold.count) {
            // A core that others take away is late either way; burning it makes that worse.
            self.hold = None;
        }
        self.hold.is_some()
    }

    /// A ring of the doorbell ended a sleep `late_ns` ago.
    pub(crate) fn rang(&mut self, now: u64, late_ns: u64) {
        if let Some(hold) = &mut self.hold {
            hold.missed += 1;
            if hold.missed >= FUTILE {
                self.hold = None;
                self.doubt = (self.doubt * 2).min(MOST_DOUBT);
            }
            return;
        }
        self.rings.add(late_ns > self.goal);
        let (late, count) = (self.rings.late(), self.rings.count());
        if self.rings.misses_the_goal(FEWEST_LATE * self.doubt) {
            if !self.pauses.are_as_bad_as(late, count) {
                self.holds += 1;
                self.hold = Some(Hold {
                    until: now.saturating_add(self.next_hold_ns),
                    owed: late * ON_TIME_PER_LATE,
                    missed: 0,
                    late,
                    count,
                });
                self.next_hold_ns = (self.next_hold_ns * 2).min(LONGEST_HOLD_NS);
            }
            self.rings = Rings::default();
        } else if self.rings.count == WINDOW {
            self.next_hold_ns = (self.next_hold_ns / 2).max(FIRST_HOLD_NS);
        }
    }

    /// A sleep with a bound ended this long after it.
    pub(crate) fn overslept(&mut self, ns: u64) {
        // One that lasted is an accident, and would only spoil the naps.
        self.overshoot.add(ns.min(self.goal));
    }

    /// The reactor looked again `gap_ns` after the last time, having paused in between.
    #[inline]
    pub(crate) fn paused(&mut self, gap_ns: u64) {
        self.pauses.add(gap_ns, self.goal);
    }

    /// Work came while the reactor paused.
    #[inline]
    pub(crate) fn was_on_time(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.owed = hold.owed.saturating_sub(1);
            hold.missed = hold.missed.saturating_sub(1);
        }
    }

    /// How often sleeping was given up for a while.
    pub(crate) fn holds(&self) -> u64 {
        self.holds
    }
}

#[cfg(test)]
mod tests;
