//! What can go wrong outside of I/O, with the cure.

use std::io;

use crate::spdk::Spdk;

/// Why SPDK did not start. Nothing of it is left running. After an error of the environment or of
/// a subsystem the process has to be started anew to try again ([`StartError::Spoiled`]): neither starts a second time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It runs already.
    #[error(
        "SPDK was started twice in this process: it has one environment; share the first `Spdk`"
    )]
    Twice,
    /// It ran before, with other options.
    #[error(
        "SPDK ran in this process before, with {before}; DPDK keeps memory and cores until the process ends: ask for the same, or start the process anew"
    )]
    OtherOptions {
        /// What it was started with.
        before: String,
    },
    /// An earlier start has failed half-way.
    #[error(
        "an earlier start of SPDK's environment has failed in this process, and DPDK does not try again: start the process anew"
    )]
    Spoiled,
    /// An option makes no sense.
    #[error("{0}")]
    Option(String),
    /// Cores that are not there.
    #[error(
        "SPDK shall run on the cores {missing}, which this machine does not have or this process may not use: there are {allowed}"
    )]
    Cores {
        /// Those that were asked for.
        missing: String,
        /// What there is.
        allowed: String,
    },
    /// Not enough huge pages.
    #[error(
        "SPDK shall have {needed_mib} MiB in huge pages, and {free_mib} MiB are free: echo {pages} > /proc/sys/vm/nr_hugepages, ask for less memory, or run without huge pages (no_huge; no NVMe device can be used then)"
    )]
    HugePages {
        /// Wanted.
        needed_mib: u32,
        /// There.
        free_mib: u64,
        /// 2 MiB pages that would do.
        pages: u64,
    },
    /// `spdk_env_init` failed.
    #[error("SPDK's environment did not start: {why}{}", lines(.said))]
    Environment {
        /// The error code's text.
        why: io::Error,
        /// What SPDK and DPDK logged.
        said: Vec<String>,
    },
    /// A shared library that holds a module.
    #[error(
        "a shared library of SPDK's cannot be loaded: {0}; name its directory in LD_LIBRARY_PATH or to ldconfig"
    )]
    Library(String),
    /// The linked library is of another version than its headers were.
    #[error(
        "SPDK {library} is loaded, and this program was compiled for {headers}: compile it anew, or point the loader to the right one (LD_LIBRARY_PATH)"
    )]
    Version {
        /// `26.09`
        headers: String,
        /// `25.01`
        library: String,
    },
    /// A message pool, a thread or an OS thread could not be made.
    #[error("SPDK's threads did not start: {0}")]
    Threads(io::Error),
    /// The socket for JSON-RPC.
    #[error("SPDK cannot listen on {socket} for JSON-RPC: {why}{}", lines(.said))]
    Rpc {
        /// Its path.
        socket: String,
        /// The error code's text.
        why: io::Error,
        /// What SPDK logged.
        said: Vec<String>,
    },
    /// A subsystem failed, or what the configuration asks for.
    #[error("SPDK's {step} failed: {why}{}", lines(.said))]
    Config {
        /// Which part.
        step: &'static str,
        /// The error code's text, where SPDK gives one.
        why: String,
        /// What SPDK logged.
        said: Vec<String>,
    },
}

fn lines(said: &[String]) -> String {
    said.iter().map(|line| format!("\n  {line}")).collect()
}

/// Why a block device was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is none of that name.
    #[error("SPDK has no block device `{name}`; it has {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") })]
    NotFound {
        /// The name.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// Somebody in this process has it open for writing or claimed it.
    #[error(
        "SPDK's block device `{name}` is claimed by another user in this process (a volume, a raid, an earlier open)"
    )]
    Claimed {
        /// The name.
        name: String,
    },
    /// It has something that cannot be handled.
    #[error("SPDK's block device `{name}`: {why}")]
    Unusable {
        /// The name.
        name: String,
        /// What.
        why: String,
    },
    /// Anything else.
    #[error("SPDK's block device `{name}` cannot be opened: {why}")]
    Other {
        /// The name.
        name: String,
        /// The error code's text.
        why: io::Error,
    },
    /// SPDK is being stopped.
    #[error("SPDK is being stopped")]
    Stopping,
}

/// SPDK was not stopped, since somebody uses it.
#[derive(Debug, thiserror::Error)]
#[error("SPDK is still used: {holders} clones of it, threads, devices or pieces of memory")]
pub struct StillHeld {
    /// It, to try again.
    pub spdk: Spdk,
    /// How many others there are.
    pub holders: usize,
}

/// Of a code that is an error number or, where SPDK has none, -1.
pub(crate) fn text(rc: i32) -> String {
    match rc {
        -1 => "it says".to_owned(),
        _ => errno(rc).to_string(),
    }
}

pub(crate) fn errno(rc: i32) -> io::Error {
    io::Error::from_raw_os_error(rc.saturating_neg())
}
