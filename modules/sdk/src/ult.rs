//! Straight-line code: ULTs with stacks of their own, which wait in the middle of a function.
//!
//! Async tasks are cheaper and the usual way; this is for code that cannot be async: a library that calls back, deep recursion.
//!
//! Invariants, besides E1 to E3 of `engine.rs`:
//! - U1: `arg` of a created ULT is a `Box<F>` given to the engine, which calls the function once, on one xstream. A refused creation
//!   leaves it with the caller.
//! - U2: a handle in an [`Ult`], [`UltHandle`] or `Wait` is ours until its drop gives it back; the engine tells a stale one.
#![allow(unsafe_code, reason = "hands closures to the engine")]

use crate::engine::{self, panic_text};
use crate::sync::remote;
use crate::task::{JoinError, Xs, c_name};
use daos_errno::Der;
use module_abi::{DSS_FOREVER, dss_eventual, dss_ult, dss_ult_attr};
use std::ffi::c_void;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::ptr::null_mut;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// How a ULT is made; `UltOptions::default()` suits most.
#[derive(Debug, Clone, Copy, Default)]
pub struct UltOptions {
    /// Bytes that its functions need; 0: 64 KiB.
    pub stack_size: usize,
    /// Housekeeping: does not count as busy, keeps no core from resting.
    pub periodic: bool,
    /// An abort, or the end of its xstream, also ends what it waits for: the [`block_on`] or [`Ult::join`] under way, or else the next one that would have
    /// to wait, answers `DER_CANCELED` and drops its future. Once: from then on, or after [`yield_ult`] or [`sleep_ult`] told it, it waits as ever.
    pub cancel: bool,
}

/// Runs a function on a stack of its own, on an xstream.
///
/// # Errors
/// `DER_SHUTDOWN` once the engine stops, `DER_NOMEM` at a limit, `DER_INVAL` without a name or such an xstream,
/// `DER_OP_NOT_PERMITTED` off xstreams.
pub fn spawn_ult<T: Send + 'static>(
    xs: Xs,
    name: &str,
    options: UltOptions,
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<Ult<T>, Der> {
    let (done, result) = remote::channel();
    let named = name.to_owned();
    let body = move || {
        let result = catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
            let text = panic_text(&*panic);
            crate::error!("{named} panicked: {text}");
            JoinError::Panicked(text)
        });
        done.send(result);
    };
    let handle = create(xs, name, options, body)?;
    Ok(Ult { handle, result })
}

unsafe extern "C" fn run<F: FnOnce()>(arg: *mut c_void) {
    // SAFETY: U1.
    let f = unsafe { Box::from_raw(arg.cast::<F>()) };
    f();
}

fn create<F: FnOnce() + Send + 'static>(
    xs: Xs,
    name: &str,
    options: UltOptions,
    f: F,
) -> Result<UltHandle, Der> {
    let ((xs_type, tgt_id), name) = (xs.kind(), c_name(name));
    let attr = dss_ult_attr {
        name: name.as_ptr(),
        xs_type,
        tgt_id,
        stack_size: options.stack_size as u64,
        flags: flag(options.periodic, module_abi::DSS_ULT_PERIODIC)
            | flag(options.cancel, module_abi::DSS_ULT_CANCEL),
        period_ms: 0,
    };
    let (arg, mut ult) = (Box::into_raw(Box::new(f)), null_mut());
    let host = engine::host();
    // SAFETY: E1, E2, U1; the attributes are lent for the call.
    let rc = unsafe {
        (host.ult_create)(
            engine::module(),
            &raw const attr,
            Some(run::<F>),
            arg.cast(),
            &raw mut ult,
        )
    };
    match Der::check(rc) {
        Ok(()) => Ok(UltHandle(ult.addr())),
        Err(der) => {
            // SAFETY: U1: refused.
            drop(unsafe { Box::from_raw(arg) });
            Err(der)
        }
    }
}

fn flag(wanted: bool, flag: u32) -> u32 {
    if wanted { flag } else { 0 }
}

/// A ULT, and, as a future, its result: tasks await it, ULTs [`join`](Ult::join). Dropping it detaches. Any xstream.
#[derive(Debug)]
pub struct Ult<T> {
    handle: UltHandle,
    result: remote::Receiver<Result<T, JoinError>>,
}

impl<T> Ult<T> {
    /// Waits for it on the calling ULT's stack.
    ///
    /// # Errors
    /// `DER_MISC` when it panicked, `DER_SHUTDOWN` when it never ran, `DER_OP_NOT_PERMITTED` outside a ULT; `DER_CANCELED` with
    /// [`UltOptions::cancel`].
    pub fn join(self) -> Result<T, Der> {
        block_on(self)?.map_err(Der::from)
    }

