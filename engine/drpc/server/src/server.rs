//! The server: one step over sessions and listener (DAOS `src/engine/drpc_progress.c`).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use daos_errno::{Der, from_errno};
use drpc_wire::{Call, MAX_PACKET};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use spdk_thread::{FdWatch, Interest, Thread};

use crate::bind_error::BindError;
use crate::completions::{Completion, Completions};
use crate::options::Options;
use crate::peer::Peer;
use crate::readiness::Event;
use crate::registry::Registry;
use crate::reply::{Reply, Ticket};
use crate::session::{Received, Session};
use crate::sessions::{Expiry, Running, Sessions};
use crate::socket_file::{DrpcSocket, SocketFile};
use crate::spawner::{Inline, Spawner};
use crate::stats::Stats;

/// After a failed accept (no descriptors left, say) the listener rests this long, so that a step does not fail over and over.
const ACCEPT_PAUSE_NS: u64 = 100_000_000;

/// A listening dRPC server and its sessions. Own thread only; step it by hand with [`DrpcServer::progress`] or give it to
/// [`crate::install`]. Dropping it closes everything and removes the socket file; handlers still running find their replies dropped.
pub struct DrpcServer {
    pub(crate) listener: Option<Listener>,
    /// What completions write to while someone waits in poll; made by the first `progress`.
    wake_fd: Option<Arc<OwnedFd>>,
    accept_after: u64,
    own_uid: u32,
    registry: Registry,
    pub(crate) options: Options,
    pub(crate) sessions: Sessions,
    running: Running,
    pub(crate) completions: Arc<Completions>,
    /// Completions being worked off; kept for its memory.
    finished: Vec<Completion>,
    spawner: Box<dyn Spawner>,
    buffer: Vec<u8>,
    stats: Stats,
    pub(crate) ready: Ready,
}

/// The listening socket; its file goes with it.
pub(crate) struct Listener {
    pub(crate) fd: Rc<OwnedFd>,
    file: SocketFile,
}

/// What is to be done in a step: per session in list order, and for the listener.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// Session, what to read, whether to write.
    pub(crate) sessions: Vec<(u64, Event, bool)>,
    pub(crate) listener: Option<Event>,
}

impl std::fmt::Debug for DrpcServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DrpcServer({:?})", self.path())
    }
}

impl DrpcServer {
    /// Opens the socket at `path` and listens. A stale socket file is removed, a live one refused.
    pub fn bind(
        path: impl AsRef<Path>,
        registry: Registry,
        options: Options,
    ) -> Result<DrpcServer, BindError> {
        let socket = DrpcSocket::bind(path.as_ref(), options.mode)?;
        Ok(DrpcServer::new(socket, registry, options))
    }

    /// A server on a socket that was opened before, perhaps by another thread.
    pub fn new(socket: DrpcSocket, registry: Registry, options: Options) -> DrpcServer {
        DrpcServer {
            listener: Some(Listener {
                fd: Rc::new(socket.fd),
                file: socket.file,
            }),
            wake_fd: None,
            accept_after: 0,
            own_uid: rustix::process::geteuid().as_raw(),
            registry,
            options,
            sessions: Sessions::default(),
            running: Running::default(),
            completions: Completions::new(),
            finished: Vec::new(),
            spawner: Box::new(Inline),
            buffer: vec![0; MAX_PACKET],
            stats: Stats::default(),
            ready: Ready::default(),
        }
    }

    /// What runs the calls from now on; without this each runs where it is read.
    pub fn set_spawner(&mut self, spawner: Box<dyn Spawner>) {
        self.spawner = spawner;
    }

    /// The socket file; `None` after [`DrpcServer::close`].
    pub fn path(&self) -> Option<&Path> {
        self.listener.as_ref().map(|listener| listener.file.path())
    }

    /// What it has done and holds.
    pub fn stats(&self) -> Stats {
        Stats {
            sessions: self.sessions.len(),
            in_flight: self.running.calls,
            bytes: self.running.bytes + self.sessions.held_bytes(),
            ..self.stats
        }
    }

