//! An xstream seen from anywhere: its address.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use spdk_thread::{SendError, Thread, ThreadHandle};

use crate::chores::Credits;
use crate::{Role, SpawnError, Xstream, XstreamId, XstreamSpec, current};

/// What the xstream and all its addresses share.
pub(crate) struct Shared {
    pub(crate) spec: XstreamSpec,
    /// Kept for ever: some ten bytes for each xstream that is started.
    pub(crate) name: &'static str,
    pub(crate) handle: ThreadHandle,
    /// No more ULTs. Set once, from the control thread that shuts down.
    pub(crate) stopping: AtomicBool,
    /// The engine shuts down. Set once, from the control thread.
    pub(crate) shutting_down: AtomicBool,
    /// On helpers: what they can take of chores.
    pub(crate) chores: Option<Credits>,
}

/// An xstream's address: clone it freely, use it from any OS thread.
#[derive(Clone)]
pub struct XstreamRef {
    pub(crate) shared: Arc<Shared>,
}

/// Says so, once in a second on an OS thread: at the limit there may be thousands.
#[cold]
fn say_dropped(ult: &str, xstream: &Xstream, error: &SpawnError) {
    thread_local! {
        static SAID_AT: Cell<Option<Instant>> = const { Cell::new(None) };
        static DROPPED: Cell<u64> = const { Cell::new(0) };
    }
    DROPPED.set(DROPPED.get() + 1);
    let now = Instant::now();
    let lately = SAID_AT
        .get()
        .is_some_and(|at| now - at < Duration::from_secs(1));
    if !lately {
        SAID_AT.set(Some(now));
        let (xstream, dropped) = (xstream.name(), DROPPED.take());
        tracing::warn!(ult, xstream, dropped, %error, "ULT dropped");
    }
}

impl XstreamRef {
    pub(crate) fn new(spec: XstreamSpec, thread: &Thread, chore_credits: u32) -> XstreamRef {
        let name = Box::leak(spec.name().into_boxed_str());
        let handle = thread.handle();
        let (stopping, shutting_down) = (AtomicBool::new(false), AtomicBool::new(false));
        let chores = (spec.role == Role::Offload).then(|| Credits::new(chore_credits));
        XstreamRef {
            shared: Arc::new(Shared {
                spec,
                name,
                handle,
                stopping,
                shutting_down,
                chores,
            }),
        }
    }

    /// Its id.
    pub fn id(&self) -> XstreamId {
        self.shared.spec.id
    }

    /// What it is for.
    pub fn role(&self) -> Role {
        self.shared.spec.role
    }

    /// Its target, or the target that it helps.
    pub fn target(&self) -> Option<u32> {
        self.shared.spec.target
    }

    /// The CPU that it is bound to.
    pub fn cpu(&self) -> usize {
        self.shared.spec.cpu
    }

    /// `keel_sys_0`, `keel_io_<target>`, `keel_off_<id>`.
    pub fn name(&self) -> &'static str {
        self.shared.name
    }

    /// Its row of the layout.
    pub fn spec(&self) -> &XstreamSpec {
        &self.shared.spec
    }

    /// Its thread's mailbox.
    pub fn handle(&self) -> &ThreadHandle {
        &self.shared.handle
    }

    /// Whether it takes no new ULTs any more.
    pub fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Acquire)
    }

    /// Whether the engine shuts down, as this xstream sees it (DAOS: `dss_srv_shutting_down()`).
    pub fn is_shutting_down(&self) -> bool {
        self.shared.shutting_down.load(Ordering::Acquire)
    }

    /// Runs `f` on the xstream in a later turn; FIFO per sender; never blocks. Messages pass while the engine stops,
    /// until the xstream has ended.
    ///
    /// # Errors
    /// As [`ThreadHandle::send`].
    #[inline]
    pub fn send(&self, f: impl FnOnce(&Xstream) + Send + 'static) -> Result<(), SendError> {
        self.shared.handle.send(move |_| match current() {
            Some(xstream) => f(&xstream),
            // Its storage has ended: what the message would have found is gone.
            None => tracing::debug!("a message came after its xstream's end"),
        })
    }

    /// Creates a ULT on the xstream, from anywhere. `f` runs there and makes the future. Detached: who needs the
    /// result uses [`XstreamRef::execute`]. DAOS: `dss_ult_create`.
    ///
    /// # Errors
    /// [`SpawnError::Shutdown`] once the engine stops, [`SpawnError::Full`] at the mailbox's bound. If the xstream is
    /// at its limit of ULTs when the message arrives, the ULT is dropped and the log says so.
    pub fn spawn<F, Fut>(&self, name: &'static str, f: F) -> Result<(), SpawnError>
    where
        F: FnOnce(&Xstream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        self.check_running()?;
        let sent = self.send(move |xstream| {
            if let Err(error) = xstream.spawn_accepted(name, f(xstream)) {
                say_dropped(name, xstream, &error);
            }
        });
        sent.map_err(|error| self.refused(error))
    }

    pub(crate) fn check_running(&self) -> Result<(), SpawnError> {
        if self.is_stopping() {
            Err(SpawnError::Shutdown(self.id()))
        } else {
            Ok(())
        }
    }

    pub(crate) fn refused(&self, error: SendError) -> SpawnError {
        match error {
            SendError::Full => SpawnError::Full(self.id()),
            SendError::Exited => SpawnError::Shutdown(self.id()),
        }
    }
}

impl fmt::Debug for XstreamRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XstreamRef({} {})", self.id(), self.name())
    }
}
