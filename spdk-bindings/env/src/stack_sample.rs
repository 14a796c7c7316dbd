//! Looking at another OS thread's stack while it runs: a signal makes it copy its registers and the top of its stack into a
//! buffer that was there before. Unwinding and naming is done elsewhere, at leisure.

#![allow(
    unsafe_code,
    reason = "installs a signal handler, which copies the interrupted thread's stack"
)]

// Invariants (cited by the SAFETY comments below).
// S1. The handler is async-signal-safe: it reads its arguments, atomics and the calling thread's errno, and makes one system
//     call; it takes no lock, allocates nothing and cannot unwind.
// S2. `SLOT`'s bytes have one owner at a time: the handler from its successful exchange WANTED -> COPYING until it stores
//     COPIED; the sampler, of which there is one because it holds `SAMPLER`, otherwise.
// S3. The kernel calls an SA_SIGINFO handler with a valid `ucontext_t`.
// S4. process_vm_readv(2) of the own process reads mapped pages and refuses others; it never faults in the caller.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::io;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// So much of a stack is copied, from its top: enough for a few hundred frames.
pub const STACK_BYTES: usize = 64 << 10;
const PAGE: usize = 4096;
const PIECES: usize = STACK_BYTES / PAGE + 1;

const IDLE: u32 = 0;
const WANTED: u32 = 1;
const COPYING: u32 = 2;
const COPIED: u32 = 3;

struct Slot {
    state: AtomicU32,
    wanted: AtomicI32,
    pc: AtomicU64,
    sp: AtomicU64,
    fp: AtomicU64,
    len: AtomicUsize,
    bytes: UnsafeCell<[u8; STACK_BYTES]>,
}

// SAFETY: S2.
unsafe impl Sync for Slot {}

static SLOT: Slot = Slot {
    state: AtomicU32::new(IDLE),
    wanted: AtomicI32::new(0),
    pc: AtomicU64::new(0),
    sp: AtomicU64::new(0),
    fp: AtomicU64::new(0),
    len: AtomicUsize::new(0),
    bytes: UnsafeCell::new([0; STACK_BYTES]),
};

static SAMPLER: Mutex<()> = Mutex::new(());

/// What a thread looked like when it was interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackSample {
    /// Program counter.
    pub pc: u64,
    /// Stack pointer: the address of the first of `stack`'s bytes.
    pub sp: u64,
    /// Frame pointer register.
    pub fp: u64,
    /// The top of the stack; shorter where it ends or is not mapped, empty where the kernel forbids the copy.
    pub stack: Vec<u8>,
}

/// Why there is no sample.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// Other processors.
    #[error("stacks are sampled on x86-64 only")]
    Unsupported,
    /// The handler could not be installed.
    #[error("cannot install the handler of the sampling signal: {0}")]
    Handler(io::Error),
    /// The thread is gone.
    #[error("OS thread {tid} takes no signal: {source}")]
    Gone {
        /// The kernel's number.
        tid: i32,
        /// What the kernel said.
        source: io::Error,
    },
    /// It did not run in time: it waits in the kernel without being interruptible, or gets no processor.
    #[error("OS thread {tid} did not answer: it waits in the kernel, or gets no processor")]
    NoAnswer {
        /// The kernel's number.
        tid: i32,
    },
}

/// Interrupts OS thread `tid` of this process, wherever it is, and copies its registers and stack. The thread goes on at once;
/// a system call that it waits in is restarted, or returns EINTR where the kernel does not restart it (epoll, futex with a timeout). One
/// sample at a time in a process: others wait. Uses the real-time signal `SIGRTMIN + 8`.
///
/// # Errors
/// [`SampleError`].
pub fn sample_stack(tid: i32, patience: Duration) -> Result<StackSample, SampleError> {
    let _one: MutexGuard<'_, ()> = SAMPLER.lock().unwrap_or_else(PoisonError::into_inner);
    install()?;
    SLOT.wanted.store(tid, Ordering::Relaxed);
    SLOT.state.store(WANTED, Ordering::Release);
    if let Err(source) = kill(tid) {
        SLOT.state.store(IDLE, Ordering::Release);
        return Err(SampleError::Gone { tid, source });
    }
    let until = Instant::now() + patience;
    while SLOT.state.load(Ordering::Acquire) != COPIED {
        if Instant::now() >= until
            && SLOT
                .state
                .compare_exchange(WANTED, IDLE, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        {
            return Err(SampleError::NoAnswer { tid });
        }
        // Not so short that it takes the core from whom it waits for.
        std::thread::sleep(Duration::from_micros(200));
    }
    let len = SLOT.len.load(Ordering::Relaxed).min(STACK_BYTES);
    // SAFETY: S2: the state is COPIED, and this thread holds `SAMPLER`.
    let stack = unsafe { (&*SLOT.bytes.get())[..len].to_vec() };
    let sample = StackSample {
        pc: SLOT.pc.load(Ordering::Relaxed),
        sp: SLOT.sp.load(Ordering::Relaxed),
        fp: SLOT.fp.load(Ordering::Relaxed),
        stack,
    };
    SLOT.state.store(IDLE, Ordering::Release);
    Ok(sample)
}

fn signal() -> c_int {
    libc::SIGRTMIN() + 8
}

fn kill(tid: i32) -> io::Result<()> {
    let pid = std::process::id();
    // SAFETY: tgkill(2) takes numbers only; the signal's handler is installed (S1).
    let failed = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal()) };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn install() -> Result<(), SampleError> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    if !cfg!(target_arch = "x86_64") {
        return Err(SampleError::Unsupported);
    }
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: all bytes zero is a valid `sigaction`: no flags, an empty mask, the default handler.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_signal;
        action.sa_sigaction = handler as usize;
        // On the alternate stack: the interrupted one may be a small one of a ULT, or at its end.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        // SAFETY: the handler is async-signal-safe (S1), and `action` is initialised.
        let failed = unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) };
        if failed == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error().raw_os_error().unwrap_or(0))
        }
    });
    installed.map_err(|errno| SampleError::Handler(io::Error::from_raw_os_error(errno)))
}