    /// One step: waits at most `timeout_ms` (0: not at all, negative: for ever) until a session or the listener is ready, then
    /// serves all that are. `Ok`, or as DAOS `drpc_progress`: `TIMEDOUT` nothing was ready; `INVAL` the server is closed;
    /// `AGAIN` a session turned out to have nothing; the listener's own `MISC` (hung up) or accept error. A session's trouble
    /// closes that session and is `Ok`.
    pub fn progress(&mut self, timeout_ms: i32) -> Result<(), Der> {
        self.progress_with(timeout_ms, &monotonic)
    }

    /// [`DrpcServer::progress`] with the time (nanoseconds, any origin) given: for tests that turn the clock by hand.
    pub fn progress_at(&mut self, timeout_ms: i32, now: u64) -> Result<(), Der> {
        self.progress_with(timeout_ms, &|| now)
    }

    fn progress_with(&mut self, timeout_ms: i32, clock: &dyn Fn() -> u64) -> Result<(), Der> {
        if self.listener.is_none() {
            return Err(Der::INVAL);
        }
        let worked = self.finish_calls(clock());
        let timeout_ms = if worked { 0 } else { timeout_ms };
        let is_ready = self.wait(timeout_ms, clock())?;
        let expired = self.expire(clock());
        if !is_ready {
            return if worked || expired {
                Ok(())
            } else {
                Err(Der::TIMEDOUT)
            };
        }
        self.serve_ready(clock())
    }

    /// Serves what stands in `ready`: sessions, then the listener. The first session's error, else the listener's.
    pub(crate) fn serve_ready(&mut self, now: u64) -> Result<(), Der> {
        let mut ready = std::mem::take(&mut self.ready);
        let mut result = Ok(());
        for (id, event, writable) in ready.sessions.drain(..) {
            result = result.and(self.serve_session(id, event, writable, now));
        }
        let accepted = match ready.listener.take() {
            None | Some(Event::None) => Ok(()),
            Some(Event::Data) => self.accept(now),
            Some(Event::Disconnected | Event::Error) => Err(Der::MISC),
        };
        self.ready = ready;
        self.finish_calls(now);
        result.and(accepted)
    }

    fn serve_session(
        &mut self,
        id: u64,
        event: Event,
        writable: bool,
        now: u64,
    ) -> Result<(), Der> {
        match event {
            Event::Disconnected | Event::Error => {
                self.close_session(id, None);
                return Ok(());
            }
            Event::Data => self.read_session(id, now)?,
            Event::None => {}
        }
        if writable && let Some(session) = self.sessions.get(id) {
            let flushed = session.flush(now);
            self.written(id, flushed);
        }
        Ok(())
    }

    fn read_session(&mut self, id: u64, now: u64) -> Result<(), Der> {
        // Anew for each: the sessions before it in this step may have used up a bound. What is not read now is ready again.
        self.update_gates(now);
        let order = self.sessions.new_order();
        let Some(session) = self.sessions.get(id).filter(|s| s.is_read()) else {
            return Ok(());
        };
        match session.receive(&mut self.buffer, now, order) {
            Received::Nothing => return Err(Der::AGAIN),
            Received::Partial => {}
            Received::Call(call) => self.start(id, call),
            Received::Gone(why) => self.close_session(id, why),
            Received::Unreadable(der, why) => {
                tracing::warn!(peer = ?session.peer, error = %der, why, "unreadable dRPC call; session closed");
                self.stats.unreadable += 1;
                let flushed = session.refuse(now);
                self.written(id, flushed);
            }
        }
        Ok(())
    }

    /// Hands a call to its own task. If none can be made the session is closed: its peer must not wait for ever.
    fn start(&mut self, id: u64, call: Call) {
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        session.open_calls += 1;
        let call_bytes = call.body.len();
        let ticket = Ticket {
            completions: Arc::clone(&self.completions),
            session: id,
            framing: session.framing(),
            call_bytes,
        };
        let reply = Reply::new(ticket, call.sequence, session.peer);
        self.running.calls += 1;
        self.running.bytes += call_bytes;
        self.stats.calls += 1;
        let registry = self.registry.clone();
        let job = Box::new(move || registry.process(call, reply));
        if let Err(der) = self.spawner.spawn(job) {
            self.close_session(id, Some(der));
        }
    }

