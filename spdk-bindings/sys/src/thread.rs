//! [`Thread`]: an SPDK thread and its messages.
#![allow(unsafe_code, reason = "polls, feeds and ends SPDK threads")]
//! - **T1** `Core::raw` is live from `ks_thread_create` until `Core::drop` destroys it. Whoever needs it holds the `Core`.
//! - **T2** only the OS thread of the `Thread` polls it, registers on it or exits it: `Core` is `!Send`, and a `Seed` holds its
//!   `Core` alone until it is started.
//! - **T3** each message in the mailbox is followed by exactly one token on SPDK's ring, and the token's argument is the `Shared` of the
//!   thread: that lives until as many tokens came as messages were accepted, which `Core::drop` waits for. So no token comes late,
//!   and SPDK, which aborts the process on a send to an exited thread, sees none.
//! - **T4** `Shared::inside` is touched by the thread's own OS thread only.
//! - **T5** SPDK aborts the process when a ring (65,536) or its pool (262,143) is full. A ring never holds more tokens than the
//!   mailbox has slots, plus one for each OS thread that is in the middle of a send, plus the one that ends a thread in interrupt mode; all mailboxes together stay below `ALL_MAILBOXES`.

use core::cell::{Cell, RefCell};
use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::{self, NonNull};
use std::any::Any;
use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use spdk_ring::mpsc::{self, TrySendError};

use crate::env::Env;
use crate::error::StartError;
use crate::ffi;
use crate::spdk::Spdk;

/// Messages that one mailbox may hold. (T5)
const MAILBOX: usize = 16_384;
/// Messages that all mailboxes may hold; SPDK's own messages and its caches of 1,024 for each thread share the rest of its pool. (T5)
const ALL_MAILBOXES: usize = 131_072;

static MAILBOXES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// SPDK's current thread of this OS thread, as far as this crate has set it.
    static CURRENT: Cell<*mut ffi::Thread> = const { Cell::new(ptr::null_mut()) };
    /// What a callback panicked with: raised again when C has returned.
    static PANIC: RefCell<Option<Box<dyn Any + Send>>> = const { RefCell::new(None) };
}

/// Runs a callback of C's: a panic waits until C has returned. (K3 of shim.h)
pub(crate) fn contained<R>(f: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => Some(value),
        Err(payload) => {
            let kept = PANIC.try_with(|panic| {
                panic.borrow_mut().get_or_insert(payload);
            });
            if kept.is_err() {
                tracing::error!("a callback of SPDK's panicked while its OS thread was ending");
            }
            None
        }
    }
}

/// Of the callbacks since the last time. An OS thread that ends may have ended this before a thread of SPDK's that it keeps.
fn take_panic() -> Option<Box<dyn Any + Send>> {
    let taken = PANIC.try_with(|panic| panic.borrow_mut().take());
    taken.ok().flatten()
}

pub(crate) fn raise() {
    if let Some(payload) = take_panic() {
        resume_unwind(payload);
    }
}

/// Why a message was not sent; it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError<M> {
    /// The mailbox is at its bound.
    Full(M),
    /// The thread is gone, or goes.
    Gone(M),
}

/// What one turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Turn {
    /// Messages of ours that ran.
    pub messages: u32,
    /// Whether anything was busy: messages, ours or SPDK's, or pollers.
    pub busy: bool,
}

/// Who takes messages, while a turn lasts.
type Handler<M> = NonNull<dyn FnMut(M)>;

/// What sender and thread share. (T3)
struct Shared<M> {
    raw: NonNull<ffi::Thread>,
    mailbox: mpsc::Sender<M>,
    inside: Inside<M>,
}

/// Of the thread's own OS thread. (T4)
struct Inside<M> {
    receiver: RefCell<mpsc::Receiver<M>>,
    /// Tokens that came and found no message yet: its sender was overtaken by another in the middle of sending.
    owed: Cell<usize>,
    /// Messages taken out, whether by a token or at the end.
    taken: Cell<usize>,
    tokens: Cell<usize>,
    /// Who takes messages; only during a turn.
    handler: Cell<Option<Handler<M>>>,
    ran: Cell<u32>,
}

