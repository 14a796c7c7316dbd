//! Going to rest without missing anything: the flag between one who may sleep and those who bring work.

use crate::primitive::{AtomicUsize, Ordering};

const AWAKE: usize = 0;
const RESTING: usize = 1;

/// A flag that costs a notifier one load while nobody rests. What wakes the sleeper (an eventfd) is the caller's.
///
/// The sleeper's last look has to be ordered against the notifier's own writes: work that is announced with an atomic
/// read-modify-write (a ring's reservation, a wake bit) is looked for with a read-modify-write of the same word
/// ([`Receiver::settle`](crate::mpsc::Receiver::settle)). Then either the sleeper sees the work, or the notifier sees the flag.
#[derive(Debug)]
pub struct Doorbell(AtomicUsize);

impl Default for Doorbell {
    fn default() -> Doorbell {
        Doorbell::new()
    }
}

impl Doorbell {
    /// Nobody rests.
    #[must_use]
    pub fn new() -> Doorbell {
        Doorbell(AtomicUsize::new(AWAKE))
    }

    /// Calls `ring` if somebody rests: once for each rest, whoever comes first. Call it after the work is in place. Any OS thread.
    #[inline]
    pub fn notify(&self, ring: impl FnOnce()) {
        if self.0.load(Ordering::Acquire) == RESTING {
            self.take(ring);
        }
    }

    #[cold]
    fn take(&self, ring: impl FnOnce()) {
        if self.0.swap(AWAKE, Ordering::AcqRel) == RESTING {
            ring();
        }
    }

    /// Rests: sets the flag, then asks `is_quiet` for work one last time, and only if there is none calls `sleep`, which returns
    /// when `ring` was called, or earlier. None: there was work. One OS thread at a time.
    pub fn rest<T>(&self, is_quiet: impl FnOnce() -> bool, sleep: impl FnOnce() -> T) -> Option<T> {
        self.0.swap(RESTING, Ordering::AcqRel);
        let slept = is_quiet().then(sleep);
        self.0.store(AWAKE, Ordering::Release);
        slept
    }

    /// Whether somebody rests and nobody has rung since.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        self.0.load(Ordering::Acquire) == RESTING
    }
}
