//! ULTs of modules on stacks of their own: what runs one, and which one runs.

use crate::modules::ModuleEntry;
use crate::shared::UltHandle;
use crate::sync::{Eventual, UltKey};
use daos_errno::Der;
use engine_ult::{Owner, StackError, UltError, ult};
use engine_xstream::{Beat, UltRequest};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

thread_local! {
    static RUNNING: RefCell<Option<Rc<Running>>> = const { RefCell::new(None) };
}

/// The ULT of a module whose code runs now.
pub(crate) struct Running {
    pub(crate) module: &'static ModuleEntry,
    /// Who it is to a mutex.
    pub(crate) key: UltKey,
    pub(crate) request: UltRequest,
    ended: Arc<Eventual>,
    /// An abort that it has not heard of ends a wait.
    cancels: Cell<bool>,
}

impl Running {
    /// For a handle on itself.
    pub(crate) fn handle(&self) -> UltHandle {
        UltHandle {
            address: self.request.address(),
            ended: Arc::clone(&self.ended),
        }
    }

    /// Waits on the ULT's own stack.
    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        engine_ult::wait(future)
    }

    /// The same for a wait that an abort may end, with `DER_CANCELED`.
    pub(crate) fn wait_or_stop<T>(
        &self,
        future: impl Future<Output = Result<T, Der>>,
    ) -> Result<T, Der> {
        if !self.cancels.get() {
            return self.wait(future);
        }
        let done = self.wait(self.request.unless_stopped(future));
        done.unwrap_or_else(|| {
            self.heard();
            Err(Der::CANCELED)
        })
    }

    /// It knows that it is to stop: from now on it waits as ever, to clean up.
    pub(crate) fn heard(&self) {
        self.cancels.set(false);
    }
}

/// The calling ULT; `None` in a message, a poller, an async task, and off xstreams.
pub(crate) fn running() -> Option<Rc<Running>> {
    RUNNING.with_borrow(Clone::clone)
}

/// Whether the OS thread has ended its own storage already.
pub(crate) fn os_thread_ends() -> bool {
    RUNNING.try_with(|_| ()).is_err()
}

/// What a module asked for.
#[derive(Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) module: &'static ModuleEntry,
    pub(crate) name: &'static str,
    /// Bytes; 0: the default.
    pub(crate) stack_size: usize,
    /// An abort ends its waits.
    pub(crate) cancels: bool,
    /// Its polls do not count as work.
    pub(crate) quiet: bool,
    /// 0: `body` runs once.
    pub(crate) period_ns: u64,
}

/// Runs `body` on a stack of its own; the result is its last answer, or `DER_NOMEM` without a stack and `DER_MISC` when it
/// did not come to its end. `told` tells it, too. On the ULT's xstream.
pub(crate) async fn run(
    spec: Spec,
    request: UltRequest,
    mut told: Told,
    body: impl FnMut() -> i32 + 'static,
) -> i32 {
    static KEYS: AtomicU64 = AtomicU64::new(1);
    let running = Rc::new(Running {
        module: spec.module,
        key: UltKey(KEYS.fetch_add(1, Ordering::Relaxed)),
        request,
        ended: Arc::clone(&told.0),
        cancels: Cell::new(spec.cancels),
    });
    let (own, xstream) = (Rc::clone(&running), running.request.xstream().name());
    let owner = spdk_thread::running_task().map(|task| Owner { xstream, task });
    let ult = ult(spec.name, spec.stack_size, move || repeat(spec, &own, body)).owned_by(owner);
    let ult = Scoped { running, ult };
    let ended = if spec.quiet {
        spdk_thread::quiet(ult).await
    } else {
        ult.await
    };
    told.1 = ended.unwrap_or_else(|error| match error {
        UltError::Panicked => Der::MISC.neg(),
        UltError::NoStack(why) => {
            no_stack(&spec, xstream, why);
            why.der().neg()
        }
    });
    told.1
}

/// Says so, once in a second on an OS thread: at a bound there may be thousands.
#[cold]
fn no_stack(spec: &Spec, xstream: &str, error: StackError) {
    thread_local! {
        static SAID: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    let lately = SAID
        .get()
        .is_some_and(|said| now - said < Duration::from_secs(1));
    if !lately {
        SAID.set(Some(now));
        let (module, ult) = (&spec.module.name, spec.name);
        tracing::warn!(module, ult, xstream, %error, "a ULT did not begin");
    }
}

/// The function, once or on its beat; on the ULT's stack.
fn repeat(spec: Spec, running: &Running, mut body: impl FnMut() -> i32) -> i32 {
    if spec.period_ns == 0 {
        return body();
    }
    let mut beat = Beat::new(spec.period_ns);
    let mut goes_on = !running.request.must_stop();
    let mut rc = 0;
    while goes_on {
        rc = body();
        goes_on = running.wait(beat.wait(&running.request));
    }
    rc
}

/// Tells how the ULT ended, also when it is dropped before, or never comes to its xstream.
pub(crate) struct Told(Arc<Eventual>, i32);

impl Told {
    /// Made with the ULT, not when that begins: until then it may be refused.
    pub(crate) fn new(ended: &Arc<Eventual>) -> Told {
        Told(Arc::clone(ended), Der::MISC.neg())
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.set(i64::from(self.1)); // once: nobody else sets it
    }
}

/// Makes the ULT the running one while its stack is in use.
struct Scoped<F> {
    running: Rc<Running>,
    ult: F,
}

impl<F: Future + Unpin> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        struct Reset(Option<Rc<Running>>);
        impl Drop for Reset {
            fn drop(&mut self) {
                let ours = RUNNING.replace(self.0.take());
                drop(ours);
            }
        }
        let _reset = Reset(RUNNING.replace(Some(Rc::clone(&self.running))));
        Pin::new(&mut self.ult).poll(cx)
    }
}
