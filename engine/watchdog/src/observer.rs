//! One xstream as the samples show it. Pure: readings and time are handed in.

use spdk_env::OsThreadTimes;
use spdk_thread::{PulseReading, Unit};

/// What counts as too long, in nanoseconds; 0: nothing does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Between two samples.
    pub(crate) period: u64,
    /// For one unit.
    pub(crate) unit: u64,
    /// Without progress.
    pub(crate) stall: u64,
    /// An xstream that has not turned for so long is sent a message: if it only sleeps, it turns.
    pub(crate) nudge: u64,
}

/// A unit that has not returned is reported again after this, and then each time that it has run twice as long.
pub(crate) const AGAIN_NS: u64 = 2_000_000_000;

/// What a sample found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// A unit runs too long; `first`: it had not been found before.
    LongUnit {
        unit: Unit,
        ran_ns: u64,
        first: bool,
    },
    /// No progress for too long.
    Stalled { still_ns: u64 },
    /// Progress after a stall.
    Recovered { still_ns: u64 },
    /// Does it sleep or is it stuck? A message will tell.
    Nudge,
}

#[derive(Debug, Default)]
pub(crate) struct Observer {
    turns: u64,
    unit: Option<Unit>,
    /// How long the unit has been seen running, and how much of it was waiting for the core.
    unit_ns: u64,
    waited_ns: u64,
    before: Option<OsThreadTimes>,
    report_at: u64,
    still_ns: u64,
    stalled: bool,
    nudged: bool,
}

impl Observer {
    /// Looks at a reading that comes `passed` nanoseconds after the last one. `times` costs system calls, and is asked only for a
    /// unit that was there before.
    pub(crate) fn look(
        &mut self,
        limits: Limits,
        passed: u64,
        pulse: PulseReading,
        times: impl FnOnce() -> Option<OsThreadTimes>,
        mut found: impl FnMut(Finding),
    ) {
        // More than that is a clock that jumped, or this observer not getting the core: no evidence against the xstream.
        let passed = passed.min(2 * limits.period);
        let progress = pulse.turns != self.turns;
        if progress || pulse.unit != self.unit || pulse.unit.is_none() {
            self.unit = pulse.unit;
            self.unit_ns = 0;
            self.waited_ns = 0;
            self.before = None;
            self.report_at = limits.unit;
        } else {
            self.unit_runs_on(limits, passed, times(), &mut found);
        }
        self.turns = pulse.turns;
        self.watch_progress(limits, passed, progress, &mut found);
    }

    fn unit_runs_on(
        &mut self,
        limits: Limits,
        passed: u64,
        times: Option<OsThreadTimes>,
        found: &mut impl FnMut(Finding),
    ) {
        self.unit_ns += passed;
        if let (Some(before), Some(now)) = (self.before, times) {
            self.waited_ns += waited(before, now, passed);
        }
        self.before = times;
        let ran_ns = self.unit_ns.saturating_sub(self.waited_ns);
        let Some(unit) = self.unit else { return };
        if limits.unit > 0 && ran_ns >= self.report_at {
            let first = self.report_at == limits.unit;
            self.report_at = if first {
                AGAIN_NS.max(ran_ns)
            } else {
                ran_ns.saturating_mul(2)
            };
            found(Finding::LongUnit {
                unit,
                ran_ns,
                first,
            });
        }
    }

    fn watch_progress(
        &mut self,
        limits: Limits,
        passed: u64,
        progress: bool,
        found: &mut impl FnMut(Finding),
    ) {
        if progress {
            if std::mem::take(&mut self.stalled) {
                found(Finding::Recovered {
                    still_ns: self.still_ns,
                });
            }
            self.still_ns = 0;
            self.nudged = false;
            return;
        }
        self.still_ns += passed;
        if limits.nudge > 0 && self.still_ns >= limits.nudge && !self.nudged {
            self.nudged = true;
            found(Finding::Nudge);
        }
        if limits.stall > 0 && self.still_ns >= limits.stall && !self.stalled {
            self.stalled = true;
            found(Finding::Stalled {
                still_ns: self.still_ns,
            });
        }
    }

    /// What runs, and for how long it has been seen running.
    pub(crate) fn running(&self) -> Option<(Unit, u64)> {
        self.unit.map(|unit| (unit, self.unit_ns))
    }

    /// Whether it is without progress for longer than allowed.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Turns at the last look.
    pub(crate) fn turns(&self) -> u64 {
        self.turns
    }
}

/// How much of `passed` the thread wanted the core and did not get it: the kernel counts a delay when it ends, so for one that is
/// still runnable, what was not spent on the core was spent waiting for it.
fn waited(before: OsThreadTimes, now: OsThreadTimes, passed: u64) -> u64 {
    let delayed = now.delayed_ns.saturating_sub(before.delayed_ns);
    let used = now.cpu_ns.saturating_sub(before.cpu_ns);
    if now.runnable {
        delayed.max(passed.saturating_sub(used)).min(passed)
    } else {
        delayed.min(passed)
    }
}

#[cfg(test)]
mod tests;