// SAFETY: T1 for `raw`, which senders give to ks_thread_send only; T4 for `inside`; messages are `Send`.
unsafe impl<M: Send> Send for Shared<M> {}
// SAFETY: as above.
unsafe impl<M: Send> Sync for Shared<M> {}

impl<M> Inside<M> {
    fn take(&self) -> Option<M> {
        let message = self.receiver.borrow_mut().try_recv()?;
        self.taken.set(self.taken.get() + 1);
        Some(message)
    }

    /// A token came: one more message may run.
    fn token(&self) {
        self.tokens.set(self.tokens.get() + 1);
        self.owed.set(self.owed.get() + 1);
        // At the end the mailbox is emptied without tokens; those of what was dropped then owe nothing.
        let Some(handler) = self.handler.get() else {
            return;
        };
        while self.owed.get() > 0
            && let Some(message) = self.take()
        {
            self.owed.set(self.owed.get() - 1);
            self.ran.set(self.ran.get() + 1);
            // SAFETY: set by `Thread::poll`, which waits for us; one token runs at a time.
            let handler = unsafe { &mut *handler.as_ptr() };
            handler(message);
        }
    }
}

unsafe extern "C" fn token<M>(shared: *mut c_void) {
    // SAFETY: T3.
    let shared = unsafe { &*shared.cast_const().cast::<Shared<M>>() };
    contained(|| shared.inside.token());
}

/// What the end of a thread needs to know about its mailbox.
trait Mailbox {
    /// Accepts nothing more.
    fn close(&self);
    /// Drops what is in it; whether the tokens of all that was ever accepted have come.
    fn settle(&self) -> bool;
    fn slots(&self) -> usize;
}

impl<M: Send> Mailbox for Shared<M> {
    fn close(&self) {
        self.inside.receiver.borrow().close();
    }

    fn settle(&self) -> bool {
        while let Some(message) = self.inside.take() {
            drop(message);
        }
        // Not empty: a sender is in the middle of sending.
        let is_empty = self.inside.receiver.borrow().is_empty();
        is_empty && self.inside.tokens.get() == self.inside.taken.get()
    }

    fn slots(&self) -> usize {
        self.mailbox.capacity()
    }
}

/// An SPDK thread, for all that lives on it.
pub(crate) struct Core {
    raw: NonNull<ffi::Thread>,
    mailbox: Arc<dyn Mailbox>,
    name: String,
    /// `Thread`s of it, and channels that have gone with I/O out.
    handles: Cell<usize>,
    orphans: Cell<usize>,
    /// Subsystems outlive all threads but the app thread itself, the environment outlives that.
    _spdk: Option<Spdk>,
    env: Arc<Env>,
    _own_thread: PhantomData<*mut ()>,
}

impl Core {
    /// Makes it SPDK's current thread until the guard goes. Costs a look if it is already.
    #[inline]
    pub(crate) fn enter(&self) -> Entered {
        let before = CURRENT.get();
        if before != self.raw.as_ptr() {
            // SAFETY: T1, T2.
            unsafe { ffi::ks_thread_enter(self.raw.as_ptr()) };
            CURRENT.set(self.raw.as_ptr());
        }
        Entered { before }
    }

    /// A channel has gone, and SPDK still has its buffers; until `adopted` gives them back.
    pub(crate) fn orphan(&self) {
        self.orphans.set(self.orphans.get() + 1);
    }

    pub(crate) fn adopted(&self) {
        self.orphans.set(self.orphans.get() - 1);
    }

    fn turn(&self, max_messages: u32) -> bool {
        let _entered = self.enter();
        // SAFETY: T1, T2.
        unsafe { ffi::ks_thread_poll(self.raw.as_ptr(), max_messages) != 0 }
    }
}

