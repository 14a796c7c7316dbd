//! `[tls]`: certificates for the data channel.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Certificates for the data channel: with them, engines and clients show each other who they are, and nobody else can listen.
/// `keel cert init` and `keel cert issue` make what is named here. Files that change are read again while the engine runs.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Certificate of the authority, in PEM: who shows one issued by it is believed. Left out, there is no TLS, and the two keys
    /// below are left out too.
    #[schemars(extend("format" = "path"))]
    pub ca: Option<PathBuf>,

    /// This engine's certificate, in PEM.
    #[schemars(extend("format" = "path"))]
    pub certificate: Option<PathBuf>,

    /// The key of `certificate`, in PEM. Nobody but the engine's user, and its group at most, may be able to read it.
    #[schemars(extend("format" = "path"))]
    pub key: Option<PathBuf>,

    /// Refuse connections without TLS. Without this they are taken as well, and engines that have no certificate yet are called
    /// without TLS: for the time in which the engines of a running system get theirs.
    pub required: bool,

    /// Use TLS also where both ends are on this machine. Without this such connections are exempt: rings between xstreams always
    /// are, and a local connection is as safe as the machine.
    pub within_machine: bool,

    /// How long before its end the certificate's expiry is reported: in the log, and to the control server.
    #[schemars(range(min = 1, max = 365), extend("x-unit" = "days"))]
    pub warn_days: u32,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls {
            ca: None,
            certificate: None,
            key: None,
            required: true,
            within_machine: false,
            warn_days: 30,
        }
    }
}

impl Tls {
    /// Whether connections can be encrypted.
    pub fn is_on(&self) -> bool {
        self.ca.is_some()
    }
}
