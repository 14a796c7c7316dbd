//! Ranks and the network between them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use engine_iv::{
    Body, Done, Iv, Key, Message, Nanos, NsId, OpId, Options, Output, Rank, Tree, Version,
};

use crate::authority::{Authority, Plain, Store};
use crate::check::Checker;
use crate::membership::Membership;
use crate::queue::Queue;
use crate::rng::Rng;
use crate::scenario::MS;
use crate::xstreams::{Local, Xstreams};

/// The namespace of all runs.
pub(crate) const NS: NsId = 0x5eed;

/// How messages fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Shortest way, in nanoseconds.
    pub fastest: Nanos,
    /// Longest way; messages overtake each other in between.
    pub slowest: Nanos,
    /// Lost, of a thousand.
    pub loss: u64,
    /// Delivered twice, of a thousand.
    pub doubling: u64,
}

impl Default for Network {
    /// Nothing goes wrong, and nothing takes long.
    fn default() -> Network {
        Network {
            fastest: 10_000,
            slowest: 50_000,
            loss: 0,
            doubling: 0,
        }
    }
}

/// Messages that were sent, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions for values.
    pub fetch: u64,
    /// Changes on their way up.
    pub update: u64,
    /// Changes on their way down.
    pub sync: u64,
    /// Answers of all kinds.
    pub answers: u64,
}

#[derive(Debug)]
pub(crate) enum Event {
    Deliver {
        from: Rank,
        to: Rank,
        message: Box<Message>,
    },
    Wake(Rank),
    Hear(Rank),
    /// An xstream comes to its mailbox.
    Read {
        rank: Rank,
        reader: usize,
        life: u64,
    },
    /// A rank that is out of reach since then is left out, one that is back is let in.
    Settle,
}

/// An operation as the checkers need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub(crate) key: Key,
    pub(crate) deadline: Nanos,
    pub(crate) eager: bool,
    pub(crate) fetch: bool,
    /// Of which xstream it is; `None`: of the one that has the machine.
    pub(crate) reader: Option<usize>,
    /// A fetch: what it must find at least, if the rank belonged to the group all the time.
    pub(crate) at_least: Option<Version>,
}

pub(crate) struct Node {
    /// `None`: crashed.
    pub(crate) iv: Option<Iv>,
    pub(crate) incarnation: u64,
    pub(crate) xstreams: Xstreams,
    wake_at: Nanos,
    pub(crate) pending: BTreeMap<OpId, Pending>,
    slow: bool,
}

/// A cluster on virtual time.
pub struct Cluster {
    pub(crate) now: Nanos,
    pub(crate) nodes: Vec<Node>,
    pub(crate) membership: Membership,
    pub(crate) network: Network,
    pub(crate) checker: Checker,
    pub(crate) ended: Vec<(Rank, Done, Option<Pending>)>,
    pub(crate) keys: Vec<Key>,
    pub(crate) trace: bool,
    pub(crate) away: BTreeSet<Rank>,
    pub(crate) one_way: bool,
    counts: Counts,
    pub(crate) local: Local,
    pub(crate) queue: Queue<Event>,
    pub(crate) rng: Rng,
    store: Rc<RefCell<Store>>,
    tree: Tree,
    lease: Nanos,
    /// Looks at every cache after every event.
    watch: bool,
}

impl Cluster {
    /// `ranks` ranks that know of each other, rank 0 the leader.
    pub fn new(
        seed: u64,
        ranks: u32,
        (tree, local): (Tree, Local),
        network: Network,
        lease: Nanos,
    ) -> Cluster {
        let mut cluster = Cluster {
            now: 0,
            nodes: Vec::new(),
            membership: Membership::new(ranks),
            network,
            checker: Checker::default(),
            ended: Vec::new(),
            keys: Vec::new(),
            trace: false,
            away: BTreeSet::new(),
            one_way: false,
            counts: Counts::default(),
            local,
            queue: Queue::new(),
            rng: Rng::new(seed ^ 0xc1a5_7e12),
            store: Rc::default(),
            tree,
            lease,
            watch: ranks <= 256,
        };
        cluster.store.borrow_mut().term = 1;
        for rank in 0..ranks {
            let node = Node {
                iv: None,
                incarnation: 0,
                xstreams: Xstreams::new(local),
                wake_at: Nanos::MAX,
                pending: BTreeMap::new(),
                slow: false,
            };
            cluster.nodes.push(node);
            cluster.boot(rank);
            cluster.hear(rank);
        }
        cluster
    }

    /// Messages so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Virtual time, in nanoseconds.
    pub fn now(&self) -> Nanos {
        self.now
    }

    pub(crate) fn slow_down(&mut self, rank: Rank) {
        self.nodes[rank as usize].slow = true;
    }

