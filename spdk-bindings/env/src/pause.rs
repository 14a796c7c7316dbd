//! Waiting a moment without giving the core away: the lightest way that the processor has.

#![allow(
    unsafe_code,
    reason = "the waiting instruction of the processor has no intrinsic yet"
)]

// Invariants (cited by the SAFETY comments below).
// P1. TPAUSE is executed only if CPUID 7.0 says that the processor has it (WAITPKG). It reads two registers, changes the
//     flags, and touches no memory.

use crate::Clock;

/// How this processor pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuPause {
    waits: bool,
}

impl CpuPause {
    /// Asks the processor.
    #[must_use]
    pub fn detect() -> CpuPause {
        CpuPause {
            waits: has_waitpkg() && Clock::tsc().is_tsc(),
        }
    }

    /// Whether a pause puts the core into a light sleep (`TPAUSE` in C0.2): power and the sibling hyper-thread gain from it.
    #[must_use]
    pub fn is_light_sleep(self) -> bool {
        self.waits
    }

    /// Waits at most about `ticks` of the time-stamp counter where the processor can; elsewhere a `PAUSE`, 40 to 140 cycles. An
    /// interrupt ends it.
    #[inline]
    pub fn pause(self, ticks: u64) {
        if self.waits {
            tpause(Clock::tsc().raw().wrapping_add(ticks));
        } else {
            std::hint::spin_loop();
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_waitpkg() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const WAITPKG: u32 = 1 << 5;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ecx & WAITPKG != 0
}

#[cfg(not(target_arch = "x86_64"))]
fn has_waitpkg() -> bool {
    false
}

/// Until the counter reaches `until` or the kernel's own bound (`/sys/devices/system/cpu/umwait_control/max_time`).
#[cfg(target_arch = "x86_64")]
#[inline]
fn tpause(until: u64) {
    /// Bit 0 clear: C0.2, the deeper of the two.
    const C02: u32 = 0;
    // SAFETY: P1: `waits` is only true where `has_waitpkg` is.
    unsafe {
        std::arch::asm!(
            "tpause ecx",
            in("ecx") C02,
            in("edx") (until >> 32) as u32,
            in("eax") until as u32,
            options(nomem, nostack),
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn tpause(_until: u64) {
    std::hint::spin_loop();
}

#[cfg(test)]
mod tests {
    use super::CpuPause;

    #[test]
    fn a_pause_ends_by_itself() {
        let detected = CpuPause::detect();
        for pause in [detected, CpuPause { waits: false }] {
            (0..100).for_each(|_| pause.pause(1000));
        }
    }
}