    /// Sends what handlers have answered since the last step; whether there was anything.
    pub(crate) fn finish_calls(&mut self, now: u64) -> bool {
        if self.completions.is_empty() {
            return false;
        }
        let mut finished = std::mem::take(&mut self.finished);
        self.completions.take(&mut finished);
        let any = !finished.is_empty();
        for completion in finished.drain(..) {
            self.running.calls -= 1;
            self.running.bytes -= completion.call_bytes;
            let id = completion.session;
            if let Some(session) = self.sessions.get(id) {
                let flushed = session.answer(completion.message, now);
                self.written(id, flushed);
            }
        }
        self.finished = finished;
        any
    }

    /// After writing: counts, and closes a session that broke or that has had its last packet.
    fn written(&mut self, id: u64, flushed: Result<u64, Errno>) {
        match flushed {
            Ok(replies) => {
                self.stats.replies += replies;
                let done = |s: &mut Session| s.closing && !s.wants_write();
                if self.sessions.get(id).is_some_and(done) {
                    self.close_session(id, None);
                }
            }
            Err(errno) => self.close_session(id, Some(from_errno(errno.raw_os_error()))),
        }
    }

    fn close_session(&mut self, id: u64, why: Option<Der>) {
        if let Some(session) = self.sessions.remove(id) {
            let why = why.map(|der| der.to_string());
            tracing::debug!(peer = ?session.peer, why, "dRPC session closed");
        }
    }

    fn accept(&mut self, now: u64) -> Result<(), Der> {
        let Some(listener) = &self.listener else {
            return Err(Der::INVAL);
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = match rustix::net::accept_with(&listener.fd, flags) {
            Ok(fd) => fd,
            // Whoever it was is gone again.
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => return Ok(()),
            Err(errno) => {
                self.accept_after = now.saturating_add(ACCEPT_PAUSE_NS);
                return Err(from_errno(errno.raw_os_error()));
            }
        };
        let Ok(peer) = Peer::of(&fd) else {
            return Ok(());
        };
        if !peer.is_allowed(self.own_uid, &self.options.allow_uids) {
            tracing::warn!(?peer, "dRPC connection refused: this user may not call");
            self.stats.refused_peers += 1;
            return Ok(());
        }
        self.stats.accepted += 1;
        let id = self.sessions.new_id();
        let max_message = self.options.max_message;
        self.sessions
            .insert(Session::new(id, fd, peer, max_message, now));
        Ok(())
    }

    /// Decides who is read and whether connections are accepted in the coming step.
    pub(crate) fn update_gates(&mut self, now: u64) {
        self.sessions.update_gates(self.running, &self.options, now);
    }

    /// Whether a new connection would be accepted now.
    pub(crate) fn accepts(&self, now: u64) -> bool {
        self.sessions.len() < self.options.max_sessions && now >= self.accept_after
    }

    /// When a step is due even if nothing becomes ready.
    pub(crate) fn next_deadline(&self, now: u64) -> Option<u64> {
        let accept = (now < self.accept_after).then_some(self.accept_after);
        match (self.sessions.next_deadline(&self.options), accept) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Closes sessions whose time has come; whether there were any.
    pub(crate) fn expire(&mut self, now: u64) -> bool {
        let mut any = false;
        while let Some((session, why)) = self.sessions.expired(&self.options, now) {
            any = true;
            match why {
                Expiry::Stalled => {
                    self.stats.stalled += 1;
                    tracing::warn!(peer = ?session.peer, "dRPC session closed: stalled in the middle of a message");
                }
                Expiry::Idle => {
                    self.stats.evicted += 1;
                    tracing::info!(peer = ?session.peer, "idle dRPC session closed to make room");
                }
            }
        }
        any
    }

    /// Waits in poll and fills `ready`; whether anything is.
    fn wait(&mut self, timeout_ms: i32, now: u64) -> Result<bool, Der> {
        self.update_gates(now);
        let wake = self.wake_fd()?;
        let Some(listener) = &self.listener else {
            return Err(Der::INVAL);
        };
        let input = PollFlags::IN | PollFlags::PRI;
        let mut fds = Vec::with_capacity(self.sessions.len() + 2);
        for session in self.sessions.iter() {
            let mut events = PollFlags::empty();
            events.set(input, session.is_read());
            events.set(PollFlags::OUT, session.wants_write());
            fds.push(PollFd::from_borrowed_fd(session.fd.as_fd(), events));
        }
        let accepts = self.accepts(now);
        let listen = if accepts { input } else { PollFlags::empty() };
        fds.push(PollFd::from_borrowed_fd(listener.fd.as_fd(), listen));
        fds.push(PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN));
        let timeout = earlier(timeout_ms, self.next_deadline(now), now);
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(errno) => return Err(from_errno(errno.raw_os_error())),
        }
        for (session, fd) in self.sessions.iter().zip(&fds) {
            let flags = fd.revents();
            let (event, writable) = (Event::of(flags), flags.contains(PollFlags::OUT));
            if event != Event::None || writable {
                self.ready.sessions.push((session.id, event, writable));
            }
        }
        self.ready.listener = Some(Event::of(fds[fds.len() - 2].revents()));
        if !fds[fds.len() - 1].revents().is_empty() {
            // Its only meaning was to end the wait.
            let _ = rustix::io::read(&wake, &mut [0u8; 8]);
        }
        Ok(true)
    }

