//! `keel cert`, and the certificate that `keel` itself shows.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The certificate for the engine's data RPC, where the engine requires TLS: all three or none.
#[derive(Args)]
pub(crate) struct TlsFiles {
    /// Certificate of the authority whose engines are believed.
    #[arg(id = "tls_ca", long = "tls-ca", global = true, value_name = "FILE", env = "KEEL_TLS_CA", requires_all = ["tls_certificate", "tls_key"])]
    pub(crate) ca: Option<PathBuf>,
    /// Certificate to show to engines.
    #[arg(id = "tls_certificate", long = "tls-certificate", global = true, value_name = "FILE", env = "KEEL_TLS_CERTIFICATE", requires_all = ["tls_ca", "tls_key"])]
    pub(crate) certificate: Option<PathBuf>,
    /// Key of that certificate.
    #[arg(id = "tls_key", long = "tls-key", global = true, value_name = "FILE", env = "KEEL_TLS_KEY", requires_all = ["tls_ca", "tls_certificate"])]
    pub(crate) key: Option<PathBuf>,
}

/// Where the authority is.
#[derive(Args)]
pub(crate) struct AuthorityDir {
    /// Directory with the authority's ca.pem and ca-key.pem.
    #[arg(long = "ca-dir", value_name = "DIR", default_value = ".")]
    pub(crate) directory: PathBuf,
}

#[derive(Subcommand)]
pub(crate) enum Cert {
    /// Makes an authority: ca.pem, which every engine and client gets, and ca-key.pem, which stays where it is.
    #[command(
        after_help = "Examples:\n  keel cert init --ca-dir /root/keel-ca\n  keel cert init --ca-dir /root/keel-ca --name 'storage, building 4' --days 1825"
    )]
    Init {
        #[command(flatten)]
        at: AuthorityDir,
        /// Its name.
        #[arg(long, default_value = "Keel private authority")]
        name: String,
        /// How long it is good.
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Issues a certificate with a new key: NAME.pem and NAME-key.pem.
    #[command(
        after_help = "Examples:\n  keel cert issue storage-1 --address 10.20.0.1 --ca-dir /root/keel-ca\n  keel cert issue alice --client --ca-dir /root/keel-ca --out /home/alice/.keel\n  keel cert issue storage-1 --address 10.20.0.1 --ca-dir /root/keel-ca --replace"
    )]
    Issue {
        /// The engine's host name, or the user.
        name: String,
        #[command(flatten)]
        at: AuthorityDir,
        /// A name or address by which others reach the engine; may be given several times. NAME, if it can be a host's, and this
        /// machine's loopback addresses are always among them.
        #[arg(long = "address", value_name = "HOST|IP")]
        addresses: Vec<String>,
        /// For a client, which only calls, not for an engine.
        #[arg(long, conflicts_with = "addresses")]
        client: bool,
        /// How long it is good; not longer than the authority.
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// Directory for the two files; left out: the authority's.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Put it in the place of the files that are there. An engine notices within seconds.
        #[arg(long)]
        replace: bool,
    },
    /// Says what a certificate is for, and how long it is good.
    Show {
        /// A file in PEM.
        file: PathBuf,
    },
}
