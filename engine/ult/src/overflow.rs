//! A stack that overflows is named; then the process ends, with a core file where the system writes one.
//!
//! Why it ends: docs/decisions/0041-stack-overflow.md. The guard below the stack has seen to it that no other memory was touched.
//!
//! Invariants:
//! - O1: the handler runs on the OS thread's own signal stack (the standard library gives each of its threads one) and does only what
//!   a signal handler may: it reads thread-locals that need no construction, and writes to a descriptor.
//! - O2: while a ULT runs, `RUNNING` points to the record of its stack, which the coroutine that runs owns; else it is NULL.
#![allow(unsafe_code, reason = "handles a signal")]

use crate::memory::{DEFAULT_SIZE, ENGINE_SIZE, GUARD, Record};
use libc::{SA_ONSTACK, SA_SIGINFO, SIGSEGV, c_int, c_void, sigaction, siginfo_t};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    /// Of the ULT that runs on this OS thread.
    static RUNNING: Cell<*const Record> = const { Cell::new(null()) };
}

/// The handler before ours, for all other faults.
static BEFORE: AtomicUsize = AtomicUsize::new(0);

/// Runs a ULT on, known to the handler by its stack.
#[inline]
pub(crate) fn guarded<R>(stack: *const Record, f: impl FnOnce() -> R) -> R {
    let before = RUNNING.replace(stack);
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
    // SAFETY: O2.
    let running = unsafe { RUNNING.get().as_ref() };
    // SAFETY: the kernel's, for the call.
    let at = unsafe { (*info).si_addr() }.addr();
    if let Some(stack) = running
        && (stack.guard()..stack.guard() + GUARD).contains(&at)
    {
        name(stack);
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

/// What, where, why, cure.
fn name(stack: &Record) {
    let name = stack.name.get();
    let (module, ult) = name.split_once(':').unwrap_or(("", name));
    let xstream = stack.owner.get().map_or("", |owner| owner.xstream);
    let mut digits = [[0; 20]; 3];
    let [all, own, default] = &mut digits;
    say(&["keel: ULT ", ult]);
    if !module.is_empty() {
        say(&[" of module ", module]);
    }
    if !xstream.is_empty() {
        say(&[" on xstream ", xstream]);
    }
    say(&[
        " overflowed its stack of ",
        decimal(all, stack.size()),
        " bytes, of which ",
        decimal(own, ENGINE_SIZE),
        " are for the engine's own functions. Ask for a larger one where the ULT is created (stack_size of dss_ult_create() and \
         struct dss_ult_attr, UltOptions::stack_size in Rust; 0 means ",
        decimal(default, DEFAULT_SIZE),
        "), or put less on it. The engine ends here, with a core file where the system writes one, because what the ULT held is \
         unknown; what was acknowledged is on the devices.\n",
    ]);
}

/// A number in a buffer that holds any.
fn decimal(digits: &mut [u8; 20], mut number: usize) -> &str {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return str::from_utf8(&digits[at..]).unwrap_or("?");
        }
    }
}

fn say(parts: &[&str]) {
    for part in parts {
        // SAFETY: O1: a descriptor and bytes that live.
        let _ = unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn numbers_are_written_without_the_formatter() {
        let mut digits = [0; 20];
        for number in [0, 7, 65_536, usize::MAX] {
            assert_eq!(decimal(&mut digits, number), number.to_string());
        }
    }
}
