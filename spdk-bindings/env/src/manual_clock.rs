//! A clock that tests turn by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds that move only when told to. Clones show the same time; may be used from any OS thread.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that shows `ns`.
    #[must_use]
    pub fn at(ns: u64) -> Self {
        Self(Arc::new(AtomicU64::new(ns)))
    }

    /// Nanoseconds now.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Moves the clock on and returns the new time.
    pub fn advance(&self, ns: u64) -> u64 {
        self.0.fetch_add(ns, Ordering::AcqRel) + ns
    }

    /// Sets the clock to `ns`; it never goes back: an earlier time leaves it where it is.
    pub fn set(&self, ns: u64) {
        self.0.fetch_max(ns, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::ManualClock;

    #[test]
    fn clones_share_the_time_and_it_never_goes_back() {
        let clock = ManualClock::at(5);
        let other = clock.clone();
        assert_eq!(clock.advance(10), 15);
        other.set(3);
        assert_eq!(other.now(), 15);
        other.set(30);
        assert_eq!(clock.now(), 30);
    }
}
