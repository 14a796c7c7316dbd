//! How deep a reactor may rest: a goal, not a mode.

/// The latency that a reactor may add to work that arrives while it rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleGoal {
    ns: u64,
}

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

    pub(crate) fn ns(self) -> u64 {
        self.ns
    }
}
