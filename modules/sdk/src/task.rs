//! Tasks (ULTs): spawn, join, yield.
//!
//! Invariants, besides E1 to E3 of `engine.rs`:
//! - K1: `data` of a spawned task is a `Box<Task<F>>` given to the engine; the engine polls it on one xstream, one poll
//!   at a time, never after `drop` or after it was ready, and drops it once, there. It never moves: it stays boxed.
//! - K2: what crosses to another xstream before the first poll is a `Send` closure; the future that it makes is made
//!   by the first poll, on the xstream where it lives and dies.
//! - K3: a refused spawn leaves `data` with the caller.
#![allow(unsafe_code, reason = "hands boxed futures to the engine")]

use crate::engine::{self, contained, panic_text};
use crate::sync::{oneshot, remote};
use crate::waker::Cached;
use daos_errno::Der;
use module_abi::{
    DSS_TASK_PENDING, DSS_TASK_READY, DSS_XS_IOFW, DSS_XS_OFFLOAD, DSS_XS_SELF, DSS_XS_SYS,
    DSS_XS_VOS, dss_task_ops, dss_waker,
};
use std::ffi::{CString, c_void};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// An xstream, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xs {
    /// The caller's own.
    Current,
    /// The system xstream.
    System,
    /// The main xstream of a target.
    Target(u32),
    /// I/O forwarding for a target: its first offload xstream.
    IoForward(u32),
    /// Computation for a target: its last offload xstream.
    Offload(u32),
}

impl Xs {
    pub(crate) fn kind(self) -> (i32, i32) {
        let target = |t: u32| i32::try_from(t).unwrap_or(i32::MAX); // the engine refuses it
        match self {
            Xs::Current => (DSS_XS_SELF, -1),
            Xs::System => (DSS_XS_SYS, -1),
            Xs::Target(t) => (DSS_XS_VOS, target(t)),
            Xs::IoForward(t) => (DSS_XS_IOFW, target(t)),
            Xs::Offload(t) => (DSS_XS_OFFLOAD, target(t)),
        }
    }
}

/// Why a task has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinError {
    /// It panicked; what it said.
    Panicked(String),
    /// The engine dropped it: the xstream stops.
    Canceled,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Panicked(text) => write!(f, "the task panicked: {text}"),
            JoinError::Canceled => {
                f.write_str("the task was dropped before its end: the engine stops")
            }
        }
    }
}

impl std::error::Error for JoinError {}

impl From<JoinError> for Der {
    fn from(error: JoinError) -> Der {
        match error {
            JoinError::Panicked(_) => Der::MISC,
            JoinError::Canceled => Der::SHUTDOWN,
        }
    }
}

/// The result of a task of the same xstream. Dropping it detaches the task.
#[derive(Debug)]
pub struct JoinHandle<T>(oneshot::Receiver<Result<T, JoinError>>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|result| result.unwrap_or(Err(JoinError::Canceled)))
    }
}

/// The result of a task of another xstream. Dropping it detaches the task.
#[derive(Debug)]
pub struct RemoteJoin<T>(remote::Receiver<Result<T, JoinError>>);

impl<T> Future for RemoteJoin<T> {
    type Output = Result<T, JoinError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|result| result.unwrap_or(Err(JoinError::Canceled)))
    }
}

/// Runs a future as a task of this xstream.
///
/// # Errors
/// `DER_SHUTDOWN` once the engine stops, `DER_NOMEM` at the xstream's task limit, `DER_OP_NOT_PERMITTED` off xstreams.
pub fn spawn<F: Future + 'static>(name: &str, future: F) -> Result<JoinHandle<F::Output>, Der> {
    let (done, result) = oneshot::channel();
    let named = name.to_owned();
    launch(name, Xs::Current, async move {
        done.send(caught(&named, future).await)
    })?;
    Ok(JoinHandle(result))
}

/// Runs the future that `make` makes as a task of another xstream; `make` travels, the future never does.
///
/// # Errors
/// As [`spawn`]; `DER_INVAL` for a target that does not exist.
pub fn spawn_on<F, M>(xs: Xs, name: &str, make: M) -> Result<RemoteJoin<F::Output>, Der>
where
    F: Future + 'static,
    F::Output: Send,
    M: FnOnce() -> F + Send + 'static,
{
    let (done, result) = remote::channel();
    let named = name.to_owned();
    // K2: before its first poll this block holds `make`, `named` and `done` only, all `Send`.
    launch(name, xs, async move {
        done.send(caught(&named, async move { make().await }).await)
    })?;
    Ok(RemoteJoin(result))
}

