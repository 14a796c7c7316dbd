//! The xstreams of a rank: caches that are told of changes over mailboxes, each of which is emptied in its own time.

use std::collections::VecDeque;

use engine_iv::{Cache, Done, Feed, Item, Key, Nanos, Readers, Value, Version};

use crate::cluster::{Cluster, Event, NS, Pending};
use crate::rng::Rng;
use crate::scenario::MS;

/// What the xstreams of all ranks are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Of each rank, besides the one that has the machine.
    pub xstreams: usize,
    /// Messages that a mailbox holds.
    pub room: usize,
    /// What may wait for a full one.
    pub backlog: usize,
    /// Of a thousand messages so many wait up to 300 ms for the xstream.
    pub busy: u64,
}

impl Local {
    pub(crate) fn of(rng: &mut Rng, calm: bool) -> Local {
        Local {
            xstreams: rng.below(3) as usize,
            room: rng.within(1, 4) as usize,
            backlog: rng.pick(&[1, 2, 8]),
            busy: if calm { 0 } else { rng.pick(&[0, 100, 500]) },
        }
    }
}

/// Messages on their way, in order.
pub(crate) struct Boxes {
    waiting: Vec<VecDeque<(u64, Item)>>,
    taken: Vec<u64>,
    room: usize,
    /// Readers of messages that nobody has scheduled yet.
    new: Vec<usize>,
}

impl Readers for Boxes {
    fn count(&self) -> usize {
        self.waiting.len()
    }

    fn send(&mut self, reader: usize, number: u64, item: &Item) -> bool {
        let fits = self.waiting[reader].len() < self.room;
        if fits {
            self.waiting[reader].push_back((number, item.clone()));
            self.new.push(reader);
        }
        fits
    }

    fn has_taken(&mut self, reader: usize, number: u64) -> bool {
        self.taken[reader] >= number
    }
}

/// Of one rank in one life.
pub(crate) struct Xstreams {
    pub(crate) feed: Feed<Boxes>,
    caches: Vec<Cache>,
    /// What each had been told when its rank last heard of a group or leader.
    heard: Vec<u64>,
}

impl Xstreams {
    pub(crate) fn new(local: Local) -> Xstreams {
        let boxes = Boxes {
            waiting: vec![VecDeque::new(); local.xstreams],
            taken: vec![0; local.xstreams],
            room: local.room,
            new: Vec::new(),
        };
        Xstreams {
            feed: Feed::new(boxes, local.backlog),
            caches: (0..local.xstreams).map(|_| Cache::new(64)).collect(),
            heard: vec![0; local.xstreams],
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.caches.len()
    }

    /// What one serves.
    pub(crate) fn cached(&self, reader: usize, now: Nanos, key: &Key) -> Option<(Version, Value)> {
        let (version, bytes) = self.caches[reader].get(now, NS, key)?;
        Some((version, bytes.to_vec().into()))
    }

    /// The rank has heard of a group or leader: until an xstream has taken what it is told of that, it is behind its rank.
    pub(crate) fn rank_heard(&mut self) {
        for (reader, heard) in self.heard.iter_mut().enumerate() {
            *heard = self.feed.told(reader);
        }
    }

    /// Whether it knows as much of group and leader as its rank.
    pub(crate) fn is_current(&mut self, reader: usize) -> bool {
        self.feed.readers().taken[reader] >= self.heard[reader]
    }

    /// An xstream comes to its mailbox.
    fn read(&mut self, reader: usize) {
        let boxes = self.feed.readers();
        if let Some((number, item)) = boxes.waiting[reader].pop_front() {
            self.caches[reader].apply(item);
            boxes.taken[reader] = number;
        }
        self.feed.retry();
    }
}

impl Cluster {
    /// Sees to it that messages to xstreams are read.
    pub(crate) fn schedule_reads(&mut self, rank: u32) {
        let node = &mut self.nodes[rank as usize];
        let (life, new) = (node.incarnation, &mut node.xstreams.feed.readers().new);
        for reader in std::mem::take(new) {
            let busy = self.rng.per_mille(self.local.busy);
            let longest = if busy { 300 * MS } else { MS / 10 };
            let when = self.now + self.rng.within(1_000, longest);
            self.queue.push(when, Event::Read { rank, reader, life });
        }
    }

    /// False: it was another life's.
    pub(crate) fn xstream_reads(
        &mut self,
        rank: u32,
        reader: usize,
        life: u64,
    ) -> Result<bool, String> {
        let node = &mut self.nodes[rank as usize];
        if node.iv.is_none() || node.incarnation != life {
            return Ok(false);
        }
        node.xstreams.read(reader);
        for key in &self.keys {
            if let Some((version, value)) = node.xstreams.cached(reader, self.now, key) {
                self.checker.seen_below(rank, reader, *key, version)?;
                let term = self.membership.term;
                self.checker.stands_for(rank, *key, version, &value, term)?;
            }
        }
        Ok(true)
    }

    /// What an xstream fetched it keeps, and is told of from then on.
    pub(crate) fn keep_below(&mut self, rank: u32, done: &Done, pending: Option<Pending>) {
        let node = &mut self.nodes[rank as usize];
        if let (Some(pending), Some(iv), true) = (pending, &node.iv, done.result.is_ok())
            && let (Some(reader), true) = (pending.reader, pending.fetch)
        {
            let item = iv.item(self.now, NS, pending.key);
            let feed = &mut node.xstreams.feed;
            feed.subscribe(reader, NS, pending.key, item);
        }
    }

    /// An xstream looks into its own cache before it asks; whether it found something, which is as new as what the rank itself would have had to find.
    pub(crate) fn found_below(
        &mut self,
        rank: u32,
        reader: usize,
        key: &Key,
        at_least: Option<Version>,
    ) -> Result<bool, String> {
        let xstreams = &mut self.nodes[rank as usize].xstreams;
        let current = xstreams.is_current(reader);
        let Some((version, _)) = xstreams.cached(reader, self.now, key) else {
            return Ok(false);
        };
        match at_least {
            Some(least) if current && version < least => Err(format!(
                "xstream {reader} of rank {rank} serves {version:?} of {:?}, and an eager update had returned {least:?} before",
                key.bytes()
            )),
            _ => Ok(true),
        }
    }
}
