//! Monotonic time in nanoseconds: from the processor's time-stamp counter where that can be trusted.

#![allow(
    unsafe_code,
    reason = "reads the time-stamp counter and asks the processor whether it is invariant"
)]

// Invariants (cited by the SAFETY comments below).
// I1. RDTSC exists on every x86-64 processor and touches no memory.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A clock: monotonic nanoseconds with the origin of `CLOCK_MONOTONIC`. Two words, `Copy`; may be used from any OS
/// thread. All clocks of a process agree.
///
/// With an invariant time-stamp counter that the kernel trusts, [`now`](Self::now) is about 10 ns and no system call;
/// elsewhere it is `clock_gettime` (about 25 ns through the vDSO). SPDK: `spdk_get_ticks`, `spdk_get_ticks_hz`.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    scale: Option<Scale>,
}

/// Nanoseconds = origin_ns + (ticks - origin_ticks) * multiplier / 2^32.
#[derive(Debug, Clone, Copy)]
struct Scale {
    origin_ticks: u64,
    origin_ns: u64,
    multiplier: u64,
}

impl Scale {
    #[inline]
    fn nanos(self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.multiplier)) >> 32) as u64
    }

    #[inline]
    fn at(self, ticks: u64) -> u64 {
        // Another core's counter may lag by a few ticks: time then stands still instead of jumping.
        self.origin_ns + self.nanos(ticks.saturating_sub(self.origin_ticks))
    }
}

impl Clock {
    /// The process's clock. The first call calibrates the counter against `CLOCK_MONOTONIC` for about 4 ms (the error
    /// is about ten parts in a million); later calls copy the result.
    #[must_use]
    pub fn tsc() -> Clock {
        static CLOCK: OnceLock<Clock> = OnceLock::new();
        *CLOCK.get_or_init(|| Clock {
            scale: counter_is_trusted().then(calibrate).flatten(),
        })
    }

    /// The clock that asks the kernel each time, whatever the processor can do.
    #[must_use]
    pub const fn system() -> Clock {
        Clock { scale: None }
    }

    /// Nanoseconds now.
    #[must_use]
    #[inline]
    pub fn now(&self) -> u64 {
        match self.scale {
            Some(scale) => scale.at(ticks()),
            None => monotonic(),
        }
    }

    /// The raw counter, for the difference of two readings; nanoseconds already if the counter is not used.
    #[must_use]
    #[inline]
    pub fn raw(&self) -> u64 {
        if self.scale.is_some() {
            ticks()
        } else {
            monotonic()
        }
    }

    /// A difference of two [`raw`](Self::raw) readings in nanoseconds.
    #[must_use]
    #[inline]
    pub fn ticks_to_ns(&self, ticks: u64) -> u64 {
        match self.scale {
            Some(scale) => scale.nanos(ticks),
            None => ticks,
        }
    }

    /// As many ticks of [`raw`](Self::raw) as fit into `ns`.
    #[must_use]
    pub fn ns_to_ticks(&self, ns: u64) -> u64 {
        match self.scale {
            Some(scale) => ((u128::from(ns) << 32) / u128::from(scale.multiplier.max(1))) as u64,
            None => ns,
        }
    }

    /// Whether this clock reads the time-stamp counter.
    #[must_use]
    pub fn is_tsc(&self) -> bool {
        self.scale.is_some()
    }
}

fn monotonic() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn ticks() -> u64 {
    // SAFETY: I1.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> u64 {
    monotonic()
}

/// The counter runs at one rate in every power state (CPUID 8000_0007h EDX bit 8), and the kernel, which also compares
/// the cores with each other, still lists it as a clock source. Or the kernel itself keeps time by it: hypervisors hide that bit
/// to be free to move the machine, and `clock_gettime` then is this counter too, only dearer.
#[cfg(target_arch = "x86_64")]
fn counter_is_trusted() -> bool {
    use std::arch::x86_64::__cpuid;
    const EXTENDED: u32 = 0x8000_0000;
    const POWER: u32 = 0x8000_0007;
    let invariant = __cpuid(EXTENDED).eax >= POWER && __cpuid(POWER).edx & (1 << 8) != 0;
    let source = |file| std::fs::read_to_string(format!("{CLOCK_SOURCES}/{file}")).ok();
    (invariant && lists_tsc(source("available_clocksource").as_deref()).unwrap_or(true))
        || lists_tsc(source("current_clocksource").as_deref()).unwrap_or(false)
}

