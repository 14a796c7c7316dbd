//! An eager update over many ranks in one process: each rank a machine with a mailbox of its own, their messages over rings. What the tree and
//! the machines cost when no network is between them; one core does the work of all ranks, each when it has mail.

use std::collections::VecDeque;

use anyhow::{Context, Result};
use engine_iv::{Class, Group, Iv, Key, Message, NsId, Options, Output, Rank, Sync, Tree, Value};
use spdk_env::Clock;
use spdk_ring::mpsc::{Receiver, Sender, channel};

use crate::{Histogram, Latency};

/// Ranks: three levels below the root at the default ratio.
pub(crate) const RANKS: u32 = 64;
const NS: NsId = 1;
const CLASS: u32 = 1;
const BUDGET: u64 = 1_000_000_000;
/// Messages of a mailbox.
const MAIL: usize = 256;

struct Plain;

impl Class for Plain {}

struct Node {
    iv: Iv,
    mail: Receiver<(Rank, Message)>,
}

struct Cluster {
    nodes: Vec<Node>,
    to: Vec<Sender<(Rank, Message)>>,
    /// Ranks with mail, in the order in which it came.
    ready: VecDeque<usize>,
    /// Which are in it.
    queued: Vec<bool>,
    clock: Clock,
}

/// Updates at the root until `ns` have passed; each has reached all ranks when it ends.
pub(crate) fn eager(ns: u64) -> Result<Latency> {
    let mut cluster = Cluster::new()?;
    let key = Key::new(CLASS, b"bench").context("a short key")?;
    let (start, mut taken, mut number) = (cluster.clock.now(), Histogram::default(), 0u64);
    while cluster.clock.now() - start < ns || number == 0 {
        let begun = cluster.clock.now();
        number += 1;
        cluster.update(begun, key, number.to_le_bytes().as_slice().into())?;
        taken.record(cluster.clock.now() - begun);
        if number.is_multiple_of(64) {
            cluster.tick();
        }
    }
    Ok(taken.latency(1.0))
}

impl Cluster {
    fn new() -> Result<Cluster> {
        let (to, mails): (Vec<_>, Vec<_>) = (0..RANKS).map(|_| channel(MAIL)).unzip();
        let node = |(rank, mail): (u32, Receiver<(Rank, Message)>)| {
            let mut iv = Iv::new(rank, 1, Options::default());
            iv.register(CLASS, Box::new(Plain))
                .context("the first class")?;
            iv.connect(NS, Tree::default()).context("a namespace")?;
            iv.set_group(0, NS, Group::new(1, 0..RANKS));
            iv.set_leader(0, NS, 0, 1);
            Ok(Node { iv, mail })
        };
        let nodes = (0..).zip(mails).map(node).collect::<Result<_>>()?;
        Ok(Cluster {
            nodes,
            to,
            ready: VecDeque::with_capacity(RANKS as usize),
            queued: vec![false; RANKS as usize],
            clock: Clock::tsc(),
        })
    }

    /// To its end.
    fn update(&mut self, now: u64, key: Key, value: Value) -> Result<()> {
        self.nodes[0]
            .iv
            .update(now, NS, key, value, Sync::Eager.into(), BUDGET);
        self.ready.push_back(0);
        // Each rank in its turn takes what has come and sends what follows from it, as its xstream would.
        while let Some(rank) = self.ready.pop_front() {
            if let Some(result) = self.turn(rank)? {
                self.ready.clear();
                self.queued.fill(false);
                return result;
            }
        }
        anyhow::bail!("the update does not end")
    }

    fn turn(&mut self, rank: usize) -> Result<Option<Result<()>>> {
        let (now, node) = (self.clock.now(), &mut self.nodes[rank]);
        self.queued[rank] = false;
        while let Some((from, message)) = node.mail.try_recv() {
            node.iv.receive(now, from, message);
        }
        while let Some(output) = node.iv.poll() {
            match output {
                Output::Done(done) => {
                    let ended = done.result.map(drop).context("an eager update");
                    return Ok(Some(ended));
                }
                Output::Send { to, message } => {
                    let sent = self.to[to as usize].try_send((rank as Rank, message));
                    sent.ok().context("a mailbox holds a tree's messages")?;
                    if !std::mem::replace(&mut self.queued[to as usize], true) {
                        self.ready.push_back(to as usize);
                    }
                }
                Output::Changed { .. } => {}
            }
        }
        Ok(None)
    }

    /// What was timed and has ended goes.
    fn tick(&mut self) {
        let now = self.clock.now();
        self.nodes.iter_mut().for_each(|node| node.iv.tick(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_that_ends_is_at_every_rank() {
        let mut cluster = Cluster::new().unwrap();
        let key = Key::new(CLASS, b"all").unwrap();
        let value: Value = b"here".as_slice().into();
        cluster.update(1, key, value.clone()).unwrap();
        for node in &cluster.nodes {
            let cached = node.iv.cached(2, NS, &key).unwrap();
            assert_eq!((cached.value, cached.valid), (Some(&value), true));
        }
    }
}
