//! What do incast variables cost: a read on a target that has the value, an update that waits for the caches of an engine, and updates
//! among engines over TCP?

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use engine_iv_service::{Class, How, Incast, Key, NsId, Options, Scope, Sync, Var};
use engine_rpc::{Group, Member, Membership, Registry, RpcServer};
use engine_tls::KeyRegistry;
use engine_xstream::{Core, Layout, LayoutOptions, StartOptions, XstreamSet, Xstreams};
use serde::Serialize;
use spdk_env::Clock;
use spdk_reactor::{ReactorOptions, ReactorSet};

use crate::{Histogram, Latency, iv_ranks};

const NS: NsId = 1;
const CLASS: u32 = 1;
const BUDGET: Duration = Duration::from_secs(30);
/// Reads between two looks at the clock.
const BATCH: u64 = 100_000;
/// Engines of the third measurement, and updates that each has under way.
const RANKS: u32 = 4;
const WINDOW: u32 = 32;
/// For the control thread to wait for an xstream.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Nanoseconds per read of a cached value's bytes on a target's xstream.
    pub cached_ns: f64,
    /// Nanoseconds per read of a cached value as a type.
    pub typed_ns: f64,
    /// Eager updates by a target, over the caches of two targets and an offload xstream, microseconds.
    pub eager_us: Latency,
    /// Eager updates at the root of [`Report::ring_ranks`] ranks in one process, over rings, microseconds.
    pub rings_us: Latency,
    /// Ranks of that.
    pub ring_ranks: u32,
    /// Updates per second that took effect at the root, asked for by all other ranks at once; none is propagated.
    pub updates_per_s: f64,
    /// Ranks of that.
    pub ranks: u32,
}

/// Runs all measurements, `seconds` each.
pub fn run(seconds: f64) -> Result<Report> {
    let ns = (seconds * 1e9) as u64;
    let one = Node::start(0)?;
    one.join(&[&one])?;
    let (cached_ns, typed_ns) = reads(&one, ns)?;
    let eager_us = eager(&one, ns)?;
    drop(one);
    let nodes = (0..RANKS).map(Node::start).collect::<Result<Vec<_>>>()?;
    let all: Vec<&Node> = nodes.iter().collect();
    for node in &nodes {
        node.join(&all)?;
    }
    Ok(Report {
        cached_ns,
        typed_ns,
        eager_us,
        rings_us: iv_ranks::eager(ns)?,
        ring_ranks: iv_ranks::RANKS,
        updates_per_s: updates(&nodes, seconds)?,
        ranks: RANKS,
    })
}

fn key(number: u32) -> Result<Key> {
    Key::new(CLASS, &number.to_le_bytes()).context("a key of four bytes")
}

fn reads(node: &Node, ns: u64) -> Result<(f64, f64)> {
    let (incast, key) = (node.incast.clone(), key(1)?);
    let var = Var::<u64>::new(&incast, NS, key);
    node.run(1, move || async move {
        var.update(&42, Sync::Eager.into(), BUDGET).await?;
        var.fetch(BUDGET).await?;
        let cached = time(ns, || incast.cached(NS, black_box(&key)).is_some());
        let typed = time(ns, || {
            black_box(&var).get().is_some_and(|value| *value == 42)
        });
        Ok((cached, typed))
    })
}

fn time(ns: u64, read: impl Fn() -> bool) -> f64 {
    let clock = Clock::tsc();
    let (start, mut reads, mut right) = (clock.now(), 0, 0);
    while clock.now() - start < ns {
        for _ in 0..BATCH {
            right += u64::from(read());
        }
        reads += BATCH;
    }
    assert_eq!(right, reads, "every read gives the value");
    (clock.now() - start) as f64 / reads as f64
}

fn eager(node: &Node, ns: u64) -> Result<Latency> {
    let var = Var::<u64>::new(&node.incast, NS, key(2)?);
    for xstream in 1..=3 {
        let var = var.clone();
        node.run(xstream, move || async move {
            var.update(&0, Sync::Eager.into(), BUDGET).await?;
            Ok(var.fetch(BUDGET).await.map(drop)?)
        })?;
    }
    node.run(1, move || async move {
        let clock = Clock::tsc();
        let (start, mut taken, mut number) = (clock.now(), Histogram::default(), 0);
        while clock.now() - start < ns || number == 0 {
            let begun = clock.now();
            number += 1;
            var.update(&number, Sync::Eager.into(), BUDGET).await?;
            taken.record(clock.now() - begun);
        }
        Ok(taken.latency(1.0))
    })
}

