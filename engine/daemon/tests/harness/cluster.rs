//! Several engines of one group on this machine, each a process of its own.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use drpc_wire::{keel, methods, mgmt, modules};
use engine_cert::{Authority, Pair, Request, Validity, write_pair};

use super::config::{Config, Kind};
use super::etcd::EtcdServer;
use super::process::{Engine, eventually};

/// How often engines of a test ask for each other, and how long one may be silent.
const BEAT: &str = "heartbeat_ms = 50\nsilent_ms = 500\n";

pub struct Cluster {
    pub configs: Vec<Config>,
    /// By rank; `None`: it does not run.
    pub engines: Vec<Option<Engine>>,
    pub addresses: Vec<SocketAddr>,
}

impl Cluster {
    /// Starts `ranks` engines with one target each and these modules, which all stand in their configurations.
    pub fn start(ranks: u8, load: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepare(ranks, load);
        for rank in 0..usize::from(ranks) {
            cluster.configs[rank].more = cluster.group(1);
        }
        cluster.start_all();
        cluster
    }

    /// The same, of engines that wait to be told who their group is.
    pub fn start_told(ranks: u8, load: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepare(ranks, load);
        for config in &mut cluster.configs {
            config.more = Cluster::told();
        }
        cluster.start_all();
        cluster
    }

    /// The section of an engine that is told who its group is.
    pub fn told() -> String {
        format!("[group]\nsource = \"control\"\n{BEAT}")
    }

    /// The section of an engine whose group is in etcd, with the shortest lease.
    pub fn in_etcd(etcd: &EtcdServer) -> String {
        format!(
            "[group]\nsource = \"etcd\"\n{BEAT}[group.etcd]\nendpoints = [\"{}\"]\nlease_s = 2\n",
            etcd.front()
        )
    }

    /// Configurations of `ranks` engines, none of which runs.
    pub fn prepare(ranks: u8, load: &[&str]) -> Cluster {
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
        Cluster {
            engines: (0..ranks).map(|_| None).collect(),
            configs,
            addresses,
        }
    }

    /// Certificates for all, from an authority of their own, for their addresses as they are now: the `[tls]` section of each.
    pub fn certify(&self) -> Vec<String> {
        let dir = self.configs[0].path();
        let authority = Authority::create("cluster", Validity::days(2)).unwrap();
        authority.save(dir).unwrap();
        let section = |(rank, address): (usize, &SocketAddr)| {
            let name = format!("engine-{rank}");
            let asked = Request {
                name: name.clone(),
                addresses: vec![address.ip().to_string()],
                engine: true,
                validity: Validity {
                    to: SystemTime::now() + Duration::from_secs(86_400),
                    ..Validity::days(1)
                },
            };
            let pair = Pair::of(dir, &name);
            write_pair(&pair, &authority.issue(&asked).unwrap(), true).unwrap();
            format!(
                "[tls]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n\n",
                dir.join("ca.pem"),
                pair.certificate,
                pair.key
            )
        };
        self.addresses.iter().enumerate().map(section).collect()
    }

    /// All at once: none waits for another.
    pub fn start_all(&mut self) {
        let spawned: Vec<Engine> = self.configs.iter().map(Config::spawn).collect();
        for (rank, mut engine) in spawned.into_iter().enumerate() {
            engine.wait_ready();
            self.engines[rank] = Some(engine);
        }
    }

    /// The section with all members, in this version.
    pub fn group(&self, version: u32) -> String {
        let mut text = format!("[group]\nversion = {version}\n{BEAT}");
        for (rank, address) in self.addresses.iter().enumerate() {
            let _ = write!(
                text,
                "\n[[group.member]]\nrank = {rank}\naddress = \"{address}\"\n"
            );
        }
        text
    }

    /// GROUP_UPDATE to one engine: its status.
    pub fn tell(&self, rank: usize, version: u32, members: &[usize]) -> i32 {
        let row = |member: &usize| mgmt::group_update_req::Engine {
            rank: *member as u32,
            uri: format!("ofi+tcp://{}", self.addresses[*member]),
            incarnation: 0,
        };
        let request = mgmt::GroupUpdateReq {
            map_version: version,
            engines: members.iter().map(row).collect(),
        };
        let answer: mgmt::GroupUpdateResp =
            self.engine(rank)
                .ask(modules::MGMT, methods::GROUP_UPDATE, &request);
        answer.status
    }

    /// Stops all that run.
    pub fn stop(&mut self) {
        for engine in self.engines.drain(..).flatten() {
            engine.terminate().expect(0, "stopped");
        }
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