impl Drop for Core {
    /// Nothing of ours lives on it any more; what SPDK still does there is waited for. SPDK gives up after 5 s and says what holds it.
    fn drop(&mut self) {
        self.mailbox.close();
        while !self.mailbox.settle() {
            self.turn(0);
        }
        {
            let _entered = self.enter();
            // SAFETY: T1, T2.
            unsafe { ffi::ks_thread_exit(self.raw.as_ptr()) };
        }
        // SAFETY: T1.
        while unsafe { ffi::ks_thread_is_exited(self.raw.as_ptr()) } == 0 {
            self.turn(0);
        }
        // SAFETY: T1: exited; T3: no token is under way, and none comes after `close`.
        unsafe { ffi::ks_thread_destroy(self.raw.as_ptr()) };
        MAILBOXES.fetch_sub(self.mailbox.slots(), Ordering::Relaxed);
        if take_panic().is_some() {
            tracing::error!(
                thread = self.name,
                "a poller panicked while its SPDK thread was ending"
            );
        }
    }
}

/// Keeps a thread SPDK's current one ([`Thread::enter`]); guards go in the reverse order of their coming.
pub struct Current {
    _entered: Entered,
    _core: Rc<Core>,
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Current({:?})", self._core.name)
    }
}

/// While it exists its thread is SPDK's current one.
pub(crate) struct Entered {
    before: *mut ffi::Thread,
}

impl Drop for Entered {
    #[inline]
    fn drop(&mut self) {
        if CURRENT.get() != self.before {
            // SAFETY: whoever was current before is still alive: its own guard is on the stack below.
            unsafe { ffi::ks_thread_enter(self.before) };
            CURRENT.set(self.before);
        }
    }
}

/// A thread that has an address but lives nowhere yet. Dropping it ends it.
pub struct Seed<M: Send + 'static> {
    thread: Option<Thread<M>>,
}

// SAFETY: T2: nobody else has the `Core`, and nothing was registered on it; SPDK keeps no OS thread in a thread of its own.
unsafe impl<M: Send> Send for Seed<M> {}

impl<M: Send> Seed<M> {
    /// Brings it to life on the calling OS thread, which is the only one that may poll it.
    #[must_use]
    pub fn start(mut self) -> Thread<M> {
        match self.thread.take() {
            Some(thread) => thread,
            None => unreachable!("a seed has its thread until it is started"),
        }
    }
}

impl<M: Send> fmt::Debug for Seed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seed({:?})", self.thread)
    }
}

/// A thread's address: sends it messages from any OS thread (SPDK: `spdk_thread_send_msg`).
pub struct Address<M: Send + 'static> {
    shared: Arc<Shared<M>>,
}

impl<M: Send> Clone for Address<M> {
    fn clone(&self) -> Self {
        Address {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<M: Send> Address<M> {
    /// Sends a message; those of one sender keep their order. It runs in a turn of the thread, in SPDK's order among SPDK's own
    /// messages. Never blocks or allocates.
    ///
    /// # Errors
    /// [`SendError`], with the message.
    #[inline]
    pub fn send(&self, message: M) -> Result<(), SendError<M>> {
        match self.shared.mailbox.try_send(message) {
            Ok(()) => {
                let shared = Arc::as_ptr(&self.shared).cast_mut().cast();
                // SAFETY: T3: the thread waits for this token; T5.
                unsafe { ffi::ks_thread_send(self.shared.raw.as_ptr(), token::<M>, shared) };
                Ok(())
            }
            Err(TrySendError::Full(message)) => Err(SendError::Full(message)),
            Err(TrySendError::Closed(message)) => Err(SendError::Gone(message)),
        }
    }

    /// Whether the thread is gone, or goes.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.shared.mailbox.is_closed()
    }
}

impl<M: Send> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address(gone: {})", self.is_gone())
    }
}

/// An SPDK thread (`struct spdk_thread`) that takes messages `M`. `!Send`: it stays where it was started, and what is made on it
/// keeps it alive: it ends with the last of its pollers, channels and clones of itself.
///
/// ```compile_fail,E0277
/// fn goes_elsewhere(thread: spdk_sys::Thread<u32>) {
///     std::thread::spawn(move || thread.poll(0, |_| ()));
/// }
/// ```
pub struct Thread<M: Send + 'static> {
    core: Rc<Core>,
    shared: Arc<Shared<M>>,
}

