//! Ranks on a network that loses nothing and has no delay, stepped by hand.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses its part of it"
)]

use std::collections::{BTreeMap, VecDeque};

use daos_errno::Der;
use engine_iv::{
    Body, Class, Group, How, Iv, Key, Message, NsId, OpId, Options, Output, Rank, Shortcut, Stamp,
    Sync, Tree, Value,
};

pub const NS: NsId = 42;
pub const SECOND: u64 = 1_000_000_000;
/// Long enough for a few attempts.
pub const BUDGET: u64 = 10 * SECOND;

/// A class whose cache is all there is.
pub struct Plain;

impl Class for Plain {
    fn max_value(&self) -> usize {
        64 << 10
    }
}

pub struct Net {
    pub now: u64,
    pub nodes: Vec<Iv>,
    /// Messages in flight.
    flying: VecDeque<(Rank, Rank, Message)>,
    /// Kinds of all that were delivered.
    pub delivered: Vec<(Rank, Rank, &'static str)>,
    pub done: BTreeMap<(Rank, OpId), Result<Stamp, Der>>,
    /// Ranks that receive nothing.
    pub deaf: Vec<Rank>,
    /// Ranks that are gone.
    pub dead: Vec<Rank>,
}

impl Net {
    pub fn new(ranks: u32) -> Net {
        Net::with(ranks, Tree::default(), || Box::new(Plain))
    }

    pub fn with(ranks: u32, tree: Tree, class: impl Fn() -> Box<dyn Class>) -> Net {
        let mut net = Net {
            now: SECOND,
            nodes: Vec::new(),
            flying: VecDeque::new(),
            delivered: Vec::new(),
            done: BTreeMap::new(),
            deaf: Vec::new(),
            dead: Vec::new(),
        };
        for rank in 0..ranks {
            let mut iv = Iv::new(rank, 0, Options::default());
            iv.register(1, class()).unwrap();
            iv.connect(NS, tree).unwrap();
            net.nodes.push(iv);
        }
        net.group(1);
        net.lead(0, 1);
        net
    }

    /// All ranks, in this version.
    pub fn group(&mut self, version: u32) {
        for rank in 0..self.nodes.len() as Rank {
            self.group_of(rank, version);
        }
    }

    pub fn group_of(&mut self, rank: Rank, version: u32) {
        let all = Group::new(version, 0..self.nodes.len() as Rank);
        self.nodes[rank as usize].set_group(self.now, NS, all);
    }

    pub fn lead(&mut self, leader: Rank, term: u64) {
        for iv in &mut self.nodes {
            iv.set_leader(self.now, NS, leader, term);
        }
    }

    pub fn iv(&mut self, rank: Rank) -> &mut Iv {
        &mut self.nodes[rank as usize]
    }

    /// Delivers until nothing flies.
    pub fn settle(&mut self) {
        loop {
            self.collect();
            if !self.step() {
                return;
            }
        }
    }

    /// Delivers one message; false: none flies.
    pub fn step(&mut self) -> bool {
        self.collect();
        let Some((from, to, message)) = self.flying.pop_front() else {
            return false;
        };
        if !self.deaf.contains(&to) && !self.dead.contains(&to) {
            self.delivered.push((from, to, kind(&message.body)));
            let now = self.now;
            // A stranger's number leads nowhere.
            if let Some(iv) = self.nodes.get_mut(to as usize) {
                iv.receive(now, from, message);
            }
        }
        true
    }

    fn collect(&mut self) {
        for rank in 0..self.nodes.len() as Rank {
            while let Some(output) = self.nodes[rank as usize].poll() {
                match output {
                    _ if self.dead.contains(&rank) => {}
                    Output::Send { to, message } => self.flying.push_back((rank, to, message)),
                    Output::Changed { .. } => {}
                    Output::Done(done) => {
                        let result = done.result.map_err(|failure| failure.der);
                        assert!(
                            self.done.insert((rank, done.op), result).is_none(),
                            "ended twice"
                        );
                    }
                }
            }
        }
    }

