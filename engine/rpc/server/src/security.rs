//! Which connections are encrypted, and as whom this engine speaks.

use std::net::IpAddr;

use rpc_tls::Identity;

/// TLS of an engine's connections, in and out.
#[derive(Clone, Debug)]
pub struct Security {
    /// Our certificate, and whom we believe.
    pub identity: Identity,
    /// Connections without TLS are refused. If not, they are taken beside others, and engines that answer without it are called
    /// without it: for the time in which a system's engines get their certificates one after the other.
    pub required: bool,
    /// Connections within this machine are encrypted as well, instead of being exempt.
    pub within_machine: bool,
}

impl Security {
    /// Whether a connection between these two addresses goes without TLS. Both on one machine: either is a loopback address, or
    /// they are the same, which no packet from outside can claim: the kernel drops those that come in with an address of its own.
    pub(crate) fn exempts(&self, local: IpAddr, peer: IpAddr) -> bool {
        !self.within_machine && (peer.is_loopback() || peer == local)
    }
}
