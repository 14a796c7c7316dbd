//! One xstream's side of the RPC service: its connections, its waiting calls, its message ring, and the dispatch of
//! requests to handlers.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use daos_errno::Der;
use rpc_wire::{Opcode, Versions};
use spdk_ring::mpsc::Receiver;
use spdk_thread::{JoinHandle, Thread};

use crate::budget::Budget;
use crate::calls::{Calls, Reply};
use crate::drain::{self, DrainWatch};
use crate::fabric::Fabric;
use crate::group::{self, Admitted, Duplicates, Links};
use crate::home::{Control, Home, Message};
use crate::log_gate::LogGate;
use crate::metrics::Metrics;
use crate::pull::Ticket;
use crate::queue::Queue;
use crate::registry::{Found, Gather, Registry, View};
use crate::request::{Answer, Request, Slot};
use crate::slow::SlowRequest;
use crate::table::{Key, Table};
use crate::tcp::{Session, adopt};

/// Messages taken from the ring before other tasks of the xstream get their turn.
const MESSAGE_BATCH: usize = 64;

/// Lanes are never used twice by a process.
static LANES: AtomicU32 = AtomicU32::new(1);

thread_local! {
    /// The endpoints of the xstreams that this OS thread hosts: a few.
    static ENDPOINTS: RefCell<Vec<Rc<Endpoint>>> = const { RefCell::new(Vec::new()) };
}

/// How far the shutdown is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Phase {
    Serving,
    /// No new request is read; in-process calls go on.
    Draining,
    Closed,
}

/// Own xstream only, but for [`Endpoint::deliver`], which any code of the same OS thread may call.
pub(crate) struct Endpoint {
    fabric: Arc<Fabric>,
    home: Arc<Home>,
    thread: Thread,
    view: View,
    /// On main xstreams: requests that have a class wait here for their kick.
    queue: Option<Queue>,
    calls: Rc<Calls>,
    call_ids: Cell<u64>,
    traces: Cell<u64>,
    group: group::View,
    /// Tells this xstream's calls to other engines from those of others here.
    lane: u32,
    links: Links,
    duplicates: RefCell<Duplicates>,
    sessions: RefCell<Table<Rc<Session>>>,
    /// ULTs of requests that came in here, to abort when their request is canceled.
    working: RefCell<HashMap<(u64, u64), JoinHandle<()>>>,
    /// A request was canceled here, or its connection ended: from then on it is looked for.
    canceled: Cell<bool>,
    /// Sessions that wait for memory or a place in flight, first come first.
    waiting: RefCell<VecDeque<Key>>,
    phase: Cell<Phase>,
    pub(crate) budget: Budget,
    pub(crate) metrics: Metrics,
    pub(crate) log_gate: LogGate,
    pub(crate) drain: DrainWatch,
}

/// The endpoint of `home` if its xstream runs on this OS thread.
pub(crate) fn on_this_os_thread(home: &Arc<Home>) -> Option<Rc<Endpoint>> {
    find(|endpoint| Arc::ptr_eq(&endpoint.home, home))
}

/// The endpoint of `home` if it is the current xstream's.
pub(crate) fn of_this_xstream(home: &Arc<Home>) -> Option<Rc<Endpoint>> {
    current().filter(|endpoint| Arc::ptr_eq(&endpoint.home, home))
}

/// The current xstream's endpoint.
pub(crate) fn current() -> Option<Rc<Endpoint>> {
    let id = spdk_thread::current()?.id();
    find(|endpoint| endpoint.thread.id() == id)
}

fn find(is_it: impl Fn(&Endpoint) -> bool) -> Option<Rc<Endpoint>> {
    // At the end of the OS thread the list may be gone already: then nobody waits any more.
    ENDPOINTS
        .try_with(|list| {
            list.borrow()
                .iter()
                .find(|endpoint| is_it(endpoint))
                .cloned()
        })
        .ok()
        .flatten()
}