    fn boot(&mut self, rank: Rank) {
        let mut iv = Iv::new(
            rank,
            self.nodes[rank as usize].incarnation,
            Options::default(),
        );
        let authority = Authority {
            store: self.store.clone(),
            lease: self.lease,
        };
        // Fresh machines: neither of the two can be refused.
        let _ = iv.register(1, Box::new(authority));
        let plain = Plain {
            store: self.store.clone(),
            lease: self.lease,
        };
        let _ = iv.register(2, Box::new(plain));
        let _ = iv.connect(NS, self.tree);
        self.nodes[rank as usize].iv = Some(iv);
        self.nodes[rank as usize].xstreams = Xstreams::new(self.local);
    }

    pub(crate) fn crash(&mut self, rank: Rank) {
        let node = &mut self.nodes[rank as usize];
        node.iv = None;
        node.pending.clear();
        node.wake_at = Nanos::MAX;
        self.settle_later();
    }

    pub(crate) fn restart(&mut self, rank: Rank) {
        let node = &mut self.nodes[rank as usize];
        if node.iv.is_some() {
            return;
        }
        node.incarnation += 1;
        self.checker.forget(rank);
        self.boot(rank);
        // It says itself that it is new: whoever still counted on its earlier life must hear of the change.
        let mut members: BTreeSet<Rank> = self.membership.group.members().iter().copied().collect();
        if members.remove(&rank) && self.membership.settle(&members) {
            self.proclaim();
        } else if self.nodes.len() == 1 || members.is_empty() {
            // Alone: a life that knows nothing must not go on in its predecessor's term.
            self.elect(rank);
        }
        self.settle_later();
    }

    pub(crate) fn settle_later(&mut self) {
        let when = self.now + self.rng.within(300, 3_000) * MS;
        self.queue.push(when, Event::Settle);
    }

    fn settle(&mut self) {
        let reachable =
            |rank: &Rank| self.nodes[*rank as usize].iv.is_some() && !self.away.contains(rank);
        let members: BTreeSet<Rank> = (0..self.nodes.len() as Rank).filter(reachable).collect();
        if self.membership.settle(&members) {
            self.proclaim();
        }
    }

    pub(crate) fn elect(&mut self, leader: Rank) {
        self.membership.elect(leader);
        self.proclaim();
    }

    /// Everyone will hear of the truth, each at a time of its own.
    fn proclaim(&mut self) {
        self.store.borrow_mut().term = self.membership.term;
        for rank in 0..self.nodes.len() as Rank {
            let when = self.now + self.rng.within(1, 500) * MS;
            self.queue.push(when, Event::Hear(rank));
        }
    }

    fn hear(&mut self, rank: Rank) {
        if self.away.contains(&rank) {
            self.queue.push(self.now + 100 * MS, Event::Hear(rank));
            return;
        }
        let (now, leader, term) = (self.now, self.membership.leader, self.membership.term);
        let group = self.membership.group.clone();
        if self.trace {
            self.print(&format!(
                "{rank} hears of group {} {:?}, leader {leader} in term {term}",
                group.version(),
                group.members()
            ));
        }
        if let Some(iv) = &mut self.nodes[rank as usize].iv {
            iv.set_group(now, NS, group);
            iv.set_leader(now, NS, leader, term);
        }
    }

    /// Whether a rank knows the present group and leader, and belongs to it.
    pub(crate) fn is_current(&self, rank: Rank) -> bool {
        let iv = self.nodes[rank as usize].iv.as_ref();
        let truth = (
            self.membership.group.version(),
            Some(self.membership.leader),
            self.membership.term,
        );
        self.membership.group.contains(rank) && iv.and_then(|iv| iv.view(NS)) == Some(truth)
    }

    /// What the store of class 1 holds.
    pub(crate) fn truth(&self, key: &Key) -> Option<engine_iv::Value> {
        self.store.borrow().value(key).cloned()
    }

    /// Starts an operation on a rank that runs.
    pub(crate) fn begin(
        &mut self,
        rank: Rank,
        pending: Pending,
        start: impl FnOnce(&mut Iv, Nanos) -> OpId,
    ) {
        let now = self.now;
        let node = &mut self.nodes[rank as usize];
        if let Some(iv) = &mut node.iv {
            let op = start(iv, now);
            node.pending.insert(op, pending);
        }
    }

