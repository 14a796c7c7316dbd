//! Why the processors are unknown or a thread could not be bound.

use std::path::PathBuf;

/// Why the topology is unknown or an OS thread could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// A sysfs or procfs file is there but does not read as expected.
    #[error("{path}: expected {expected}, found {found:?}")]
    Sysfs {
        /// The file.
        path: PathBuf,
        /// What it should have held.
        expected: &'static str,
        /// What it held.
        found: String,
    },
    /// The kernel refused to tell or set the affinity.
    #[error(
        "cannot {action}: {source} (the process may use CPUs {allowed:?}; a cgroup cpuset or taskset may forbid the rest)"
    )]
    Affinity {
        /// What was tried.
        action: String,
        /// The CPUs that are allowed, as far as known.
        allowed: Vec<usize>,
        /// The kernel's answer.
        source: std::io::Error,
    },
}