    /// A rank is gone, with what it had sent.
    pub fn kill(&mut self, rank: Rank) {
        self.collect();
        self.dead.push(rank);
        self.flying.retain(|(from, _, _)| *from != rank);
    }

    /// A rank begins a life that knows nothing.
    pub fn revive(&mut self, rank: Rank, life: u64, options: Options) {
        let mut iv = Iv::new(rank, life, options);
        iv.register(1, Box::new(Plain)).unwrap();
        iv.connect(NS, Tree::default()).unwrap();
        self.nodes[rank as usize] = iv;
        self.dead.retain(|dead| *dead != rank);
    }

    /// Messages that fly now.
    pub fn flying(&mut self) -> &VecDeque<(Rank, Rank, Message)> {
        self.collect();
        &self.flying
    }

    /// Lets time pass, from deadline to deadline.
    pub fn pass(&mut self, time: u64) {
        let end = self.now + time;
        loop {
            self.settle();
            let next = self.nodes.iter().filter_map(Iv::next_deadline).min();
            match next {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => break,
            }
            for iv in &mut self.nodes {
                iv.tick(self.now);
            }
        }
        self.now = end;
        self.settle();
    }

    pub fn result(&mut self, rank: Rank, op: OpId) -> Result<Stamp, Der> {
        self.settle();
        if !self.done.contains_key(&(rank, op)) {
            self.pass(2 * BUDGET);
        }
        self.done.remove(&(rank, op)).expect("it ended")
    }

    pub fn start_fetch(&mut self, rank: Rank, number: u8) -> OpId {
        let now = self.now;
        self.iv(rank)
            .fetch(now, NS, key(number), Shortcut::None, BUDGET)
    }

    pub fn fetch(&mut self, rank: Rank, number: u8) -> Result<Value, Der> {
        let op = self.start_fetch(rank, number);
        self.result(rank, op)
            .map(|stamp| stamp.value.expect("a value"))
    }

    pub fn start_update(&mut self, rank: Rank, number: u8, text: &str, how: How) -> OpId {
        let now = self.now;
        self.iv(rank)
            .update(now, NS, key(number), value(text), how, BUDGET)
    }

    pub fn update(&mut self, rank: Rank, number: u8, text: &str, sync: Sync) -> Result<Stamp, Der> {
        let op = self.start_update(rank, number, text, sync.into());
        self.result(rank, op)
    }

    pub fn invalidate(&mut self, rank: Rank, number: u8, sync: Sync) -> Result<Stamp, Der> {
        let now = self.now;
        let op = self
            .iv(rank)
            .invalidate(now, NS, key(number), sync.into(), BUDGET);
        self.result(rank, op)
    }

    /// What a rank may serve without asking.
    pub fn cached(&self, rank: Rank, number: u8) -> Option<Value> {
        let cached = self.nodes[rank as usize].cached(self.now, NS, &key(number))?;
        cached.value.filter(|_| cached.valid).cloned()
    }

    pub fn all_fetch(&mut self, number: u8) -> Vec<Result<Value, Der>> {
        (0..self.nodes.len() as Rank)
            .map(|rank| self.fetch(rank, number))
            .collect()
    }

    pub fn count(&self, what: &str) -> usize {
        self.delivered
            .iter()
            .filter(|(_, _, kind)| *kind == what)
            .count()
    }
}

fn kind(body: &Body) -> &'static str {
    match body {
        Body::Fetch { .. } => "fetch",
        Body::Fetched { .. } => "fetched",
        Body::Update { .. } => "update",
        Body::Updated { .. } => "updated",
        Body::Sync { .. } => "sync",
        Body::Synced { .. } => "synced",
    }
}

pub fn key(number: u8) -> Key {
    Key::new(1, &[number]).unwrap()
}

pub fn value(text: &str) -> Value {
    text.as_bytes().into()
}
