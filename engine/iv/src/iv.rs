//! The machine's face: set-up, inputs, outputs, and which messages are let in.

use std::collections::{BTreeMap, VecDeque};

use daos_errno::Der;

use crate::cache::Item;
use crate::class::Class;
use crate::entry::{Cached, Entry};
use crate::message::{Body, Change, Message, RequestId, Stamp};
use crate::operation::{Done, Kind, OpId, Operation};
use crate::options::{How, Nanos, Options, Shortcut, Sync};
use crate::space::{Asker, Space};
use crate::spread::News;
use crate::timers::{Timer, Timers};
use crate::update::Rise;
use crate::{Key, NsId, Rank, Value, Version};

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// To be sent. It may be lost, delayed, doubled, overtaken.
    Send {
        /// To whom.
        to: Rank,
        /// What.
        message: Message,
    },
    /// An operation ended.
    Done(Done),
    /// What this rank may serve of a variable, or of all of a namespace, has changed: whoever keeps copies of [`Iv::cached`] looks
    /// again. It comes before what the change leads to, and may come without a change.
    Changed {
        /// The namespace.
        ns: NsId,
        /// The variable; `None`: all.
        key: Option<Key>,
    },
}

/// The incast variables of one rank.
pub struct Iv {
    pub(crate) me: Rank,
    incarnation: u64,
    pub(crate) options: Options,
    pub(crate) classes: BTreeMap<u32, Box<dyn Class>>,
    pub(crate) spaces: BTreeMap<NsId, Space>,
    pub(crate) operations: BTreeMap<OpId, Operation>,
    pub(crate) timers: Timers,
    pub(crate) out: VecDeque<Output>,
    numbers: u64,
}

impl Iv {
    /// The machine of a rank in one of its lives. `incarnation`, below 2^24, grows with every start of the rank; a rank that lost its
    /// memory must not lead again in a term that it led before.
    pub fn new(me: Rank, incarnation: u64, options: Options) -> Iv {
        Iv {
            me,
            incarnation,
            options,
            classes: BTreeMap::new(),
            spaces: BTreeMap::new(),
            operations: BTreeMap::new(),
            timers: Timers::default(),
            out: VecDeque::new(),
            numbers: 0,
        }
    }

    /// Registers a class under its id.
    ///
    /// # Errors
    /// `EXIST`: the id is taken.
    pub fn register(&mut self, id: u32, class: Box<dyn Class>) -> Result<(), Der> {
        if self.classes.contains_key(&id) {
            return Err(Der::EXIST);
        }
        self.classes.insert(id, class);
        Ok(())
    }

    /// Fetches a variable, for at most `budget`. What this rank may serve is served at once.
    pub fn fetch(
        &mut self,
        now: Nanos,
        ns: NsId,
        key: Key,
        shortcut: Shortcut,
        budget: Nanos,
    ) -> OpId {
        self.start(now, ns, key, Kind::Fetch { shortcut }, budget)
    }

    /// Updates a variable.
    pub fn update(
        &mut self,
        now: Nanos,
        ns: NsId,
        key: Key,
        value: Value,
        how: How,
        budget: Nanos,
    ) -> OpId {
        self.change(now, ns, key, Change::Set(value), how, budget)
    }

    /// Invalidates a variable at the root, and as `how.sync` says everywhere. A bidirectional one is refused: INVAL.
    pub fn invalidate(&mut self, now: Nanos, ns: NsId, key: Key, how: How, budget: Nanos) -> OpId {
        self.change(now, ns, key, Change::Invalidate, how, budget)
    }

    fn change(
        &mut self,
        now: Nanos,
        ns: NsId,
        key: Key,
        change: Change,
        how: How,
        budget: Nanos,
    ) -> OpId {
        let request = RequestId {
            rank: self.me,
            incarnation: self.incarnation,
            number: self.number(),
        };
        let kind = Kind::Change {
            change,
            how,
            request,
        };
        self.start(now, ns, key, kind, budget)
    }

    fn start(&mut self, now: Nanos, ns: NsId, key: Key, kind: Kind, budget: Nanos) -> OpId {
        let wrong = self.check(ns, &key, &kind);
        let operation = Operation {
            ns,
            key: self.canonical(key),
            kind,
            deadline: now.saturating_add(budget),
            attempts: 0,
            last: None,
            asked: None,
        };
        if let Err(der) = wrong {
            let op = self.number();
            self.operations.insert(op, operation);
            self.fail(op, der, false);
            return op;
        }
        self.begin(now, operation)
    }

    fn check(&self, ns: NsId, key: &Key, kind: &Kind) -> Result<(), Der> {
        let space = self.spaces.get(&ns).ok_or(Der::NONEXIST)?;
        let class = self.classes.get(&key.class()).ok_or(Der::NONEXIST)?;
        if space.stopping {
            return Err(Der::SHUTDOWN);
        }
        match kind {
            Kind::Change {
                change: Change::Set(value),
                ..
            } if value.len() > class.max_value() => Err(Der::OVERFLOW),
            Kind::Change {
                change: Change::Invalidate,
                how,
                ..
            } if how.sync == Sync::Bidirectional => Err(Der::INVAL),
            _ => Ok(()),
        }
    }