#[cfg(target_arch = "x86_64")]
extern "C" fn on_signal(_signal: c_int, _info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: gettid(2) takes nothing.
    let own = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
    if SLOT.wanted.load(Ordering::Relaxed) != own {
        return;
    }
    // A signal that comes after its request was given up finds nothing to do.
    let taken = SLOT
        .state
        .compare_exchange(WANTED, COPYING, Ordering::AcqRel, Ordering::Relaxed);
    if taken.is_err() {
        return;
    }
    // SAFETY: S3.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let register = |name: c_int| registers[name as usize] as u64;
    let sp = register(libc::REG_RSP);
    SLOT.pc.store(register(libc::REG_RIP), Ordering::Relaxed);
    SLOT.sp.store(sp, Ordering::Relaxed);
    SLOT.fp.store(register(libc::REG_RBP), Ordering::Relaxed);
    SLOT.len.store(copy_stack(sp as usize), Ordering::Relaxed);
    SLOT.state.store(COPIED, Ordering::Release);
}

#[cfg(not(target_arch = "x86_64"))]
extern "C" fn on_signal(_signal: c_int, _info: *mut libc::siginfo_t, _context: *mut c_void) {}

/// Copies from `sp` upwards, page by page, until the end of what is mapped. Runs in the handler.
#[cfg(target_arch = "x86_64")]
fn copy_stack(sp: usize) -> usize {
    // A transfer stops at the first piece that cannot be read whole, so each page is a piece.
    let empty = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    let mut remote = [empty; PIECES];
    let (mut at, mut left) = (sp, STACK_BYTES);
    for piece in &mut remote {
        let len = (PAGE - at % PAGE).min(left);
        *piece = libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(at),
            iov_len: len,
        };
        at = at.wrapping_add(len);
        left -= len;
    }
    let local = libc::iovec {
        iov_base: SLOT.bytes.get().cast(),
        iov_len: STACK_BYTES,
    };
    // SAFETY: `__errno_location` gives the calling thread's own errno, which lives as long as the thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    // SAFETY: S4 for what is read; S2 for what is written: the state is COPYING.
    let copied = unsafe {
        libc::process_vm_readv(
            libc::getpid(),
            &raw const local,
            1,
            remote.as_ptr(),
            PIECES as libc::c_ulong,
            0,
        )
    };
    // SAFETY: as above. The interrupted code must not see that somebody was here.
    unsafe { *errno = before };
    usize::try_from(copied).unwrap_or(0)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::OsThread;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn a_spinning_and_a_waiting_thread_show_what_lies_on_their_stacks() {
        for spins in [true, false] {
            let (stop, wait) = mpsc::channel::<()>();
            let stopped = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let (tell, told) = mpsc::channel();
                let stopped = &stopped;
                scope.spawn(move || {
                    let mark = [0x6b65_656c_6d61_726b_u64; 32];
                    tell.send(OsThread::current()).expect("listener");
                    while spins && !stopped.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                    let _ = wait.recv();
                    std::hint::black_box(&mark);
                });
                let thread = told.recv().expect("worker");
                let sample = sample_stack(thread.tid(), PATIENCE).expect("sample");
                assert_ne!(sample.pc, 0);
                let mark = 0x6b65_656c_6d61_726b_u64.to_ne_bytes();
                let marks = sample.stack.chunks(8).filter(|word| *word == mark).count();
                assert!(marks >= 32, "{marks} marks in {} bytes", sample.stack.len());
                stopped.store(true, Ordering::Relaxed);
                drop(stop);
            });
        }
    }

    #[test]
    fn who_is_gone_is_an_error_and_the_next_sample_works() {
        let gone = std::thread::spawn(OsThread::current)
            .join()
            .expect("worker");
        while gone.times().is_some() {
            std::thread::yield_now();
        }
        let error = sample_stack(gone.tid(), PATIENCE).expect_err("gone");
        assert!(matches!(error, SampleError::Gone { .. }), "{error}");
        let own = OsThread::current().tid();
        std::thread::spawn(move || sample_stack(own, PATIENCE).expect("sample"))
            .join()
            .expect("sampler");
    }
}