    /// Runs everything up to `end`, in order.
    pub(crate) fn run_until(&mut self, end: Nanos) -> Result<(), String> {
        while let Some((when, event)) = self.queue.pop_until(end) {
            self.now = when;
            let rank = match event {
                Event::Deliver { from, to, message } => {
                    if self.trace {
                        self.print(&format!("{from} -> {to}: {:?}", message.body));
                    }
                    if let Some(iv) = &mut self.nodes[to as usize].iv {
                        iv.receive(when, from, *message);
                    }
                    to
                }
                Event::Wake(rank) => {
                    let node = &mut self.nodes[rank as usize];
                    if node.wake_at <= when {
                        node.wake_at = Nanos::MAX;
                    }
                    if let Some(iv) = &mut node.iv {
                        iv.tick(when);
                    }
                    rank
                }
                Event::Hear(rank) => {
                    self.hear(rank);
                    self.drain(rank)?;
                    self.nodes[rank as usize].xstreams.rank_heard();
                    continue;
                }
                Event::Read { rank, reader, life } => {
                    if !self.xstream_reads(rank, reader, life)? {
                        continue;
                    }
                    rank
                }
                Event::Settle => {
                    self.settle();
                    continue;
                }
            };
            self.drain(rank)?;
        }
        self.now = end;
        Ok(())
    }

    /// Sends what a rank wants sent, notes what it finished, and looks at its caches.
    pub(crate) fn drain(&mut self, rank: Rank) -> Result<(), String> {
        loop {
            let Some(iv) = &mut self.nodes[rank as usize].iv else {
                return Ok(());
            };
            let Some(output) = iv.poll() else { break };
            let now = self.nodes[rank as usize].xstreams.feed.pass(output);
            if let Some(output) = now {
                self.put_out(rank, output)?;
            }
        }
        loop {
            let feed = &mut self.nodes[rank as usize].xstreams.feed;
            match feed.confirmed(self.now) {
                Some(output) => self.put_out(rank, output)?,
                None => break,
            }
        }
        self.schedule_reads(rank);
        self.wake(rank);
        if let Some(request) = self.store.borrow().twice {
            return Err(format!("{request:?} took effect twice"));
        }
        if self.watch {
            self.look_at(rank)?;
        }
        Ok(())
    }

    fn put_out(&mut self, rank: Rank, output: Output) -> Result<(), String> {
        let (now, node) = (self.now, &mut self.nodes[rank as usize]);
        match output {
            Output::Changed { ns, key: Some(key) } => {
                if let Some(iv) = node
                    .iv
                    .as_ref()
                    .filter(|_| node.xstreams.feed.is_held(ns, &key))
                {
                    node.xstreams.feed.changed(ns, key, &iv.item(now, ns, key));
                }
            }
            Output::Changed { ns, key: None } => node.xstreams.feed.drop_space(ns),
            Output::Send { to, message } => self.send(rank, to, message),
            Output::Done(done) => {
                let pending = node.pending.remove(&done.op);
                if self.trace {
                    self.print(&format!("{rank} ended {}: {:?}", done.op, done.result));
                }
                self.judge(rank, &done, pending)?;
                self.keep_below(rank, &done, pending);
                self.ended.push((rank, done, pending));
            }
        }
        Ok(())
    }

    fn wake(&mut self, rank: Rank) {
        let node = &mut self.nodes[rank as usize];
        let machine = node.iv.as_ref().and_then(Iv::next_deadline);
        let waiting = node.xstreams.feed.next_deadline();
        let Some(next) = machine.into_iter().chain(waiting).min() else {
            return;
        };
        if next < node.wake_at {
            node.wake_at = next;
            self.queue.push(next.max(self.now), Event::Wake(rank));
        }
    }

    fn send(&mut self, from: Rank, to: Rank, message: Message) {
        match message.body {
            Body::Fetch { .. } => self.counts.fetch += 1,
            Body::Update { .. } => self.counts.update += 1,
            Body::Sync { .. } => self.counts.sync += 1,
            Body::Fetched { .. } | Body::Updated { .. } | Body::Synced { .. } => {
                self.counts.answers += 1
            }
        }
        let split = match (self.away.contains(&from), self.away.contains(&to)) {
            (true, false) => true,
            (false, true) => !self.one_way,
            _ => false,
        };
        if split || self.rng.per_mille(self.network.loss) {
            return;
        }
        let copies = 1 + u64::from(self.rng.per_mille(self.network.doubling));
        for _ in 1..copies {
            self.post(from, to, message.clone());
        }
        self.post(from, to, message);
    }

    pub(crate) fn post(&mut self, from: Rank, to: Rank, message: Message) {
        let mut way = self.rng.within(self.network.fastest, self.network.slowest);
        if self.nodes[to as usize].slow {
            way *= 20;
        }
        let message = Box::new(message);
        self.queue
            .push(self.now + way, Event::Deliver { from, to, message });
    }

    #[expect(clippy::print_stdout, reason = "what --trace asks for")]
    fn print(&self, text: &str) {
        let mut text = text.to_owned();
        text.truncate(
            text.char_indices()
                .nth(300)
                .map_or(text.len(), |(at, _)| at),
        );
        println!("{:>9} us  {text}", self.now / 1000);
    }
}
