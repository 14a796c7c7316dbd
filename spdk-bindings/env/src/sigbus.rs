#![allow(
    unsafe_code,
    reason = "a signal handler replaces pages of a device that is gone; the sites rest on S1 to S3"
)]
//! Registers of a device that was pulled out: the kernel takes their pages away, and the next access is a SIGBUS. The handler
//! puts pages of ones in their place, which is what PCI Express answers, and the access goes on.
//!
//! Rules that the `unsafe` sites rest on:
//!
//! - **S1 known ranges**: `RANGES` holds start and length of mapped BARs only. An entry is written (length last) before the BAR is first read, and cleared
//!   before it is unmapped.
//! - **S2 signal safety**: the handler uses atomics, mmap, memory writes to the page that it made, and sigaction: nothing that allocates or locks.
//! - **S3 others' faults**: a fault outside of the ranges gets the handler that was there before; without one the process ends as it would have.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::io;
use std::sync::OnceLock;

/// Devices that may be open at once.
const MAX_RANGES: usize = 256;
const PAGE: usize = crate::PAGE;

struct Range {
    start: AtomicUsize,
    len: AtomicUsize,
    /// A page of it was replaced.
    lost: AtomicUsize,
}

static RANGES: [Range; MAX_RANGES] = [const {
    Range {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        lost: AtomicUsize::new(0),
    }
}; MAX_RANGES];

/// The handler that was there before ours.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// A guarded BAR; the guard ends with it.
pub(crate) struct Guard(usize);

impl Guard {
    /// Guards `len` bytes at `start`, which are mapped and outlive the guard.
    pub(crate) fn new(start: usize, len: usize) -> io::Result<Guard> {
        install()?;
        for (at, range) in RANGES.iter().enumerate() {
            let free = range
                .start
                .compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed);
            if free.is_ok() {
                range.lost.store(0, Ordering::Relaxed);
                range.len.store(len, Ordering::Release);
                return Ok(Guard(at));
            }
        }
        Err(io::Error::other("256 devices are open"))
    }

    /// What the device's owner asks whether it is gone.
    pub(crate) fn sentinel(&self) -> Sentinel {
        Sentinel(self.0)
    }
}

/// Whether a guarded device was found gone; meant while its guard exists.
pub(crate) struct Sentinel(usize);

impl Sentinel {
    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        RANGES[self.0].lost.load(Ordering::Relaxed) != 0
    }

    /// Lets go of the device: its registers read as ones from now on, and nothing reaches it. False when the system has no memory for
    /// that; then accesses still go to the device.
    pub(crate) fn retire(&self) -> bool {
        let range = &RANGES[self.0];
        let (start, len) = (
            range.start.load(Ordering::Acquire),
            range.len.load(Ordering::Acquire),
        );
        range.lost.store(1, Ordering::Relaxed);
        replace(start, len)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        RANGES[self.0].len.store(0, Ordering::Release);
        RANGES[self.0].start.store(0, Ordering::Release);
    }
}

fn install() -> io::Result<()> {
    if BEFORE.get().is_some() {
        return Ok(());
    }
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeroes is a valid sigaction.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = on_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
    // SAFETY: both point to structures of the call's type; the handler is signal-safe (S2).
    let done = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, before.as_mut_ptr()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed before, and written by the call. Of two that race here the second finds our own handler: it keeps the first's.
    let before = unsafe { before.assume_init() };
    if before.sa_sigaction != action.sa_sigaction {
        let _ = BEFORE.set(before);
    }
    Ok(())
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a valid siginfo to a handler with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    for range in &RANGES {
        let (start, len) = (
            range.start.load(Ordering::Acquire),
            range.len.load(Ordering::Acquire),
        );
        if len != 0 && address >= start && address - start < len {
            range.lost.store(1, Ordering::Relaxed);
            if replace(address & !(PAGE - 1), PAGE) {
                return;
            }
        }
    }
    pass_on(signal, info, context);
}

/// Pages of ones in place of those of a device that is gone, or given back.
fn replace(start: usize, len: usize) -> bool {
    // SAFETY: S1: the pages belong to a BAR of ours; nobody holds references into it (W3 of mmio.rs), so they may be replaced.
    let fresh = unsafe {
        libc::mmap(
            start as *mut c_void,
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    if fresh == libc::MAP_FAILED {
        return false;
    }
    // SAFETY: just mapped, writable, `len` bytes long; no reference into it exists, and racing register accesses may see zeroes for a moment.
    unsafe { ptr::write_bytes(fresh.cast::<u8>(), 0xff, len) };
    true
}

/// What would have happened without us (S3).
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if let Some(before) = BEFORE.get()
        && before.sa_sigaction != libc::SIG_DFL
        && before.sa_sigaction != libc::SIG_IGN
    {
        if before.sa_flags & libc::SA_SIGINFO != 0 {
            // SAFETY: with SA_SIGINFO the field holds a function of this type; it gets what the kernel gave us.
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { core::mem::transmute(before.sa_sigaction) };
            return handler(signal, info, context);
        }
        // SAFETY: without SA_SIGINFO the field holds a function of this type.
        let handler: extern "C" fn(c_int) = unsafe { core::mem::transmute(before.sa_sigaction) };
        return handler(signal);
    }
    // SAFETY: the default action; returning repeats the access, which then ends the process.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is cut short under its mapping faults as a device that is gone does.
    #[test]
    fn a_page_that_is_gone_reads_as_ones_and_takes_writes() {
        use std::os::fd::AsRawFd;
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * PAGE as u64).unwrap();
        // SAFETY: a new shared mapping of a file of ours.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                2 * PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        let guard = Guard::new(start as usize, 2 * PAGE).unwrap();
        let word = start.cast::<u32>().wrapping_add(PAGE / 4);
        // SAFETY: mapped above.
        assert_eq!(unsafe { word.read_volatile() }, 0);
        assert!(!guard.sentinel().is_lost());
        file.set_len(0).unwrap();
        // SAFETY: mapped, though nothing is behind it: the handler sees to that.
        let gone = unsafe { word.read_volatile() };
        assert_eq!(gone, u32::MAX);
        assert!(guard.sentinel().is_lost());
        // SAFETY: as above; the other page faults now.
        unsafe { start.cast::<u32>().write_volatile(7) };
        drop(guard);
        // SAFETY: our mapping, and nobody uses it any more.
        unsafe { libc::munmap(start, 2 * PAGE) };
    }
}