impl<M: Send> Thread<M> {
    /// A new thread: its address, which takes messages at once, and the seed that brings it to life. At most `mailbox` messages wait in it,
    /// rounded up to a power of two, at most 16,384.
    ///
    /// # Errors
    /// [`StartError::Threads`]: no memory for its ring, or all mailboxes together would be more than SPDK has messages for.
    pub fn create(
        spdk: &Spdk,
        name: &str,
        mailbox: usize,
    ) -> Result<(Address<M>, Seed<M>), StartError> {
        Self::create_in(spdk.env(), Some(spdk.clone()), name, mailbox)
    }

    pub(crate) fn create_in(
        env: &Arc<Env>,
        spdk: Option<Spdk>,
        name: &str,
        mailbox: usize,
    ) -> Result<(Address<M>, Seed<M>), StartError> {
        let refused = |why: &str| StartError::Threads(std::io::Error::other(why.to_owned()));
        let slots = mailbox.clamp(1, MAILBOX).next_power_of_two();
        let c_name = CString::new(name).map_err(|_| refused("a name with a zero byte in it"))?;
        if MAILBOXES.fetch_add(slots, Ordering::Relaxed) + slots > ALL_MAILBOXES {
            MAILBOXES.fetch_sub(slots, Ordering::Relaxed);
            return Err(refused(
                "all mailboxes together would hold more than the 131,072 messages that are kept for them",
            ));
        }
        // SAFETY: the environment and the thread library are up while `env` exists; the name is copied.
        let raw = NonNull::new(unsafe { ffi::ks_thread_create(c_name.as_ptr()) });
        let Some(raw) = raw else {
            MAILBOXES.fetch_sub(slots, Ordering::Relaxed);
            return Err(refused(
                "SPDK has no memory left for a thread's ring (about 1 MiB of its memory)",
            ));
        };
        let (sender, receiver) = mpsc::channel(slots);
        let shared = Arc::new(Shared {
            raw,
            mailbox: sender,
            inside: Inside {
                receiver: RefCell::new(receiver),
                owed: Cell::new(0),
                taken: Cell::new(0),
                tokens: Cell::new(0),
                handler: Cell::new(None),
                ran: Cell::new(0),
            },
        });
        let core = Rc::new(Core {
            raw,
            mailbox: Arc::clone(&shared) as Arc<dyn Mailbox>,
            name: name.to_owned(),
            handles: Cell::new(1),
            orphans: Cell::new(0),
            _spdk: spdk,
            env: Arc::clone(env),
            _own_thread: PhantomData,
        });
        let address = Address {
            shared: Arc::clone(&shared),
        };
        let thread = Some(Thread { core, shared });
        Ok((address, Seed { thread }))
    }

    pub(crate) fn core(&self) -> &Rc<Core> {
        &self.core
    }