    /// For waking and aborting it.
    pub fn handle(&self) -> &UltHandle {
        &self.handle
    }
}

impl<T> Future for Ult<T> {
    type Output = Result<T, JoinError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result)
            .poll(cx)
            .map(|result| result.unwrap_or(Err(JoinError::Canceled)))
    }
}

/// Wakes and aborts a ULT; on any xstream.
pub struct UltHandle(usize);

impl UltHandle {
    fn raw(&self) -> *mut dss_ult {
        std::ptr::without_provenance_mut(self.0)
    }

    /// A handle on the calling ULT.
    ///
    /// # Errors
    /// `DER_OP_NOT_PERMITTED` outside a ULT.
    pub fn of_this() -> Result<UltHandle, Der> {
        // SAFETY: E1, E3.
        let ult = unsafe { (engine::host().ult_self)() };
        if ult.is_null() {
            return Err(Der::OP_NOT_PERMITTED);
        }
        Ok(UltHandle(ult.addr()))
    }

    /// Ends its [`sleep_ult`]; nothing if it does not sleep.
    ///
    /// # Errors
    /// `DER_AGAIN` when its xstream is overloaded.
    pub fn wake(&self) -> Result<(), Der> {
        // SAFETY: E1, E3, U2.
        Der::check(unsafe { (engine::host().ult_wake)(self.raw()) })
    }

    /// Asks it to end: its sleep ends, [`yield_ult`] answers true from then on.
    ///
    /// # Errors
    /// As [`UltHandle::wake`].
    pub fn abort(&self) -> Result<(), Der> {
        // SAFETY: E1, E3, U2.
        Der::check(unsafe { (engine::host().ult_abort)(self.raw()) })
    }
}

impl fmt::Debug for UltHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UltHandle")
    }
}

impl Drop for UltHandle {
    fn drop(&mut self) {
        // SAFETY: E1, U2.
        unsafe { (engine::host().ult_free)(self.raw()) };
    }
}

/// True: come to your end (aborted, or the xstream stops; also outside a ULT). Otherwise lets others run.
pub fn yield_ult() -> bool {
    // SAFETY: E1, E3.
    unsafe { (engine::host().ult_yield)() != 0 }
}

/// Sleeps on the ULT's stack. True: woken or aborted before the time was up.
///
/// # Errors
/// `DER_OP_NOT_PERMITTED` outside a ULT.
pub fn sleep_ult(time: Duration) -> Result<bool, Der> {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    // SAFETY: E1, E3.
    let rc = unsafe { (engine::host().ult_sleep)(ms) };
    Der::check(rc.min(0)).map(|()| rc == 1)
}

/// Waits for a future on the calling ULT's stack: block I/O, RPC, whatever tasks await.
///
/// # Errors
/// `DER_OP_NOT_PERMITTED` outside a ULT, before the future is polled; `DER_NOMEM` at the engine's bound of objects; `DER_CANCELED` with
/// [`UltOptions::cancel`].
pub fn block_on<F: Future>(future: F) -> Result<F::Output, Der> {
    drop(UltHandle::of_this()?);
    let wait = Arc::new(Wait::new()?);
    let waker = Waker::from(Arc::clone(&wait));
    let (mut future, mut cx) = (pin!(future), Context::from_waker(&waker));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return Ok(output);
        }
        let (host, eventual) = (engine::host(), wait.raw());
        // SAFETY: E1, E3, U2. Reset before the next poll: a wake-up during it is not lost.
        unsafe {
            Der::check((host.eventual_wait)(eventual, DSS_FOREVER, null_mut()))?;
            (host.eventual_reset)(eventual);
        }
    }
}

/// What wakes a ULT that waits for a future.
struct Wait(usize);

impl Wait {
    fn new() -> Result<Wait, Der> {
        let mut eventual = null_mut();
        // SAFETY: E1, E2, E3.
        let rc = unsafe { (engine::host().eventual_create)(engine::module(), &raw mut eventual) };
        Der::check(rc).map(|()| Wait(eventual.addr()))
    }

    fn raw(&self) -> *mut dss_eventual {
        std::ptr::without_provenance_mut(self.0)
    }
}

impl Wake for Wait {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // SAFETY: E1, U2. Set already: it will look anyway.
        unsafe { (engine::host().eventual_set)(self.raw(), 0) };
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        // SAFETY: E1, U2: nobody can wake through it any more.
        unsafe { (engine::host().eventual_free)(self.raw()) };
    }
}