    /// Fills `ready` from watched descriptors instead of poll; whether anything is. No system call.
    pub(crate) fn collect_ready(&mut self, listener: Option<&FdWatch>, now: u64) -> bool {
        for session in self.sessions.iter() {
            let Some(watch) = &session.watch else {
                continue;
            };
            let readable = session.is_read() && watch.take_readable();
            let writable = session.wants_write() && watch.take_writable();
            if readable || writable {
                let event = if readable { Event::Data } else { Event::None };
                self.ready.sessions.push((session.id, event, writable));
            }
        }
        if self.accepts(now) && listener.is_some_and(FdWatch::take_readable) {
            self.ready.listener = Some(Event::Data);
        }
        !self.ready.sessions.is_empty() || self.ready.listener.is_some()
    }

    /// Lets the thread's reactor watch sessions that it does not watch yet.
    pub(crate) fn watch_new_sessions(&mut self, thread: &Thread) {
        for session in self.sessions.iter_mut().filter(|s| s.watch.is_none()) {
            session.watch = Some(thread.watch_fd(Rc::clone(&session.fd), Interest::BOTH));
        }
    }

    fn wake_fd(&mut self) -> Result<Arc<OwnedFd>, Der> {
        if let Some(fd) = &self.wake_fd {
            return Ok(Arc::clone(fd));
        }
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = eventfd(0, flags).map_err(|e| from_errno(e.raw_os_error()))?;
        let fd = Arc::new(fd);
        let target = Arc::clone(&fd);
        self.completions.wake_with(Box::new(move || {
            // Full means that it is readable already.
            let _ = rustix::io::write(&target, &1u64.to_ne_bytes());
        }));
        self.wake_fd = Some(Arc::clone(&fd));
        Ok(fd)
    }

    /// Whether no call runs and no reply is unwritten: closing now loses nothing.
    pub fn is_drained(&self) -> bool {
        self.running.calls == 0 && self.sessions.iter().all(|s| !s.wants_write())
    }

    /// Closes the listener, removes the socket file, and reads no more calls; replies still go out. A step by hand is `INVAL`
    /// from now on.
    pub(crate) fn quiesce(&mut self, now: u64) {
        self.listener = None;
        self.options.max_in_flight = 0;
        self.update_gates(now);
    }

    /// Closes listener and sessions and removes the socket file. Replies that come later are dropped.
    pub fn close(&mut self) {
        self.listener = None;
        self.sessions.clear();
    }
}

/// The caller's time-out, cut to the next deadline; `None` waits for ever.
fn earlier(timeout_ms: i32, deadline: Option<u64>, now: u64) -> Option<Timespec> {
    let caller = u64::try_from(timeout_ms).ok().map(|ms| ms * 1_000_000);
    let until = deadline.map(|at| at.saturating_sub(now));
    let ns = match (caller, until) {
        (Some(a), Some(b)) => a.min(b),
        (a, b) => a.or(b)?,
    };
    Some(Timespec {
        tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: (ns % 1_000_000_000) as i64,
    })
}

fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