    /// One turn: at most `max_messages` messages (0: SPDK's 8, which is also the most), then its pollers, those of SPDK's modules among them.
    ///
    /// # Panics
    /// With what a poller or `handler` panicked with, after SPDK has finished its turn; and if called from inside a turn of this thread.
    pub fn poll(&self, max_messages: u32, mut handler: impl FnMut(M)) -> Turn {
        let inside = &self.shared.inside;
        let handler: &mut dyn FnMut(M) = &mut handler;
        // SAFETY: only the life time is longer than the truth; it is taken away before this function returns.
        let erased = unsafe {
            core::mem::transmute::<NonNull<dyn FnMut(M) + '_>, NonNull<dyn FnMut(M)>>(
                NonNull::from(handler),
            )
        };
        // Before it is set: the outer turn's handler must stay.
        assert!(
            inside.handler.get().is_none(),
            "SPDK thread {:?} is polled from inside its own turn",
            self.core.name
        );
        inside.handler.set(Some(erased));
        inside.ran.set(0);
        let busy = self.core.turn(max_messages);
        inside.handler.set(None);
        raise();
        Turn {
            messages: inside.ran.get(),
            busy,
        }
    }

    /// Runs `f` with this thread as SPDK's current one, for what is done between turns.
    pub fn with<R>(&self, f: impl FnOnce() -> R) -> R {
        let _entered = self.core.enter();
        f()
    }

    /// As [`Thread::with`], until the guard goes.
    #[must_use]
    pub fn enter(&self) -> Current {
        Current {
            _entered: self.core.enter(),
            _core: Rc::clone(&self.core),
        }
    }

    /// Closes the mailbox: what was accepted still comes in turns.
    pub fn close(&self) {
        self.core.mailbox.close();
    }

    /// Whether no message waits, ordered against senders (`spdk_ring::mpsc::Receiver::settle`); SPDK's own do not count.
    #[must_use]
    pub fn settle(&self) -> bool {
        self.shared.inside.receiver.borrow().settle()
    }

    /// Another reference to the same thread.
    #[must_use]
    pub fn another(&self) -> Thread<M> {
        self.core.handles.set(self.core.handles.get() + 1);
        Thread {
            core: Rc::clone(&self.core),
            shared: Arc::clone(&self.shared),
        }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Address<M> {
        Address {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Messages that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.inside.receiver.borrow().len()
    }

    /// Whether SPDK wakes it, instead of being polled.
    #[must_use]
    pub fn in_interrupt_mode(&self) -> bool {
        self.core.env.interrupt_mode()
    }

    /// In interrupt mode ([`crate::Options::interrupt_mode`]): a descriptor that is readable while a turn would find something to do, a message, a
    /// timed poller that is due, a device that answered. Its turns then do nothing else. A copy of SPDK's.
    #[must_use]
    pub fn interrupt_fd(&self) -> Option<OwnedFd> {
        if !self.in_interrupt_mode() {
            return None;
        }
        // SAFETY: T1; in interrupt mode each thread has one, which is open until the thread is destroyed.
        let fd =
            unsafe { BorrowedFd::borrow_raw(ffi::ks_thread_interrupt_fd(self.core.raw.as_ptr())) };
        let copy = fd.try_clone_to_owned();
        if let Err(error) = &copy {
            tracing::error!(thread = self.core.name, %error, "no descriptor is left for a thread's interrupts: it is polled");
        }
        copy.ok()
    }

    /// Nanoseconds until the next timed poller is due, `None` without one.
    #[must_use]
    pub fn next_deadline_in(&self) -> Option<u64> {
        // SAFETY: T1, T2.
        let (at, now, hz) = unsafe {
            (
                ffi::ks_thread_next_expiration(self.core.raw.as_ptr()),
                ffi::ks_ticks(),
                ffi::ks_ticks_hz(),
            )
        };
        let ticks = u128::from(at.saturating_sub(now));
        let ns = ticks * 1_000_000_000 / u128::from(hz.max(1));
        (at != 0).then(|| u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// Whether a poller of every turn is registered, by us or by a module of SPDK's.
    #[must_use]
    pub fn has_active_pollers(&self) -> bool {
        // SAFETY: T1, T2.
        unsafe { ffi::ks_thread_has_active_pollers(self.core.raw.as_ptr()) != 0 }
    }

    /// How many hold it: clones, pollers, channels.
    #[must_use]
    pub fn holders(&self) -> usize {
        Rc::strong_count(&self.core)
    }
}

impl<M: Send> Drop for Thread<M> {
    /// Nobody turns the thread after its last handle: I/O that is out is waited for here, since nothing else would bring it back.
    fn drop(&mut self) {
        let core = &self.core;
        core.handles.set(core.handles.get() - 1);
        if core.handles.get() > 0 || core.orphans.get() == 0 {
            return;
        }
        tracing::warn!(
            thread = core.name,
            "an SPDK thread ends while I/O of its channels is out: waiting for it"
        );
        while core.orphans.get() > 0 {
            core.turn(0);
        }
    }
}

impl<M: Send> fmt::Debug for Thread<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thread({:?})", self.core.name)
    }
}
