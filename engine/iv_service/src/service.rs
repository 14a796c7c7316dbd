//! The machine's driver: one per engine, on its system xstream.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::{Rc, Weak};

use daos_errno::Der;
use engine_iv::{
    Body, Change, Class, Done, Failure, Feed, Group, How, Iv, Key, NsId, OpId, Output, Rank,
    Shortcut, Stamp, Tree, Version,
};
use engine_rpc::{Membership, Ranks};
use engine_tls::TypedKey;
use engine_xstream::{SpawnError, Xstream, XstreamRef};
use spdk_ring::oneshot;
use spdk_thread::sync::Notify;
use spdk_thread::{Thread, timeout};

use crate::history::History;
use crate::incast::{Incast, Local, Options, Scope};
use crate::inspect::{self, Space, Trace};
use crate::meter::Meter;
use crate::peers::Peers;
use crate::readers::Mailboxes;

/// How soon full mailboxes and readers that did not say a word are looked at again.
const LOOK_NS: u64 = 500_000;
/// What may wait for an xstream whose mailbox is full. Beyond it is told once to drop all that it has.
const BACKLOG: usize = 1024;
/// How often questions that nobody waits for any more are looked for.
const SWEEP_NS: u64 = 1_000_000_000;

/// What a service is made of.
pub(crate) struct Start {
    pub(crate) key: TypedKey<Local>,
    pub(crate) me: Rank,
    pub(crate) incarnation: u64,
    pub(crate) membership: Membership,
    pub(crate) options: Options,
    pub(crate) system: XstreamRef,
    pub(crate) others: Vec<XstreamRef>,
}

/// An operation of this engine.
struct Waiting {
    sender: oneshot::Sender<Result<Stamp, Failure>>,
    ns: NsId,
    key: Key,
    /// A fetch, and the reader who wants to keep what it gets.
    fetch: bool,
    reader: Option<usize>,
}

pub(crate) struct Service {
    myself: Weak<Service>,
    thread: Thread,
    iv: RefCell<Iv>,
    feed: RefCell<Feed<Mailboxes>>,
    pub(crate) peers: Peers,
    waiting: RefCell<HashMap<OpId, Waiting>>,
    spaces: RefCell<BTreeMap<NsId, Scope>>,
    history: RefCell<History>,
    me: Rank,
    incarnation: u64,
    membership: Membership,
    /// Who leads the group, and in which term; `None`: nobody that this rank knows of.
    leader: Cell<Option<(Rank, u64)>>,
    wake: Notify,
    /// When the task wakes by itself.
    armed: Cell<u64>,
    stopped: Cell<bool>,
    pub(crate) meter: Meter,
}

impl Service {
    pub(crate) fn start(
        xstream: &Xstream,
        start: Start,
        incast: Incast,
    ) -> Result<Rc<Service>, SpawnError> {
        let service = Rc::new_cyclic(|myself| Service {
            myself: myself.clone(),
            thread: xstream.thread().clone(),
            iv: RefCell::new(Iv::new(start.me, start.incarnation, start.options.machine)),
            feed: RefCell::new(Feed::new(
                Mailboxes::new(start.key, start.system, start.others),
                BACKLOG,
            )),
            peers: Peers::new(Ranks::current().ok(), start.options.max_questions),
            waiting: RefCell::default(),
            spaces: RefCell::default(),
            history: RefCell::default(),
            me: start.me,
            incarnation: start.incarnation,
            membership: start.membership,
            leader: Cell::new(None),
            wake: Notify::new(),
            armed: Cell::new(u64::MAX),
            stopped: Cell::new(false),
            meter: Meter::new(incast),
        });
        drop(xstream.spawn("iv", Rc::clone(&service).run())?);
        Ok(service)
    }

    /// The task: time passes.
    async fn run(self: Rc<Self>) {
        let mut swept = self.thread.now();
        while !self.stopped.get() {
            let now = self.thread.now();
            self.feed.borrow_mut().retry();
            self.iv.borrow_mut().tick(now);
            if now - swept >= SWEEP_NS {
                self.peers.sweep(now);
                swept = now;
            }
            self.drive();
            let wait = self.next_look().saturating_sub(now);
            self.armed.set(now.saturating_add(wait));
            // A signal or the time: both lead to the next look.
            let _ = timeout(wait, self.wake.notified()).await;
        }
    }

    fn next_look(&self) -> u64 {
        let now = self.thread.now();
        let behind = self.feed.borrow().is_behind();
        let timer = self.iv.borrow().next_deadline().unwrap_or(u64::MAX);
        let sweep = if self.peers.is_empty() {
            u64::MAX
        } else {
            now + SWEEP_NS
        };
        let look = if behind { now + LOOK_NS } else { u64::MAX };
        timer.min(sweep).min(look)
    }