fn updates(nodes: &[Node], seconds: f64) -> Result<f64> {
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(seconds);
    let mut asked = Vec::new();
    // The root's own take no way.
    for node in nodes.iter().filter(|node| node.rank != 0) {
        let (incast, rank) = (node.incast.clone(), node.rank);
        let (sender, receiver) = std::sync::mpsc::channel();
        for lane in 0..WINDOW {
            let var = Var::<u64>::new(&incast, NS, key(rank * WINDOW + lane + 10)?);
            let sender = sender.clone();
            let keep = move |_: &engine_xstream::Xstream| async move {
                let mut done: Result<u64> = Ok(0);
                while let Ok(count) = &mut done
                    && Instant::now() < end
                {
                    match var.update(count, How::default(), BUDGET).await {
                        Ok(_) => *count += 1,
                        Err(failure) => done = Err(anyhow::anyhow!("an update failed: {failure}")),
                    }
                }
                // The receiver waits for all.
                let _ = sender.send(done);
            };
            node.xstreams.system().spawn("updates", keep)?;
        }
        asked.push(receiver);
    }
    let mut count = 0;
    for receiver in asked {
        for _ in 0..WINDOW {
            count += receiver.recv_timeout(PATIENCE)??;
        }
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

struct Plain;

impl Class for Plain {}

/// An engine: two targets and an offload xstream.
struct Node {
    rank: u32,
    incast: Incast,
    membership: Membership,
    rpc: Option<RpcServer>,
    xstreams: Xstreams,
    set: Option<XstreamSet>,
}

impl Node {
    fn start(rank: u32) -> Result<Node> {
        let (keys, registry) = (KeyRegistry::new(), Registry::new());
        let incast = Incast::register_keys(&keys, Options::default())?;
        incast.serve(&registry)?;
        let register = incast.register(CLASS, "bench", Box::new(Plain));
        register.context("the first class")?;
        let cpus = spdk_env::cpu::allowed()?;
        let cores: Vec<Core> = cpus.iter().map(|cpu| Core::alone(*cpu, 0)).collect();
        let wanted = LayoutOptions {
            targets: 2,
            helpers: 1,
            oversubscribe: true,
            ..LayoutOptions::default()
        };
        let layout = Layout::compute(&wanted, &cores)?;
        let options = ReactorOptions {
            cpus: layout.cpus(),
            // Several engines share the cores of one machine here.
            idle_latency_us: 50,
            pin: false,
            ..ReactorOptions::default()
        };
        let reactors = ReactorSet::start(&options)?;
        let set = XstreamSet::start(layout, reactors, &keys, &StartOptions::default())?;
        let membership = Membership::new(rank, 1);
        let options = engine_rpc::Options {
            group: membership.clone(),
            ..engine_rpc::Options::default()
        };
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let rpc = RpcServer::start(set.xstreams(), registry, Some(listen), options)?;
        Ok(Node {
            rank,
            incast,
            membership,
            rpc: Some(rpc),
            xstreams: set.xstreams().clone(),
            set: Some(set),
        })
    }

    fn address(&self) -> Result<SocketAddr> {
        let rpc = self.rpc.as_ref();
        rpc.and_then(RpcServer::addr).context("it listens")
    }

    /// Makes it a member of a group of these, led by rank 0.
    fn join(&self, all: &[&Node]) -> Result<()> {
        let member = |node: &&Node| {
            Ok(Member {
                rank: node.rank,
                address: node.address()?,
                incarnation: 0,
            })
        };
        let members = all.iter().map(member).collect::<Result<Vec<_>>>()?;
        self.membership.set(Group::new(1, members));
        let me = (self.rank, 1);
        self.incast.start(&self.xstreams, me, &self.membership)?;
        let incast = self.incast.clone();
        self.run(0, move || async move {
            incast.group_changed(Some((0, 1)));
            Ok(incast.connect(NS, Scope::Group).await?)
        })
    }

    fn run<T, Fut>(&self, xstream: usize, f: impl FnOnce() -> Fut + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        Fut: Future<Output = Result<T>> + 'static,
    {
        let xstream = &self.xstreams.all()[xstream];
        xstream.execute_blocking("bench", PATIENCE, move |_| f())?
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.incast.stop();
        if let Some(rpc) = self.rpc.take() {
            rpc.close();
        }
        if let Some(set) = self.set.take() {
            // What is left ends with the process.
            let _ = set.shutdown(PATIENCE, |_| {});
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_are_measured() {
        let report = super::run(0.02).unwrap();
        assert!(report.cached_ns > 0.0 && report.typed_ns > 0.0);
        assert!(report.eager_us.p50 > 0.0 && report.updates_per_s > 0.0);
        assert!(report.rings_us.p50 > 0.0);
    }
}
