//! Waking a sleeping reactor: an eventfd behind a flag that says whether anybody sleeps.

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// A doorbell. The sleeper [arms](Self::arm) it, looks for work one last time, and sleeps on the descriptor;
/// [`notify`](Self::notify) to a sleeper writes the eventfd, to somebody awake it is one load. `Send + Sync`.
///
/// The last look has to be ordered against the notifier's own writes: work that is announced with an atomic
/// read-modify-write (a ring's reservation, a wake bit) is looked for with a read-modify-write of the same word after
/// `arm` (`spdk_ring::mpsc::Receiver::settle`). Then either the sleeper sees the work, or the notifier sees the flag.
///
/// Register the descriptor edge-triggered: each ring of the bell is then one event, and nobody has to read it.
#[derive(Debug)]
pub struct Notifier {
    fd: OwnedFd,
    sleeping: AtomicBool,
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
            sleeping: AtomicBool::new(false),
        })
    }

    /// Wakes the sleeper if there is one. Call it after the work is in place. Any OS thread; never blocks.
    #[inline]
    pub fn notify(&self) {
        if self.sleeping.load(Ordering::Acquire) {
            self.ring();
        }
    }

    #[cold]
    fn ring(&self) {
        // Of several notifiers one rings.
        if self.sleeping.swap(false, Ordering::AcqRel) {
            // EAGAIN means that the counter is full of earlier rings: the descriptor is readable, which is the point.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// "I am about to sleep." Look for work once more after this, then sleep.
    pub fn arm(&self) {
        self.sleeping.swap(true, Ordering::AcqRel);
    }

    /// "I am awake": later notifications cost one load.
    pub fn disarm(&self) {
        self.sleeping.store(false, Ordering::Release);
    }

    /// Whether the sleeper has armed the bell and nobody has rung it since.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.sleeping.load(Ordering::Acquire)
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::Notifier;
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::Timespec;

    fn readable(notifier: &Notifier) -> bool {
        let mut fds = [PollFd::new(notifier, PollFlags::IN)];
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )
        .expect("poll")
            == 1
    }

    #[test]
    fn rings_only_for_a_sleeper_and_only_once() {
        let notifier = Notifier::new().expect("eventfd");
        notifier.notify();
        assert!(!readable(&notifier), "nobody sleeps");
        notifier.arm();
        assert!(notifier.is_armed());
        notifier.notify();
        assert!(readable(&notifier));
        assert!(!notifier.is_armed(), "the first ring takes the flag");
        let mut count = [0; 8];
        rustix::io::read(&notifier, &mut count).expect("eventfd");
        notifier.notify();
        assert!(!readable(&notifier), "already awake");
        notifier.arm();
        notifier.disarm();
        notifier.notify();
        assert!(!readable(&notifier), "disarmed");
    }
}
