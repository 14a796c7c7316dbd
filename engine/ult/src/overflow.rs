//! A stack that overflows is named; then the process ends, with a core file where the system writes one.
//!
//! It ends because nothing is known of what the ULT held: a lock of the C library, a list half changed. The guard below the stack
//! has seen to it that no other memory was touched.
//!
//! Invariant O1: the handler runs on the OS thread's own signal stack (the standard library gives each of its threads one) and
//! does only what a signal handler may: it reads thread-locals that need no construction, and writes to a descriptor.
#![allow(unsafe_code, reason = "handles a signal")]

use libc::{SA_ONSTACK, SA_SIGINFO, SIGSEGV, c_int, c_void, sigaction, siginfo_t};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    /// Of the ULT that runs on this OS thread: its name, and where its guard begins.
    static RUNNING: Cell<(&'static str, usize)> = const { Cell::new(("", 0)) };
}

/// The handler before ours, for all other faults.
static BEFORE: AtomicUsize = AtomicUsize::new(0);

/// Runs a ULT on, known to the handler by name and guard.
#[inline]
pub(crate) fn guarded<R>(name: &'static str, guard: usize, f: impl FnOnce() -> R) -> R {
    let before = RUNNING.replace((name, guard));
    let result = f();
    RUNNING.set(before);
    result
}

/// Installs the handler, once in the process.
pub fn name_overflows() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (mut new, mut old) = (empty(), empty());
        new.sa_sigaction = handle as *const () as usize;
        new.sa_flags = SA_SIGINFO | SA_ONSTACK;
        // SAFETY: O1; the actions are ours.
        if unsafe { sigaction(SIGSEGV, &raw const new, &raw mut old) } == 0 {
            BEFORE.store(old.sa_sigaction, Ordering::Release);
        } else {
            tracing::warn!("no handler for faults: an overflowing ULT will not be named");
        }
    });
}

fn empty() -> sigaction {
    // SAFETY: a plain C struct, for which zeroes are the default action and an empty mask.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let (name, guard) = RUNNING.get();
    // SAFETY: the kernel's, for the call.
    let at = unsafe { (*info).si_addr() }.addr();
    if guard != 0 && (guard..guard + crate::memory::GUARD).contains(&at) {
        say(&[
            "keel: ULT ",
            name,
            " overflowed its stack. Give it a larger one where it is created (stack_size), or use less of it. The engine ends: what \
             the ULT held is unknown.\n",
        ]);
        // SAFETY: may be called from a handler.
        unsafe { libc::abort() };
    }
    let before = BEFORE.load(Ordering::Acquire);
    if before == libc::SIG_DFL || before == libc::SIG_IGN {
        let default = empty();
        // SAFETY: O1; the fault comes again and takes the default action.
        unsafe { sigaction(signal, &raw const default, null_mut()) };
        return;
    }
    // SAFETY: what the process had installed before, the standard library's, with SA_SIGINFO.
    let before: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
        unsafe { std::mem::transmute(before) };
    before(signal, info, context);
}

fn say(parts: &[&str]) {
    for part in parts {
        // SAFETY: O1: a descriptor and bytes that live.
        let _ = unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
}