    /// Does what the machine wants done.
    pub(crate) fn drive(&self) {
        loop {
            let output = self.iv.borrow_mut().poll();
            let Some(output) = output else { break };
            let now = self.feed.borrow_mut().pass(output);
            if let Some(output) = now {
                self.put_out(output);
            }
        }
        self.release();
        if self.next_look() < self.armed.get() {
            self.wake.notify_one();
        }
    }

    fn put_out(&self, output: Output) {
        match output {
            Output::Changed { ns, key: Some(key) } => self.changed(ns, key),
            Output::Changed { ns, key: None } => self.feed.borrow_mut().drop_space(ns),
            Output::Done(done) => self.finish(done),
            Output::Send { to, message } => match message.body {
                body @ (Body::Fetched { .. } | Body::Updated { .. } | Body::Synced { .. }) => {
                    self.peers.answer(to, message.ns, body);
                }
                Body::Fetch { .. } | Body::Update { .. } | Body::Sync { .. } => {
                    self.peers
                        .ask(self.myself.clone(), &self.thread, to, message);
                }
            },
        }
    }

    /// A reader has taken what it was told.
    pub(crate) fn taken(&self) {
        self.release();
    }

    fn release(&self) {
        loop {
            let next = self.feed.borrow_mut().confirmed(self.thread.now());
            match next {
                Some(output) => self.put_out(output),
                None => return,
            }
        }
    }

    fn changed(&self, ns: NsId, key: Key) {
        let now = self.thread.now();
        let heard = self
            .iv
            .borrow()
            .cached(now, ns, &key)
            .map(|cached| cached.version);
        if let Some(version) = heard {
            self.history.borrow_mut().heard(now, ns, key, version);
        }
        if self.feed.borrow().is_held(ns, &key) {
            let item = self.iv.borrow().item(now, ns, key);
            self.feed.borrow_mut().changed(ns, key, &item);
        }
    }

    fn finish(&self, done: Done) {
        let Some(waiting) = self.waiting.borrow_mut().remove(&done.op) else {
            return;
        };
        self.meter.ended(
            waiting.key.class(),
            waiting.fetch,
            done.attempts,
            done.result.is_ok(),
        );
        let (now, named) = (self.thread.now(), (waiting.ns, waiting.key));
        let failure = done.result.as_ref().err().copied();
        self.history
            .borrow_mut()
            .ended(now, named, done.attempts, failure);
        if let (Some(reader), true) = (waiting.reader, done.result.is_ok()) {
            let item = self.iv.borrow().item(now, waiting.ns, waiting.key);
            self.feed
                .borrow_mut()
                .subscribe(reader, waiting.ns, waiting.key, item);
        }
        // Who asked may have gone.
        let _ = waiting.sender.send(done.result);
    }

    fn begin(
        &self,
        (ns, key): (NsId, Key),
        reader: Option<Option<usize>>,
        start: impl FnOnce(&mut Iv, u64) -> OpId,
    ) -> oneshot::Receiver<Result<Stamp, Failure>> {
        let (sender, receiver) = oneshot::channel();
        if self.stopped.get() {
            let _ = sender.send(Err(Der::SHUTDOWN.into()));
            return receiver;
        }
        let key = self.iv.borrow().canonical(key);
        let op = start(&mut self.iv.borrow_mut(), self.thread.now());
        let waiting = Waiting {
            sender,
            ns,
            key,
            fetch: reader.is_some(),
            reader: reader.flatten(),
        };
        self.waiting.borrow_mut().insert(op, waiting);
        self.drive();
        receiver
    }

    pub(crate) fn fetch(
        &self,
        ns: NsId,
        key: Key,
        shortcut: Shortcut,
        budget: u64,
        reader: Option<XstreamRef>,
    ) -> oneshot::Receiver<Result<Stamp, Failure>> {
        let reader = reader.and_then(|xs| self.feed.borrow_mut().readers().number_of(&xs));
        self.begin((ns, key), Some(reader), |iv, now| {
            iv.fetch(now, ns, key, shortcut, budget)
        })
    }

    pub(crate) fn change(
        &self,
        ns: NsId,
        key: Key,
        change: Change,
        how: How,
        budget: u64,
    ) -> oneshot::Receiver<Result<Stamp, Failure>> {
        self.begin((ns, key), None, |iv, now| match change {
            Change::Set(value) => iv.update(now, ns, key, value, how, budget),
            Change::Invalidate => iv.invalidate(now, ns, key, how, budget),
        })
    }

