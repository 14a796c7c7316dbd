//! Addresses of engines as control planes write them.

use std::net::SocketAddr;

/// Reads an address: `10.0.0.3:10010`, or with a fabric provider in front of it, as DAOS writes (`ofi+tcp://10.0.0.3:10010`, `tcp://[::1]:10010`).
/// Only TCP is spoken here; `None` for everything else.
pub fn address(uri: &str) -> Option<SocketAddr> {
    let address = match uri.split_once("://") {
        None => uri,
        Some((provider, address)) => {
            let provider = provider.strip_prefix("ofi+").unwrap_or(provider);
            let provider = provider.split(';').next().unwrap_or_default();
            if provider != "tcp" {
                return None;
            }
            address
        }
    };
    address.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_a_provider() {
        let four = Some(SocketAddr::from(([10, 0, 0, 3], 10010)));
        for uri in [
            "10.0.0.3:10010",
            "tcp://10.0.0.3:10010",
            "ofi+tcp://10.0.0.3:10010",
            "ofi+tcp;ofi_rxm://10.0.0.3:10010",
        ] {
            assert_eq!(address(uri), four, "{uri}");
        }
        assert!(address("tcp://[::1]:10010").is_some_and(|at| at.is_ipv6()));
        for uri in [
            "",
            "10.0.0.3",
            "ofi+verbs://10.0.0.3:1",
            "tcp://host:1",
            "tcp://",
        ] {
            assert_eq!(address(uri), None, "{uri}");
        }
    }
}