    /// A message came from `from`, which the transport vouches for.
    pub fn receive(&mut self, now: Nanos, from: Rank, message: Message) {
        let Message { ns, body, .. } = &message;
        let ns = *ns;
        // Answers are known by their question; what they carry is checked where it is used.
        match body {
            Body::Fetched { .. } | Body::Updated { .. } | Body::Synced { .. } => {
                if self.spaces.contains_key(&ns) {
                    self.answered(now, from, ns, message.body);
                }
                return;
            }
            Body::Fetch { .. } | Body::Update { .. } | Body::Sync { .. } => {}
        }
        self.asked(now, from, message);
    }

    /// A question came.
    fn asked(&mut self, now: Nanos, from: Rank, message: Message) {
        let ns = message.ns;
        if let Err(der) = self.admit(from, &message) {
            self.refuse(from, &message, der);
            return;
        }
        let group = message.group;
        match message.body {
            Body::Fetch {
                token,
                key,
                at_least,
                budget,
            } => {
                let asker = Asker::Peer {
                    rank: from,
                    token,
                    group,
                };
                self.fetch_for_peer(now, asker, ns, self.canonical(key), at_least, budget);
            }
            Body::Update {
                token,
                key,
                change,
                how,
                request,
                budget,
            } => {
                let asker = Asker::Peer {
                    rank: from,
                    token,
                    group,
                };
                let key = self.canonical(key);
                let rise = Rise {
                    key,
                    change,
                    how,
                    request,
                    budget,
                };
                self.raise(now, asker, ns, rise);
            }
            Body::Sync {
                token,
                key,
                version,
                change,
                wait,
                budget,
            } => {
                let key = self.canonical(key);
                let news = News {
                    key,
                    version,
                    change,
                    wait,
                };
                self.news_from_parent(now, (from, token), ns, news, budget);
            }
            Body::Fetched { .. } | Body::Updated { .. } | Body::Synced { .. } => {}
        }
    }

    fn answered(&mut self, now: Nanos, from: Rank, ns: NsId, body: Body) {
        match body {
            Body::Fetched { token, result } => self.fetched(now, from, ns, token, result),
            Body::Updated { token, result } => self.updated(now, from, ns, token, result),
            Body::Synced { token, result } => self.synced(now, from, ns, token, result),
            Body::Fetch { .. } | Body::Update { .. } | Body::Sync { .. } => {}
        }
    }

    /// Whether a question is of here and now.
    fn admit(&self, from: Rank, message: &Message) -> Result<(), Der> {
        let space = self.spaces.get(&message.ns).ok_or(Der::NONEXIST)?;
        if space.stopping {
            return Err(Der::SHUTDOWN);
        }
        if message.group != space.group.version() || !space.group.contains(from) {
            return Err(Der::GRPVER);
        }
        if message.term != space.term {
            let behind = message.term > space.term;
            return Err(if behind { Der::GRPVER } else { Der::NOTLEADER });
        }
        let (key, len) = match &message.body {
            Body::Fetch { key, .. } => (key, 0),
            Body::Update { key, change, .. } | Body::Sync { key, change, .. } => {
                (key, change.len())
            }
            Body::Fetched { .. } | Body::Updated { .. } | Body::Synced { .. } => return Ok(()),
        };
        let class = self.classes.get(&key.class()).ok_or(Der::NONEXIST)?;
        if len > class.max_value() {
            return Err(Der::OVERFLOW);
        }
        Ok(())
    }

    fn refuse(&mut self, to: Rank, message: &Message, der: Der) {
        let body = match message.body {
            Body::Fetch { token, .. } => Body::Fetched {
                token,
                result: Err(der),
            },
            Body::Update { token, .. } => Body::Updated {
                token,
                result: Err(der),
            },
            Body::Sync { token, .. } => Body::Synced {
                token,
                result: Err(der),
            },
            Body::Fetched { .. } | Body::Updated { .. } | Body::Synced { .. } => return,
        };
        self.send(to, message.ns, body);
    }

