//! Where etcd is, and how long an engine may be silent.

use std::path::PathBuf;
use std::time::Duration;

/// Certificates for etcd, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Who signs etcd's certificates.
    pub ca: PathBuf,
    /// This engine's certificate and its key, where etcd wants one (`--client-cert-auth`).
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How etcd is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `http://10.0.0.1:2379`, or `https://` with certificates; several members of one etcd cluster. Each is tried in turn.
    pub endpoints: Vec<String>,
    /// What all keys begin with, without a slash at the end.
    pub prefix: String,
    /// How long an engine may be silent before it is put out of the group, 2 s at least.
    pub lease: Duration,
    /// For https.
    pub tls: Option<Tls>,
    /// The engine's directory. `engine.group` in it holds what was seen last, `engine.rank` the rank.
    pub storage: PathBuf,
}

impl Options {
    pub(crate) fn state(&self) -> PathBuf {
        self.storage.join("engine.group")
    }

    pub(crate) fn rank(&self) -> PathBuf {
        self.storage.join("engine.rank")
    }

    /// For a question to be answered: leases are renewed three times in their life.
    pub(crate) fn patience(&self) -> Duration {
        self.lease / 3
    }

    /// From when a renewal was sent until the lease may not be relied on any more. A tenth is for us to step down in.
    pub(crate) fn reliance(&self) -> Duration {
        self.lease - self.lease / 10
    }
}
