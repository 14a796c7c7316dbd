//! The server as a poller of the system xstream.
//!
//! The poller looks at flags that the reactor's epoll sets and at one counter of finished calls: no system call while nothing is
//! ready, and a sleeping reactor is woken by the sockets, by replies from other threads and by deadlines. Each call runs in
//! a ULT of its own.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use daos_errno::Der;
use engine_xstream::Xstream;
use spdk_thread::{FdWatch, Interest, Period, PollResult, Poller, Thread, ThreadHandle};

use crate::metrics::Metrics;
use crate::server::DrpcServer;
use crate::spawner::{Job, Spawner};
use crate::stats::Stats;

/// How often deadlines are looked at while there are any.
const DEADLINE_PERIOD_NS: u64 = 100_000_000;

/// An installed server, from any thread. Dropping it closes the server.
#[derive(Debug)]
pub struct DrpcService {
    control: Arc<Control>,
    path: PathBuf,
}

/// What the owner and the poller tell each other.
struct Control {
    /// A [`Command`].
    command: AtomicU8,
    published: Mutex<Published>,
    changed: Condvar,
    thread: ThreadHandle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
enum Command {
    Serve,
    Quiesce,
    Close,
}

/// What the poller says about itself after each busy turn.
#[derive(Clone, Copy, Debug, Default)]
struct Published {
    stats: Stats,
    quiet: bool,
    closed: bool,
}

/// Calls that were still running when the time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{calls} dRPC calls did not end within {waited:?}; their callers get no answer")]
pub struct Unanswered {
    /// How many.
    pub calls: usize,
    /// How long they were waited for.
    pub waited: Duration,
}

/// Makes `server` a poller of `xstream` (the system xstream). Call it there.
pub fn install(mut server: DrpcServer, xstream: &Xstream) -> DrpcService {
    let thread = xstream.thread();
    server.set_spawner(Box::new(UltSpawner(xstream.clone())));
    let path = server.path().map(Path::to_owned).unwrap_or_default();
    let control = Arc::new(Control {
        command: AtomicU8::new(Command::Serve as u8),
        published: Mutex::default(),
        changed: Condvar::new(),
        thread: thread.handle(),
    });
    let waker = thread.handle();
    server.completions.wake_with(Box::new(move || wake(&waker)));
    let installed = Rc::new(RefCell::new(Installed::new(server, thread, &control)));
    let state = Rc::clone(&installed);
    let poller = thread.register_poller("drpc", Period::EveryTurn, move |now| {
        state.borrow_mut().turn(now)
    });
    poller.set_interrupt_mode(true);
    let state = Rc::clone(&installed);
    let period = Period::Nanos(DEADLINE_PERIOD_NS);
    let deadlines = thread.register_poller("drpc deadlines", period, move |now| {
        state.borrow_mut().look_at_deadlines(now)
    });
    deadlines.pause();
    installed.borrow_mut().pollers = Some(Pollers {
        _turn: poller,
        deadlines,
    });
    DrpcService { control, path }
}

impl DrpcService {
    /// The socket file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the server has done and holds, as of its last busy turn.
    pub fn stats(&self) -> Stats {
        self.control.published().stats
    }

    /// No new connections and calls from now on, the socket file goes; replies to running calls still go out.
    pub fn quiesce(&self) {
        self.control.order(Command::Quiesce);
    }

    /// Quiesces, waits until every running call is answered or `wait` is over, and closes. Control threads only: it blocks.
    ///
    /// # Errors
    /// How many calls were not answered; the server is closed all the same.
    pub fn shutdown(self, wait: Duration) -> Result<(), Unanswered> {
        self.quiesce();
        let until = Instant::now() + wait;
        let last = self.control.wait(until, |p| p.quiet || p.closed);
        self.control.order(Command::Close);
        self.control.wait(until + wait, |p| p.closed);
        if last.quiet || last.closed {
            return Ok(());
        }
        Err(Unanswered {
            calls: last.stats.in_flight,
            waited: wait,
        })
    }
}

impl Drop for DrpcService {
    fn drop(&mut self) {
        self.control.order(Command::Close);
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", *self.published())
    }
}

impl Control {
    fn published(&self) -> MutexGuard<'_, Published> {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, command: Command) {
        self.command.fetch_max(command as u8, Ordering::AcqRel);
        wake(&self.thread);
    }

