//! How deep a reactor may rest: a goal, not a mode.

/// The latency that a reactor may add to work that arrives while it rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleGoal {
    ns: u64,
}

/// Pausing longer than this saves no wake-up worth its processor time: a wake-up costs 5 to 50 us.
const LONGEST_PAUSE_NS: u64 = 50_000;

/// What to do after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Turn again at once.
    Poll,
    /// Turn again after a processor pause.
    Pause,
    /// Sleep until a wake-up, but not past this many nanoseconds if given.
    Sleep(Option<u64>),
}

/// What the reactor knows when it decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    /// The turn did something, or another one would.
    pub(crate) busy: bool,
    /// Nanoseconds since a turn last did something.
    pub(crate) quiet_ns: u64,
    /// Nanoseconds to the next deadline.
    pub(crate) deadline_in: Option<u64>,
    /// A poller without a wake source has to be called within the goal.
    pub(crate) needs_polling: bool,
}

impl IdleGoal {
    /// Never rests: one core at 100 %.
    pub const ALWAYS_POLL: IdleGoal = IdleGoal { ns: 0 };

    /// At most this many microseconds; 0 is [`ALWAYS_POLL`](Self::ALWAYS_POLL).
    #[must_use]
    pub const fn from_micros(us: u64) -> IdleGoal {
        IdleGoal {
            ns: us.saturating_mul(1000),
        }
    }

    /// Poll, then pause for at most the goal, then sleep.
    pub(crate) fn decide(self, situation: Situation) -> Rest {
        if self.ns == 0 || situation.busy || situation.deadline_in == Some(0) {
            return Rest::Poll;
        }
        if situation.quiet_ns < self.ns.min(LONGEST_PAUSE_NS) {
            return Rest::Pause;
        }
        let bound = situation.needs_polling.then_some(self.ns);
        Rest::Sleep(situation.deadline_in.into_iter().chain(bound).min())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Situation = Situation {
        busy: false,
        quiet_ns: u64::MAX,
        deadline_in: None,
        needs_polling: false,
    };

    #[test]
    fn without_a_goal_it_always_polls() {
        assert_eq!(IdleGoal::ALWAYS_POLL.decide(QUIET), Rest::Poll);
    }

    #[test]
    fn polls_while_busy_then_pauses_for_the_goal_then_sleeps() {
        let goal = IdleGoal::from_micros(20);
        assert_eq!(
            goal.decide(Situation {
                busy: true,
                ..QUIET
            }),
            Rest::Poll
        );
        assert_eq!(
            goal.decide(Situation {
                quiet_ns: 19_999,
                ..QUIET
            }),
            Rest::Pause
        );
        assert_eq!(
            goal.decide(Situation {
                quiet_ns: 20_000,
                ..QUIET
            }),
            Rest::Sleep(None)
        );
        let lazy = IdleGoal::from_micros(10_000);
        assert_eq!(
            lazy.decide(Situation {
                quiet_ns: 50_000,
                ..QUIET
            }),
            Rest::Sleep(None),
            "a long goal is no licence to burn"
        );
    }

    #[test]
    fn sleeps_to_the_deadline_and_no_longer_than_the_goal_where_something_must_be_polled() {
        let goal = IdleGoal::from_micros(20);
        let decide = |deadline_in, needs_polling| {
            goal.decide(Situation {
                deadline_in,
                needs_polling,
                ..QUIET
            })
        };
        assert_eq!(decide(Some(7_000), false), Rest::Sleep(Some(7_000)));
        assert_eq!(decide(Some(7_000), true), Rest::Sleep(Some(7_000)));
        assert_eq!(decide(Some(70_000), true), Rest::Sleep(Some(20_000)));
        assert_eq!(decide(Some(70_000), false), Rest::Sleep(Some(70_000)));
        assert_eq!(decide(None, true), Rest::Sleep(Some(20_000)));
        assert_eq!(decide(Some(0), false), Rest::Poll, "already due");
    }
}