    pub(crate) fn cached(&self, ns: NsId, key: &Key) -> Option<(Version, Rc<[u8]>)> {
        // A hook of a class looks from inside the machine: to it nothing is cached.
        let iv = self.iv.try_borrow().ok()?;
        let key = iv.canonical(*key);
        let cached = iv
            .cached(self.thread.now(), ns, &key)
            .filter(|cached| cached.valid)?;
        Some((cached.version, Rc::from(&**cached.value?)))
    }

    pub(crate) fn register(&self, id: u32, class: Box<dyn Class>) {
        // The handle keeps ids apart.
        if let Err(der) = self.iv.borrow_mut().register(id, class) {
            tracing::error!(class = id, %der, "a class of incast variables is not registered");
        }
    }

    pub(crate) fn connect(&self, ns: NsId, scope: Scope) -> Result<(), Der> {
        if self.stopped.get() {
            return Err(Der::SHUTDOWN);
        }
        let now = self.thread.now();
        let scope = match self.membership.is_alone() {
            true => Scope::Engine,
            false => scope,
        };
        self.iv.borrow_mut().connect(ns, Tree::default())?;
        if self.spaces.borrow_mut().insert(ns, scope).is_some() {
            return Ok(());
        }
        match scope {
            Scope::Engine => {
                let mut iv = self.iv.borrow_mut();
                iv.set_group(now, ns, Group::new(1, [self.me]));
                iv.set_leader(now, ns, self.me, self.incarnation);
            }
            Scope::Group => self.follow_group(ns),
        }
        self.drive();
        Ok(())
    }

    /// Tells the machine the group as it is now, and who leads it.
    fn follow_group(&self, ns: NsId) {
        let (group, now) = (self.membership.get(), self.thread.now());
        let ranks = group.members().iter().map(|member| member.rank);
        let mut iv = self.iv.borrow_mut();
        iv.set_group(now, ns, Group::new(group.version(), ranks));
        match self.leader.get() {
            Some((leader, term)) => iv.set_leader(now, ns, leader, term),
            None => iv.unset_leader(now, ns),
        }
    }

    pub(crate) fn group_changed(&self, leader: Option<(Rank, u64)>) {
        self.leader.set(leader);
        let of_group = |(ns, scope): (&NsId, &Scope)| (*scope == Scope::Group).then_some(*ns);
        let spaces: Vec<NsId> = self.spaces.borrow().iter().filter_map(of_group).collect();
        spaces.into_iter().for_each(|ns| self.follow_group(ns));
        self.drive();
    }

    pub(crate) fn disconnect(&self, ns: NsId) -> Result<(), Der> {
        self.iv.borrow_mut().disconnect(ns)?;
        if self.iv.borrow().view(ns).is_none() {
            self.spaces.borrow_mut().remove(&ns);
            self.history.borrow_mut().forget(ns);
        }
        self.drive();
        Ok(())
    }

    pub(crate) fn list(&self, most: usize, names: &Incast) -> Vec<Space> {
        let (iv, now) = (self.iv.borrow(), self.thread.now());
        let past = self.history.borrow();
        inspect::list((&*iv, &*past), now, most, &self.spaces.borrow(), names)
    }

    /// A variable as this rank sees it.
    pub(crate) fn trace(&self, ns: NsId, key: &Key) -> Result<Trace, Der> {
        let (iv, past) = (self.iv.borrow(), self.history.borrow());
        inspect::trace(&iv, &past, self.thread.now(), ns, key).ok_or(Der::NONEXIST)
    }

    /// The ranks that share a namespace.
    pub(crate) fn sharers(&self, ns: NsId) -> Vec<Rank> {
        match self.spaces.borrow().get(&ns) {
            Some(Scope::Group) => {
                let group = self.membership.get();
                group.members().iter().map(|member| member.rank).collect()
            }
            _ => vec![self.me],
        }
    }

    pub(crate) fn me(&self) -> Rank {
        self.me
    }

    pub(crate) fn thread(&self) -> &Thread {
        &self.thread
    }

    /// Something came from another rank.
    pub(crate) fn receive(&self, from: Rank, message: engine_iv::Message) {
        if self.stopped.get() {
            return;
        }
        self.iv
            .borrow_mut()
            .receive(self.thread.now(), from, message);
        self.drive();
    }

    pub(crate) fn stop(&self) {
        self.stopped.set(true);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for waiting in waiting.into_values() {
            let _ = waiting.sender.send(Err(Der::SHUTDOWN.into()));
        }
        self.peers.stop();
        self.wake.notify_one();
    }
}