#[cfg(not(target_arch = "x86_64"))]
fn counter_is_trusted() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
const CLOCK_SOURCES: &str = "/sys/devices/system/clocksource/clocksource0";

/// Whether the kernel names `tsc` there: it takes it off its list once it has found it unstable. None without sysfs, where the
/// processor's word has to do.
#[cfg(target_arch = "x86_64")]
fn lists_tsc(sources: Option<&str>) -> Option<bool> {
    sources.map(|list| list.split_whitespace().any(|source| source == "tsc"))
}

/// A reading of both clocks: the tightest of several, so that an interrupt in between does not count.
fn sample() -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..16 {
        let before = ticks();
        let ns = monotonic();
        let after = ticks();
        let width = after.saturating_sub(before);
        if width < best.0 {
            best = (width, before + width / 2, ns);
        }
    }
    (best.1, best.2)
}

fn calibrate() -> Option<Scale> {
    let (first_ticks, first_ns) = sample();
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(4) {
        std::hint::spin_loop();
    }
    let (last_ticks, last_ns) = sample();
    scale_from((first_ticks, first_ns), (last_ticks, last_ns))
}

/// The scale through two readings; none if they make no sense (a stopped or backward counter).
fn scale_from(first: (u64, u64), last: (u64, u64)) -> Option<Scale> {
    let (ticks, ns) = (last.0.checked_sub(first.0)?, last.1.checked_sub(first.1)?);
    // Slower than 1 MHz or faster than 100 GHz is not a counter that we know.
    if ns == 0 || ticks < ns / 1000 || ticks / 100 > ns {
        return None;
    }
    let multiplier = u64::try_from((u128::from(ns) << 32) / u128::from(ticks)).ok()?;
    Some(Scale {
        origin_ticks: last.0,
        origin_ns: last.1,
        multiplier,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_clock_never_goes_back_and_agrees_with_the_kernel() {
        let clock = Clock::tsc();
        let mut last = clock.now();
        for _ in 0..100_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        // The same origin: a second is far more than any calibration error, far less than a wrong origin.
        assert!(monotonic().abs_diff(clock.now()) < 1_000_000_000);
    }

    #[test]
    fn raw_differences_convert_to_nanoseconds() {
        let scale =
            scale_from((1000, 50), (1000 + 2_450_000, 50 + 1_000_000)).expect("a 2.45 GHz counter");
        let clock = Clock { scale: Some(scale) };
        assert!(clock.ticks_to_ns(2_450).abs_diff(1_000) <= 1);
        assert!(
            clock
                .ticks_to_ns(2_450_000_000 * 86_400)
                .abs_diff(86_400_000_000_000)
                < 86_400_000
        );
        assert_eq!(Clock::system().ticks_to_ns(17), 17);
        assert!(clock.ns_to_ticks(1_000).abs_diff(2_450) <= 1);
        assert_eq!(Clock::system().ns_to_ticks(17), 17);
    }

    #[test]
    fn a_counter_that_lags_behind_the_origin_stands_still() {
        let scale = Scale {
            origin_ticks: 1000,
            origin_ns: 77,
            multiplier: 1 << 32,
        };
        assert_eq!(scale.at(990), 77);
        assert_eq!(scale.at(1005), 82);
    }

    #[test]
    fn counters_that_make_no_sense_are_refused() {
        assert!(scale_from((10, 0), (5, 1000)).is_none(), "backward");
        assert!(scale_from((10, 0), (10, 1_000_000)).is_none(), "stopped");
        assert!(scale_from((0, 5), (1000, 5)).is_none(), "no time passed");
        assert!(
            scale_from((0, 0), (1_000_000_000, 1000)).is_none(),
            "1000 GHz"
        );
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_counter_that_the_kernel_distrusts_is_not_used() {
        assert_eq!(lists_tsc(Some("tsc kvm-clock\n")), Some(true));
        assert_eq!(lists_tsc(Some("kvm-clock hpet acpi_pm\n")), Some(false));
        assert_eq!(lists_tsc(Some("tsc-early\n")), Some(false));
        assert_eq!(lists_tsc(None), None);
    }
}
