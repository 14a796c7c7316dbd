//! Another OS thread of this process, seen from outside: what it used, and whether it waits.

#![allow(
    unsafe_code,
    reason = "reads another thread's processor-time clock, which has no safe wrapper"
)]

// Invariants (cited by the SAFETY comments below).
// O1. clock_gettime(2) writes one timespec and reads nothing but the clock's number; a number of a thread that is gone is an error.

use std::fs;

/// An OS thread of this process by the kernel's number. Any OS thread may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OsThread(i32);

/// What a thread has used so far, and what it is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OsThreadTimes {
    /// Nanoseconds on a core.
    pub cpu_ns: u64,
    /// Nanoseconds that it could have run but had to wait for the core.
    pub delayed_ns: u64,
    /// It runs or wants to; otherwise it waits in the kernel.
    pub runnable: bool,
}

impl OsThread {
    /// The thread with this number.
    #[must_use]
    pub const fn new(tid: i32) -> OsThread {
        OsThread(tid)
    }

    /// The calling one.
    #[must_use]
    pub fn current() -> OsThread {
        OsThread(rustix::thread::gettid().as_raw_nonzero().get())
    }

    /// The kernel's number.
    #[must_use]
    pub fn tid(self) -> i32 {
        self.0
    }

    /// Its times; none if it is gone. A kernel without schedstat counts no delays.
    #[must_use]
    pub fn times(self) -> Option<OsThreadTimes> {
        let cpu_ns = self.cpu_ns()?;
        let stat = fs::read_to_string(format!("/proc/self/task/{}/stat", self.0)).ok()?;
        let schedstat = fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.0));
        Some(OsThreadTimes {
            cpu_ns,
            delayed_ns: schedstat.ok().and_then(|line| delay_of(&line)).unwrap_or(0),
            runnable: state_of(&stat) == Some('R'),
        })
    }

    fn cpu_ns(self) -> Option<u64> {
        /// Per thread, scheduler's time (`CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED`, linux/posix-timers.h).
        const THREAD_CPU_TIME: i32 = 4 | 2;
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: O1.
        let failed = unsafe { libc::clock_gettime(!self.0 << 3 | THREAD_CPU_TIME, &raw mut time) };
        (failed == 0).then_some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }
}

/// The letter after the name, which may contain anything, brackets included.
fn state_of(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

/// "time on the core, time waiting for it, time slices".
fn delay_of(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{OsThread, delay_of, state_of};

    #[test]
    fn the_files_of_the_kernel_are_read_as_it_writes_them() {
        assert_eq!(state_of("17 (evil) R (x) S 1 2 3"), Some('S'));
        assert_eq!(state_of("17 cut"), None);
        assert_eq!(delay_of("63938 12631 2\n"), Some(12_631));
        assert_eq!(delay_of(""), None);
    }

    #[test]
    fn a_thread_that_works_is_seen_to_use_time_and_one_that_is_gone_is_not_there() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let worker = std::thread::spawn(move || {
            let own = OsThread::current();
            let before = own.times().expect("alive");
            assert!(before.runnable, "it asks, so it runs");
            while own.times().expect("alive").cpu_ns < before.cpu_ns + 1_000_000 {}
            tell.send(own).expect("listener");
            // It waits until the other side is gone.
            wait.recv().expect_err("closed");
        });
        let other = told.recv().expect("worker");
        assert!(other.times().expect("alive").cpu_ns >= 1_000_000);
        drop(done);
        worker.join().expect("no panic");
        // The number is free only when the kernel has finished with the thread.
        while other.times().is_some() {
            std::thread::yield_now();
        }
    }
}