    /// Time has come to `now`: what is due happens.
    pub fn tick(&mut self, now: Nanos) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Deadline(op) => self.expire(op),
                Timer::Again(op, attempt) => self.again(now, op, attempt),
                Timer::Miss(ns, key, token) => self.miss_is_silent(now, ns, key, token),
                Timer::Passing(ns, token) => self.passing_is_over(ns, token),
                Timer::Spread(ns, token) => self.spread_is_silent(now, ns, token),
            }
        }
    }

    /// When [`Iv::tick`] has something to do next.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.timers.next()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// What this rank may serve without asking anybody: one look-up.
    pub fn cached(&self, now: Nanos, ns: NsId, key: &Key) -> Option<Cached<'_>> {
        let space = self.spaces.get(&ns)?;
        self.look(now, space, key, space.entries.get(key)?)
    }

    /// What a cache below this rank may have of a variable now.
    pub fn item(&self, now: Nanos, ns: NsId, key: Key) -> Item {
        let valid = self.cached(now, ns, &key).filter(|cached| cached.valid);
        match valid.and_then(|cached| Some((cached, cached.value?.clone()))) {
            Some((cached, value)) => Item::Keep {
                ns,
                key,
                version: cached.version,
                value,
                fresh_until: cached.fresh_until,
            },
            None => Item::Drop { ns, key },
        }
    }

    fn look<'a>(
        &self,
        now: Nanos,
        space: &Space,
        key: &Key,
        entry: &'a Entry,
    ) -> Option<Cached<'a>> {
        let fresh_until = match space.is_root(self.me) {
            true => Nanos::MAX,
            false => entry.fresh_until,
        };
        let class = self.classes.get(&key.class())?;
        let valid = entry.confirmed && now < fresh_until && class.valid(key, entry.version);
        Some(Cached {
            version: entry.version,
            value: entry.value.as_ref(),
            valid,
            fresh_until,
        })
    }

    /// All variables of a namespace of which this rank keeps something, by key.
    pub fn entries(&self, now: Nanos, ns: NsId) -> impl Iterator<Item = (&Key, Cached<'_>)> {
        let space = self.spaces.get(&ns);
        let all = space.into_iter().flat_map(|space| {
            space
                .entries
                .iter()
                .map(move |(key, entry)| (space, key, entry))
        });
        all.filter_map(move |(space, key, entry)| Some((key, self.look(now, space, key, entry)?)))
    }

    /// The ranks from this one up to the root, both among them; empty without a place in the tree.
    pub fn path(&self, ns: NsId) -> Vec<Rank> {
        let Some((space, leader)) = self
            .spaces
            .get(&ns)
            .and_then(|space| Some((space, space.leader?)))
        else {
            return Vec::new();
        };
        if !space.group.contains(leader) || !space.group.contains(self.me) {
            return Vec::new();
        }
        let parent = |rank: &Rank| space.tree.parent(&space.group, leader, *rank);
        std::iter::successors(Some(self.me), parent).collect()
    }

    /// Group version, leader and term of a namespace, as this rank knows them.
    pub fn view(&self, ns: NsId) -> Option<(u32, Option<Rank>, u64)> {
        let space = self.spaces.get(&ns)?;
        Some((space.group.version(), space.leader, space.term))
    }

    /// Operations that have not ended.
    pub fn pending(&self) -> usize {
        self.operations.len()
    }

    /// The name under which a variable is kept: the key that stands for all keys equal to this one.
    pub fn canonical(&self, key: Key) -> Key {
        self.classes
            .get(&key.class())
            .map_or(key, |class| class.canonical(&key))
    }

    /// Keeps a version of a variable if it is newer than what is known, or the same.
    pub(crate) fn keep_version(
        &mut self,
        ns: NsId,
        key: &Key,
        version: Version,
        value: Option<Value>,
        fresh_until: Nanos,
    ) -> Result<(), Der> {
        if self.entry(ns, key)?.take(version, value, fresh_until) {
            self.out.push_back(Output::Changed {
                ns,
                key: Some(*key),
            });
        }
        Ok(())
    }

    /// All of a namespace is in doubt, or gone.
    pub(crate) fn all_changed(&mut self, ns: NsId) {
        self.out.push_back(Output::Changed { ns, key: None });
    }

    /// What is kept of a variable, made if there is nothing yet.
    pub(crate) fn entry(&mut self, ns: NsId, key: &Key) -> Result<&mut Entry, Der> {
        let space = self.spaces.get_mut(&ns).ok_or(Der::NONEXIST)?;
        if !space.entries.contains_key(key) {
            if space.entries.len() >= self.options.max_entries {
                return Err(Der::NOMEM);
            }
            if let Some(class) = self.classes.get_mut(&key.class()) {
                class.init(key);
            }
        }
        Ok(space.entries.entry(*key).or_default())
    }

    /// A number that no life of this rank uses twice.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.incarnation << 40 | self.numbers
    }

    pub(crate) fn send(&mut self, to: Rank, ns: NsId, body: Body) {
        let (group, term) = match self.spaces.get(&ns) {
            Some(space) => (space.group.version(), space.term),
            None => (0, 0),
        };
        let message = Message {
            ns,
            group,
            term,
            body,
        };
        self.out.push_back(Output::Send { to, message });
    }

    /// Answers a change.
    pub(crate) fn reply(&mut self, now: Nanos, ns: NsId, asker: Asker, result: Result<Stamp, Der>) {
        match (asker, result) {
            (Asker::Own(op), Ok(stamp)) => self.succeed(op, stamp),
            (Asker::Own(op), Err(der)) => self.refused(now, op, der),
            (Asker::Peer { rank, token, .. }, result) => {
                self.send(rank, ns, Body::Updated { token, result });
            }
        }
    }
}
