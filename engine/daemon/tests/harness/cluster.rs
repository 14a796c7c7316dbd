//! Several engines of one group on this machine, each a process of its own.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};

use drpc_wire::{keel, methods, modules};

use super::config::{Config, Kind};
use super::process::{Engine, eventually};

pub struct Cluster {
    pub configs: Vec<Config>,
    /// By rank; `None`: it does not run.
    pub engines: Vec<Option<Engine>>,
    addresses: Vec<SocketAddr>,
}

impl Cluster {
    /// Starts `ranks` engines with one target each and these modules.
    pub fn start(ranks: u8, load: &[&str]) -> Cluster {
        let addresses: Vec<SocketAddr> = (0..ranks).map(address).collect();
        let mut configs: Vec<Config> = Vec::new();
        for rank in 0..ranks {
            let mut config = match configs.first() {
                None => Config::new(1, Kind::Malloc),
                Some(first) => Config::beside(first, &format!("rank{rank}")),
            };
            config.modules = load.iter().map(|name| (*name).to_owned()).collect();
            config.listen = addresses[usize::from(rank)];
            config.engine_keys = format!("rank = {rank}");
            configs.push(config);
        }
        let mut cluster = Cluster {
            engines: (0..ranks).map(|_| None).collect(),
            configs,
            addresses,
        };
        for rank in 0..usize::from(ranks) {
            cluster.configs[rank].more = cluster.group(1);
        }
        // All at once: none waits for another.
        let spawned: Vec<Engine> = cluster.configs.iter().map(Config::spawn).collect();
        for (rank, mut engine) in spawned.into_iter().enumerate() {
            engine.wait_ready();
            cluster.engines[rank] = Some(engine);
        }
        cluster
    }

    /// The section with all members, in this version.
    fn group(&self, version: u32) -> String {
        let mut text =
            format!("[group]\nversion = {version}\nheartbeat_ms = 50\nsilent_ms = 500\n");
        for (rank, address) in self.addresses.iter().enumerate() {
            let _ = write!(
                text,
                "\n[[group.member]]\nrank = {rank}\naddress = \"{address}\"\n"
            );
        }
        text
    }

    pub fn engine(&self, rank: usize) -> &Engine {
        self.engines[rank].as_ref().expect("it runs")
    }

    /// Kill -9.
    pub fn kill(&mut self, rank: usize) {
        self.engines[rank].take().expect("it runs").kill();
    }

    /// Starts a rank that does not run, with this version of the group.
    pub fn revive(&mut self, rank: usize, version: u32) {
        self.configs[rank].more = self.group(version);
        self.engines[rank] = Some(self.configs[rank].start());
    }

    /// What `rank` says of the group.
    pub fn status(&self, rank: usize) -> keel::GroupStatus {
        self.engine(rank)
            .ask(modules::KEEL, methods::GROUP_STATUS, &())
    }

    /// Waits until `rank` sees every member in this state.
    #[track_caller]
    pub fn wait_seen(&self, rank: usize, states: &[&str]) {
        eventually(&format!("rank {rank} sees {states:?}"), || {
            let status = self.status(rank);
            let seen = status.members.iter().map(|member| member.state.as_str());
            seen.eq(states.iter().copied()).then_some(())
        });
    }
}

/// An address of the loopback network that no other test uses: with the port of the data RPC, whatever ports are taken elsewhere.
fn address(rank: u8) -> SocketAddr {
    static CLUSTERS: AtomicU8 = AtomicU8::new(1);
    let pid = std::process::id();
    let nr = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let host = [
        127,
        (pid >> 8) as u8 | 0x80,
        pid as u8,
        nr.wrapping_mul(8).wrapping_add(rank),
    ];
    SocketAddr::from((host, 10_010))
}