/// Runs a function once, to completion, on an xstream; from any thread, while the module serves.
///
/// # Errors
/// As [`spawn_on`]; `DER_OP_NOT_PERMITTED` before setup and after cleanup.
pub fn tasklet(xs: Xs, name: &str, f: impl FnOnce() + Send + 'static) -> Result<(), Der> {
    unsafe extern "C" fn run<F: FnOnce()>(data: *mut c_void) {
        // SAFETY: as K1 and K2: boxed below, run once, `Send`.
        let f = unsafe { Box::from_raw(data.cast::<F>()) };
        contained("a tasklet", (), f);
    }
    fn start<F: FnOnce() + Send + 'static>(xs: Xs, name: &str, f: F) -> Result<(), Der> {
        let ((kind, target), name) = (xs.kind(), c_name(name));
        let data = Box::into_raw(Box::new(f));
        let host = engine::host();
        // SAFETY: E1, E2; the name is borrowed for the call, `data` moves when it succeeds.
        let rc = unsafe {
            (host.tasklet)(
                engine::module(),
                name.as_ptr(),
                kind,
                target,
                Some(run::<F>),
                data.cast(),
            )
        };
        Der::check(rc).inspect_err(|_| {
            // SAFETY: K3.
            drop(unsafe { Box::from_raw(data) });
        })
    }
    start(xs, name, f)
}

/// Lets the other tasks of this xstream run first.
pub fn yield_now() -> impl Future<Output = ()> {
    let mut yielded = false;
    std::future::poll_fn(move |cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Runs a future; a panic becomes its result and a log line.
pub(crate) async fn caught<F: Future>(what: &str, future: F) -> Result<F::Output, JoinError> {
    let mut future = Box::pin(future);
    std::future::poll_fn(move |cx| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => {
                let text = panic_text(&*panic);
                crate::error!("{what} panicked: {text}");
                Poll::Ready(Err(JoinError::Panicked(text)))
            }
        }
    })
    .await
}

struct Task<F> {
    waker: Cached,
    future: F,
}

/// Gives a future to the engine. What the future holds must be `Send` before the first poll when `xs` is another one.
pub(crate) fn launch<F: Future<Output = ()> + 'static>(
    name: &str,
    xs: Xs,
    future: F,
) -> Result<(), Der> {
    let (kind, target) = xs.kind();
    let data = Box::into_raw(Box::new(Task {
        waker: Cached::default(),
        future,
    }));
    let name = c_name(name);
    // SAFETY: E1, E2, K1; name and operations outlive the call.
    let rc = unsafe {
        (engine::host().task_spawn)(
            engine::module(),
            name.as_ptr(),
            kind,
            target,
            Task::<F>::OPS,
            data.cast(),
        )
    };
    Der::check(rc).inspect_err(|_| {
        // SAFETY: K3.
        drop(unsafe { Box::from_raw(data) });
    })
}

pub(crate) fn c_name(name: &str) -> CString {
    let visible: Vec<u8> = name.bytes().filter(|b| *b != 0).collect();
    CString::new(visible).unwrap_or_default()
}

impl<F: Future<Output = ()> + 'static> Task<F> {
    const OPS: &'static dss_task_ops = &dss_task_ops {
        poll: Some(Self::poll),
        drop: Some(Self::drop),
    };

    unsafe extern "C" fn poll(data: *mut c_void, lent: *const dss_waker) -> i32 {
        contained("a task", DSS_TASK_READY, || {
            // SAFETY: K1.
            let task = unsafe { &mut *data.cast::<Self>() };
            // SAFETY: the engine lends it for this call.
            let waker = unsafe { task.waker.get(lent) };
            // SAFETY: K1: boxed, and not moved until dropped in place.
            let future = unsafe { Pin::new_unchecked(&mut task.future) };
            match future.poll(&mut Context::from_waker(waker)) {
                Poll::Pending => DSS_TASK_PENDING,
                Poll::Ready(()) => DSS_TASK_READY,
            }
        })
    }

    unsafe extern "C" fn drop(data: *mut c_void) {
        // SAFETY: K1.
        let task = unsafe { Box::from_raw(data.cast::<Self>()) };
        contained("a task's destructor", (), || drop(task));
    }
}