impl Endpoint {
    /// Makes the current thread serve. Fails if it does already or takes no more tasks.
    pub(crate) fn start(
        thread: &Thread,
        fabric: Arc<Fabric>,
        home: Arc<Home>,
        ring: Receiver<Message>,
        registry: Registry,
    ) -> Result<Rc<Endpoint>, Der> {
        if find(|endpoint| endpoint.thread.id() == thread.id()).is_some() {
            return Err(Der::ALREADY);
        }
        let endpoint = Rc::new_cyclic(|weak| {
            let options = &fabric.options;
            Endpoint {
                thread: thread.clone(),
                queue: Queue::of_this_xstream(weak.clone()),
                view: View::new(registry),
                calls: Calls::new(options.max_calls),
                call_ids: Cell::new(1),
                traces: Cell::new(0),
                group: group::View::new(options.group.clone()),
                lane: LANES.fetch_add(1, Ordering::Relaxed),
                links: Links::default(),
                duplicates: RefCell::default(),
                sessions: RefCell::new(Table::new(options.max_connections)),
                working: RefCell::default(),
                canceled: Cell::new(false),
                waiting: RefCell::default(),
                phase: Cell::new(Phase::Serving),
                budget: Budget::new(options.max_in_flight, options.max_body_bytes),
                metrics: Metrics::new(&home.name),
                log_gate: LogGate::default(),
                drain: DrainWatch::default(),
                home,
                fabric,
            }
        });
        let inbox = Rc::clone(&endpoint).receive(ring);
        drop(thread.spawn("rpc inbox", inbox).map_err(|_| Der::NOMEM)?);
        ENDPOINTS.with(|list| list.borrow_mut().push(Rc::clone(&endpoint)));
        Ok(endpoint)
    }

    pub(crate) fn fabric(&self) -> &Arc<Fabric> {
        &self.fabric
    }

    pub(crate) fn home(&self) -> Arc<Home> {
        Arc::clone(&self.home)
    }

    pub(crate) fn tag(&self) -> Option<u32> {
        self.home.tag
    }

    pub(crate) fn thread(&self) -> &Thread {
        &self.thread
    }