    fn wait(&self, until: Instant, done: impl Fn(&Published) -> bool) -> Published {
        let mut published = self.published();
        while !done(&published) && !self.thread.is_exited() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            // Looks up now and then: a thread that has exited publishes nothing.
            let left = left.min(Duration::from_millis(50));
            let waited = self.changed.wait_timeout(published, left);
            published = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *published
    }
}

/// Makes the xstream take another turn. A full mailbox means that it has turns to take anyway; an exited one none.
fn wake(thread: &ThreadHandle) {
    let _ = thread.send(|_| ());
}

/// Each call in a ULT of the system xstream.
struct UltSpawner(Xstream);

impl Spawner for UltSpawner {
    fn spawn(&mut self, job: Job) -> Result<(), Der> {
        let ult = self.0.spawn("drpc call", async move { job() });
        ult.map(|handle| handle.detach()).map_err(|e| e.der())
    }
}

struct Pollers {
    _turn: Poller,
    deadlines: Poller,
}

/// The state of both pollers, on the xstream.
struct Installed {
    server: DrpcServer,
    thread: Thread,
    listener: Option<FdWatch>,
    control: Arc<Control>,
    metrics: Metrics,
    /// Keeps this alive through the pollers' closures; taken out to end it.
    pollers: Option<Pollers>,
    obeyed: u8,
}

impl Installed {
    fn new(server: DrpcServer, thread: &Thread, control: &Arc<Control>) -> Installed {
        let listener = server.listener.as_ref().map(|listener| {
            let fd = Rc::clone(&listener.fd);
            thread.watch_fd(fd, Interest::READABLE)
        });
        Installed {
            server,
            thread: thread.clone(),
            listener,
            control: Arc::clone(control),
            metrics: Metrics::new(),
            pollers: None,
            obeyed: Command::Serve as u8,
        }
    }

    fn turn(&mut self, now: u64) -> PollResult {
        let command = self.control.command.load(Ordering::Acquire);
        let ordered = command != self.obeyed;
        if ordered {
            self.obeyed = command;
            self.obey(command, now);
        }
        let finished = self.server.finish_calls(now);
        let ready = self.server.collect_ready(self.listener.as_ref(), now);
        if !ordered && !finished && !ready {
            return PollResult::Idle;
        }
        match self.server.serve_ready(now) {
            Ok(()) | Err(Der::AGAIN) => {}
            Err(error) => tracing::warn!(%error, "dRPC listener"),
        }
        self.settle(now);
        PollResult::Busy
    }

    fn obey(&mut self, command: u8, now: u64) {
        self.listener = None;
        self.server.quiesce(now);
        if command == Command::Close as u8 {
            self.server.close();
            self.pollers = None;
        }
    }

    fn look_at_deadlines(&mut self, now: u64) -> PollResult {
        // Also when nothing has expired: a rest of the listener may be over.
        let expired = self.server.expire(now);
        self.settle(now);
        if expired {
            PollResult::Busy
        } else {
            PollResult::Idle
        }
    }

    /// After a step: gates, watches, deadlines and figures as the sessions now are.
    fn settle(&mut self, now: u64) {
        self.server.update_gates(now);
        self.server.watch_new_sessions(&self.thread);
        if let Some(pollers) = &self.pollers {
            match self.server.next_deadline(now) {
                Some(_) => pollers.deadlines.resume(),
                None => pollers.deadlines.pause(),
            }
        }
        let stats = self.server.stats();
        self.metrics.publish(&stats);
        let mut published = self.control.published();
        let was = (published.quiet, published.closed);
        published.stats = stats;
        published.quiet = self.server.listener.is_none() && self.server.is_drained();
        published.closed = self.pollers.is_none();
        if was != (published.quiet, published.closed) {
            self.control.changed.notify_all();
        }
    }
}
