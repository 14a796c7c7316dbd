//! A network of namespaces, one for each engine, whose wires can be cut: what is sent then is gone without a word, as with a pulled cable.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// Namespaces on a bridge that nothing else is on. Dropped, they go.
pub struct Network {
    pid: u32,
    hosts: Vec<[u8; 4]>,
}

impl Network {
    /// `Err` says why this machine cannot have one.
    pub fn new(ranks: u8) -> Result<Network, String> {
        let pid = std::process::id();
        Network::with_addresses(ranks, |rank| [10, 213, pid as u8, rank + 1])
    }

    /// The same with these addresses, all in one network of 256.
    pub fn with_addresses(ranks: u8, host: impl Fn(u8) -> [u8; 4]) -> Result<Network, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        let network = Network {
            pid: std::process::id(),
            hosts: (0..ranks).map(host).collect(),
        };
        network.make()?;
        Ok(network)
    }

    fn make(&self) -> Result<(), String> {
        let bridge = self.bridge();
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("link set {bridge} up"))?;
        for rank in self.ranks() {
            let (space, wire) = (self.space(rank), self.wire(rank));
            let address = self.address(rank).ip();
            ip(&format!("netns add {space}"))?;
            ip(&format!(
                "link add {wire} type veth peer name eth0 netns {space}"
            ))?;
            ip(&format!("link set {wire} master {bridge} up"))?;
            ip(&format!("-n {space} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
        }
        Ok(())
    }

    fn ranks(&self) -> std::ops::Range<u8> {
        0..u8::try_from(self.hosts.len()).expect("a few")
    }

    fn bridge(&self) -> String {
        format!("kb{}", self.pid)
    }

    fn wire(&self, rank: u8) -> String {
        format!("kw{}-{rank}", self.pid)
    }

    /// The namespace of a rank.
    pub fn space(&self, rank: u8) -> String {
        format!("keel-{}-{rank}", self.pid)
    }

    /// Where a rank's data RPC listens.
    pub fn address(&self, rank: u8) -> SocketAddr {
        SocketAddr::from((self.hosts[usize::from(rank)], 10_010))
    }

    /// Cuts a rank off: neither end hears of it.
    pub fn cut(&self, rank: u8) {
        ip(&format!("link set {} nomaster", self.wire(rank))).expect("the wire is cut");
    }

    pub fn mend(&self, rank: u8) {
        let (wire, bridge) = (self.wire(rank), self.bridge());
        ip(&format!("link set {wire} master {bridge}")).expect("the wire is mended");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What was not made cannot be removed, which is well.
        for rank in self.ranks() {
            let _ = ip(&format!("netns del {}", self.space(rank)));
        }
        let _ = ip(&format!("link del {}", self.bridge()));
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("`ip` (Debian package iproute2): {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