    pub(crate) fn now(&self) -> u64 {
        self.thread.now()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn calls(&self) -> &Rc<Calls> {
        &self.calls
    }

    pub(crate) fn next_call_id(&self) -> u64 {
        self.call_ids.replace(self.call_ids.get() + 1)
    }

    /// A number for a request that has none: 16 bits of the engine's rank, 12 of the xstream, 36 that count.
    pub(crate) fn new_trace(&self) -> u64 {
        let (rank, count) = (
            u64::from(self.group.membership().me()),
            self.traces.get() + 1,
        );
        self.traces.set(count);
        rank << 48 | u64::from(self.lane & 0xfff) << 36 | count & ((1 << 36) - 1)
    }

    pub(crate) fn open_call(&self) -> Result<Key, Der> {
        if self.phase.get() == Phase::Closed {
            return Err(Der::SHUTDOWN);
        }
        self.calls.open().ok_or(Der::OVERLOAD_RETRY)
    }

    pub(crate) fn group(&self) -> &group::View {
        &self.group
    }

    pub(crate) fn gather(&self, opcode: Opcode) -> Option<Gather> {
        self.view.lookup(opcode).ok()?.gather()
    }

    pub(crate) fn lane(&self) -> u32 {
        self.lane
    }

    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// A request from a connection: one of an engine must be of the same group and of its present life, and is carried out once.
    pub(crate) fn admit(&self, mut request: Request) {
        let Some(stamp) = request.engine() else {
            return self.route(request);
        };
        if request.opcode() == group::GROUP_TELL {
            return self.route(request);
        }
        let refused = self.group.with(|group| {
            let member = group.member(stamp.rank);
            match member.filter(|_| group.version() == stamp.group) {
                None => Some(Der::GRPVER),
                Some(member) if stamp.incarnation < member.incarnation => Some(Der::EXCLUDED),
                Some(_) => None,
            }
        });
        if let Some(der) = refused {
            self.metrics.strangers.increment(1);
            request.forget_stamp();
            return request.reply_error(der);
        }
        if stamp.number == 0 {
            return self.route(request);
        }
        // Answered outside of the borrow: the answer looks at the same table.
        let admitted = self.duplicates.borrow_mut().admit(&stamp, request);
        match admitted {
            Admitted::New(request) => self.route(request),
            Admitted::Waits => self.metrics.duplicates.increment(1),
            Admitted::Known(request, status, body) => {
                self.metrics.duplicates.increment(1);
                request.reply(status, &body, None);
            }
        }
    }

    /// The answer to a call that may come again is kept, and goes to its other attempts as well.
    fn remember(&self, answer: &Answer) {
        let Some(stamp) = answer.info.stamp.filter(|stamp| stamp.number != 0) else {
            return;
        };
        let carried_out = answer.status != Der::OVERLOAD_RETRY.neg();
        let kept = (answer.status, answer.body.as_slice(), answer.bulk.is_some());
        let waiting = self
            .duplicates
            .borrow_mut()
            .finish(&stamp, carried_out.then_some(kept));
        for attempt in waiting {
            attempt.reply(answer.status, &answer.body, None);
        }
    }

    /// To the handler, if the tag is this xstream's, else to the xstream that has it.
    pub(crate) fn route(&self, request: Request) {
        self.metrics.requests.increment(1);
        if self.home.tag == Some(request.tag()) {
            return self.serve(request);
        }
        let Some(home) = self.fabric.home(request.tag()) else {
            return request.reply_error(Der::BAD_TARGET);
        };
        self.metrics.forwarded.increment(1);
        if let Some((request, der)) = home.post_request(request) {
            request.reply_error(der);
        }
    }

    fn serve(&self, request: Request) {
        if self.phase.get() == Phase::Closed {
            return request.reply_error(Der::SHUTDOWN);
        }
        match self.view.lookup(request.opcode()) {
            Err(_) if request.opcode() == Opcode::VERSIONS => self.tell_versions(request),
            Err(der) => request.reply_error(der),
            Ok(handler) => match &self.queue {
                Some(queue) => queue.take_in(self, handler, request),
                None => self.run(&handler, request),
            },
        }
    }

    fn tell_versions(&self, request: Request) {
        match Versions::asked(request.body()) {
            Some(module) => request.reply(0, &self.view.versions(module), None),
            None => request.reply_error(Der::INVAL),
        }
    }

    /// Whether the requester has taken the request back.
    pub(crate) fn is_canceled(&self, slot: Slot, request_id: u64) -> bool {
        let Slot::Session(key) = slot else {
            return false;
        };
        let sessions = self.sessions.borrow();
        let session = sessions.get(key);
        self.canceled.get() && session.is_some_and(|session| session.is_canceled(request_id))
    }

    /// Whether nobody waits for its answer: it was taken back, or its connection has ended.
    pub(crate) fn is_unwanted(&self, slot: Slot, request_id: u64) -> bool {
        let is_gone =
            matches!(slot, Slot::Session(key) if self.sessions.borrow().get(key).is_none());
        is_gone || self.is_canceled(slot, request_id)
    }

    /// The requester of a request in flight has taken it back.
    pub(crate) fn canceled(&self, key: Key, request_id: u64) {
        self.metrics.canceled.increment(1);
        self.canceled.set(true);
        let working = self
            .working
            .borrow_mut()
            .remove(&(key.to_u64(), request_id));
        if let Some(ult) = working {
            ult.abort();
        }
    }

    /// `ult` works on a request that came in here.
    pub(crate) fn works(&self, slot: Slot, request_id: u64, ult: JoinHandle<()>) {
        if let Slot::Session(key) = slot {
            let id = (key.to_u64(), request_id);
            self.working.borrow_mut().insert(id, ult);
        }
    }

    /// A handler wants data that a request offers which came in here.
    pub(crate) fn pull(&self, ticket: Arc<Ticket>) {
        self.metrics.pulls.increment(1);
        let session = match ticket.slot {
            Slot::Session(key) => self.sessions.borrow().get(key).cloned(),
            Slot::Call(_) => None,
        };
        match session {
            Some(session) => session.pull(ticket),
            None => ticket.finish(Err(Der::UNREACH)),
        }
    }

    /// Hands a request to its handler.
    pub(crate) fn run(&self, handler: &Found, request: Request) {
        if self.phase.get() == Phase::Closed {
            return request.reply_error(Der::SHUTDOWN);
        }
        if self.canceled.get() && request.is_canceled() {
            return request.reply_error(Der::CANCELED);
        }
        let (opcode, trace) = (request.opcode(), request.trace());
        // The request is inside: unwinding drops it, which answers MISC.
        self.contain(opcode, "handler", || {
            spdk_thread::traced(trace, || handler.handle(request));
        });
    }

    /// Runs a handler's code; `None` when it panicked.
    pub(crate) fn contain<T>(
        &self,
        opcode: Opcode,
        what: &str,
        f: impl FnOnce() -> T,
    ) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(value) => Some(value),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("no text");
                tracing::error!(%opcode, name = self.view.name(opcode), "an RPC {what} panicked: {text}");
                None
            }
        }
    }

    /// An answer to a request that came in here.
    pub(crate) fn deliver(&self, slot: Slot, answer: Answer) {
        if answer.status < 0 {
            self.metrics.errors.increment(1);
        }
        self.note_slow(&answer);
        self.remember(&answer);
        match slot {
            Slot::Call(key) => {
                let Answer {
                    status, body, bulk, ..
                } = answer;
                self.calls.complete(
                    key,
                    Ok(Reply {
                        status,
                        body,
                        bulk: bulk.map(|bulk| bulk.into_pair()),
                    }),
                );
            }
            Slot::Session(key) => {
                self.budget.release(answer.info.charge);
                self.metrics.in_flight.set(self.budget.requests() as f64);
                let session = self.sessions.borrow().get(key).cloned();
                if !self.working.borrow().is_empty() {
                    let id = (key.to_u64(), answer.info.request_id);
                    drop(self.working.borrow_mut().remove(&id));
                }
                let unwanted = match session {
                    Some(session) => session.answer(answer),
                    None => Some(answer),
                };
                if let Some(answer) = unwanted {
                    self.budget.recycle(answer.body);
                }
                self.wake_one_waiting();
            }
        }
    }

    fn note_slow(&self, answer: &Answer) {
        let threshold = self.fabric.options.slow_request;
        let took = Duration::from_nanos(self.now().saturating_sub(answer.info.arrived));
        if threshold.is_zero() || took < threshold {
            return;
        }
        self.metrics.slow.increment(1);
        let info = &answer.info;
        let name = self.view.name(info.opcode);
        let slow = SlowRequest {
            opcode: info.opcode,
            name: &name,
            tag: info.tag,
            request_id: info.request_id,
            trace: info.trace,
            peer: info.peer,
            status: answer.status,
            took,
        };
        if let Some(left_out) = self.log_gate.pass(self.now()) {
            tracing::warn!(left_out, "slow request: {slow}");
        }
        if let Some(hook) = &self.fabric.options.on_slow {
            hook(&slow);
        }
    }

    /// A new connection's entry; `None` at the bound.
    pub(crate) fn add_session(&self, session: Rc<Session>) -> Option<Key> {
        let key = self.sessions.borrow_mut().insert(session).ok();
        self.metrics
            .connections
            .set(self.sessions.borrow().len() as f64);
        key
    }

    pub(crate) fn forget_session(&self, key: Key) {
        let session = self.sessions.borrow_mut().remove(key);
        drop(session);
        let of_it = |id: &(u64, u64)| id.0 == key.to_u64();
        let working = self
            .working
            .borrow_mut()
            .extract_if(|id, _| of_it(id))
            .collect::<Vec<_>>();
        working.into_iter().for_each(|(_, ult)| ult.abort());
        self.metrics
            .connections
            .set(self.sessions.borrow().len() as f64);
        // It may have been woken for a place that it no longer needs.
        self.wake_one_waiting();
        if self.sessions.borrow().len() == 0 {
            self.drain.notify();
        }
    }

    pub(crate) fn sessions(&self) -> usize {
        self.sessions.borrow().len()
    }

    /// Wakes every session, to look at the phase; with a reason, to close at once.
    pub(crate) fn kick_all(&self, cut: Option<&'static str>) {
        let all: Vec<Rc<Session>> = self.sessions.borrow().iter().cloned().collect();
        for session in all {
            match cut {
                Some(why) => session.cut(why),
                None => session.kick(),
            }
        }
    }

    /// `key` wants to know when memory or a place in flight may have come free.
    pub(crate) fn wait_for_room(&self, key: Key) {
        self.waiting.borrow_mut().push_back(key);
    }

    /// Tells the first connection in the queue that there may be room; it tells the next if it takes some.
    pub(crate) fn wake_one_waiting(&self) {
        loop {
            let Some(key) = self.waiting.borrow_mut().pop_front() else {
                return;
            };
            let session = self.sessions.borrow().get(key).cloned();
            if session.is_some_and(|session| session.room()) {
                return;
            }
        }
    }

    /// The ULT that takes messages from other xstreams.
    async fn receive(self: Rc<Self>, mut ring: Receiver<Message>) {
        poll_fn(|cx| self.poll_ring(&mut ring, cx)).await;
        ring.close();
        // What was sent before the close is still answered, with SHUTDOWN.
        while ring.drain(MESSAGE_BATCH, |message| self.take(message)) > 0 {}
        self.home
            .close_overflow()
            .into_iter()
            .for_each(|message| self.take(message));
        let _ = ENDPOINTS.try_with(|list| {
            list.borrow_mut()
                .retain(|endpoint| !Rc::ptr_eq(endpoint, &self))
        });
    }

    fn poll_ring(self: &Rc<Self>, ring: &mut Receiver<Message>, cx: &mut Context<'_>) -> Poll<()> {
        // The waker first: a message that comes after the look at the ring finds it.
        self.home.publish_waker(cx.waker());
        let taken = ring.drain(MESSAGE_BATCH, |message| self.take(message));
        self.home
            .take_overflow()
            .into_iter()
            .for_each(|message| self.take(message));
        if self.phase.get() == Phase::Closed {
            return Poll::Ready(());
        }
        if taken == MESSAGE_BATCH {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn take(self: &Rc<Self>, message: Message) {
        match message {
            Message::Request(request) => self.serve(request),
            Message::Answer(slot, answer) => self.deliver(slot, answer),
            Message::Pull(ticket) => self.pull(ticket),
            Message::Adopt(connection) => adopt(self, connection),
            Message::Control(Control::Drain { timeout_ns, done }) => {
                self.phase.set(Phase::Draining.max_of(self.phase.get()));
                drain::start(self, timeout_ns, done);
            }
            Message::Control(Control::Close { done }) => {
                self.phase.set(Phase::Closed);
                if let Some(queue) = &self.queue {
                    queue.close();
                }
                self.calls.fail_all(Der::SHUTDOWN);
                self.links.close();
                self.kick_all(Some("the engine is shutting down"));
                // Nobody may wait for it any more.
                let _ = done.send(drain::report(self, 0));
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.home.name
    }
}

impl Phase {
    fn max_of(self, other: Phase) -> Phase {
        if other > self { other } else { self }
    }
}
