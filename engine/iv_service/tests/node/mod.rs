//! An engine's xstreams on two cores, with RPC over TCP and incast variables.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use engine_iv_service::{Incast, Options};
use engine_rpc::{Group, Member, Membership, Registry, RpcServer};
use engine_tls::KeyRegistry;
use engine_xstream::{Core, Layout, LayoutOptions, StartOptions, XstreamSet, Xstreams};
use spdk_reactor::{ReactorOptions, ReactorSet};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Node {
    pub incast: Incast,
    pub membership: Membership,
    rank: u32,
    life: u64,
    rpc: Option<RpcServer>,
    xstreams: Xstreams,
    set: Mutex<Option<XstreamSet>>,
}

impl Node {
    /// Two targets and an offload xstream; in no group yet.
    pub fn start(rank: u32, life: u64) -> Node {
        let keys = KeyRegistry::new();
        let incast = Incast::register_keys(&keys, Options::default()).unwrap();
        let registry = Registry::new();
        incast.serve(&registry).unwrap();
        let cpu = spdk_env::cpu::allowed().unwrap()[0];
        let wanted = LayoutOptions {
            targets: 2,
            helpers: 1,
            oversubscribe: true,
            ..LayoutOptions::default()
        };
        let layout = Layout::compute(&wanted, &[Core::alone(cpu, 0)]).unwrap();
        let options = ReactorOptions {
            cpus: layout.cpus(),
            idle_latency_us: 50,
            pin: false,
            ..ReactorOptions::default()
        };
        let reactors = ReactorSet::start(&options).unwrap();
        let set = XstreamSet::start(layout, reactors, &keys, &StartOptions::default()).unwrap();
        let membership = Membership::new(rank, life);
        let options = engine_rpc::Options {
            group: membership.clone(),
            ..engine_rpc::Options::default()
        };
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let rpc = RpcServer::start(set.xstreams(), registry, Some(listen), options).unwrap();
        Node {
            incast,
            membership,
            rank,
            life,
            rpc: Some(rpc),
            xstreams: set.xstreams().clone(),
            set: Mutex::new(Some(set)),
        }
    }

    pub fn start_incast(&self) {
        let me = (self.rank, self.life);
        self.incast
            .start(&self.xstreams, me, &self.membership)
            .unwrap();
    }

    /// As the engine would that has heard it: rank 0 leads, in this term.
    pub fn tell_leader(&self, term: u64) {
        let incast = self.incast.clone();
        self.run(0, move || async move {
            incast.group_changed(Some((0, term)));
        });
    }

    /// Runs an async function as a ULT of an xstream (0 = system, 1 and 2 = targets, 3 = offload) and waits for its result.
    pub fn run<T, F, Fut>(&self, xstream: usize, f: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
    {
        let xstream = &self.xstreams.all()[xstream];
        xstream
            .execute_blocking("test", PATIENCE, move |_| f())
            .unwrap()
    }

    pub fn wait_for(&self, what: &str, is_so: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < end, "waited a minute for {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.incast.stop();
        if let Some(rpc) = self.rpc.take() {
            rpc.close();
        }
        let ended = self
            .set
            .lock()
            .unwrap()
            .take()
            .unwrap()
            .shutdown(PATIENCE, |_| {});
        if !std::thread::panicking() {
            ended.expect("incast variables leave nothing on the xstreams");
        }
    }
}

/// Tells `nodes` that the group has these members in this version.
pub fn group_of(nodes: &[Node], members: &[Node], version: u32) {
    let member = |node: &Node| Member {
        rank: node.rank,
        address: node.rpc.as_ref().unwrap().addr().unwrap(),
        incarnation: 0,
    };
    for node in nodes {
        let group = Group::new(version, members.iter().map(member));
        assert!(node.membership.set(group));
    }
}
