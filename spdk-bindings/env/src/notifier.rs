//! Waking a sleeping reactor: an eventfd behind a flag that says whether anybody sleeps.

use crate::Clock;
use rustix::event::{EventfdFlags, eventfd};
use spdk_ring::Doorbell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// A [`Doorbell`] that rings by an eventfd: [`notify`](Self::notify) to a sleeper writes it, to somebody awake it is one
/// load. `Send + Sync`.
///
/// Register the descriptor edge-triggered: each ring of the bell is then one event, and nobody has to read it.
#[derive(Debug)]
pub struct Notifier {
    fd: OwnedFd,
    bell: Doorbell,
    rang_at: AtomicU64,
}

impl Notifier {
    /// A doorbell that nobody listens to yet.
    ///
    /// # Errors
    /// What eventfd(2) says: the process or the system is out of descriptors.
    pub fn new() -> std::io::Result<Notifier> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Notifier {
            fd,
            bell: Doorbell::new(),
            rang_at: AtomicU64::new(0),
        })
    }

    /// Wakes the sleeper if there is one. Call it after the work is in place. Any OS thread; never blocks.
    #[inline]
    pub fn notify(&self) {
        self.bell.notify(|| {
            self.rang_at.store(Clock::tsc().now(), Ordering::Relaxed);
            // EAGAIN means that the counter is full of earlier rings: the descriptor is readable, which is the point.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        });
    }

    /// As [`Doorbell::rest`]: `sleep` waits on the descriptor.
    pub fn rest<T>(&self, is_quiet: impl FnOnce() -> bool, sleep: impl FnOnce() -> T) -> Option<T> {
        self.bell.rest(is_quiet, sleep)
    }

    /// Whether somebody sleeps, or is about to, and nobody has rung since.
    #[must_use]
    pub fn is_resting(&self) -> bool {
        self.bell.is_resting()
    }

    /// When the bell last rang, as [`Clock::now`]; 0: never.
    #[must_use]
    pub fn rang_at(&self) -> u64 {
        self.rang_at.load(Ordering::Relaxed)
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes an eventfd readable.
pub fn ring_eventfd(fd: impl AsFd) {
    // EAGAIN: its counter is full of earlier rings, so it is readable.
    let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
}

/// Takes what an eventfd has counted, so that it is not readable any more; nothing when it is not.
pub fn drain_eventfd(fd: impl AsFd) {
    take_eventfd(fd);
}

/// As [`drain_eventfd`]; true when somebody had rung. The descriptor does not block.
pub fn take_eventfd(fd: impl AsFd) -> bool {
    // EAGAIN: nothing was counted.
    rustix::io::read(fd, &mut [0; 8]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::Notifier;
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::Timespec;

    fn readable(notifier: &Notifier) -> bool {
        let mut fds = [PollFd::new(notifier, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).expect("poll") == 1
    }

    #[test]
    fn rings_only_for_a_sleeper_and_only_once() {
        let notifier = Notifier::new().expect("eventfd");
        notifier.notify();
        assert!(!readable(&notifier), "nobody sleeps");
        let slept = notifier.rest(
            || {
                assert!(notifier.is_resting());
                true
            },
            || {
                assert!(!readable(&notifier));
                notifier.notify();
                assert!(readable(&notifier));
                assert!(!notifier.is_resting(), "the first ring takes the flag");
                let mut count = [0; 8];
                rustix::io::read(&notifier, &mut count).expect("eventfd");
                notifier.notify();
                assert!(!readable(&notifier), "one ring is enough");
            },
        );
        assert!(slept.is_some() && notifier.rang_at() > 0);
        notifier.notify();
        assert!(!readable(&notifier), "awake");
    }

    #[test]
    fn who_finds_work_at_the_last_look_does_not_sleep() {
        let notifier = Notifier::new().expect("eventfd");
        let slept = notifier.rest(|| false, || panic!("there is work"));
        assert!(slept.is_none() && !notifier.is_resting());
        notifier.notify();
        assert!(!readable(&notifier), "awake");
    }
}
