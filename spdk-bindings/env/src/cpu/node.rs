//! NUMA nodes: CPUs, memory, distances.

use super::{CpuError, Host};

/// Huge pages of one size on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hugepages {
    /// Size of one, in KiB.
    pub size_kib: usize,
    /// How many there are, used or not.
    pub total: usize,
}

/// A NUMA node, with or without CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The kernel's number; there may be holes.
    pub id: usize,
    /// All its online CPUs, usable or not.
    pub cpus: Vec<usize>,
    /// Its memory in KiB; 0: none, or not told.
    pub memory_kib: u64,
    /// Memory that nobody uses, in KiB.
    pub free_kib: u64,
    /// Huge pages, by size.
    pub hugepages: Vec<Hugepages>,
    /// Distance to each node, (node, distance); 10 is the node itself (ACPI SLIT).
    pub distances: Vec<(usize, usize)>,
}

impl Node {
    /// All online nodes, ascending; none on a kernel without NUMA.
    pub(super) fn all(host: &Host) -> Result<Vec<Node>, CpuError> {
        let ids = host.numbered("/sys/devices/system/node", "node");
        ids.iter().map(|&id| Node::read(host, id, &ids)).collect()
    }

    fn read(host: &Host, id: usize, all: &[usize]) -> Result<Node, CpuError> {
        let directory = format!("/sys/devices/system/node/node{id}");
        let cpus = host.list(format!("{directory}/cpulist"))?;
        let memory = host
            .read(format!("{directory}/meminfo"))
            .unwrap_or_default();
        let kib = |field: &str| {
            // "Node 0 MemTotal:       24684084 kB"
            let line = memory.lines().find_map(|line| line.split_once(field));
            line.and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
                .unwrap_or(0)
        };
        let sizes = host.numbered_kib(&format!("{directory}/hugepages"));
        let mut hugepages = Vec::new();
        for size_kib in sizes {
            let file = format!("{directory}/hugepages/hugepages-{size_kib}kB/nr_hugepages");
            let total = host.number(file)?.unwrap_or(0);
            hugepages.push(Hugepages { size_kib, total });
        }
        Ok(Node {
            id,
            cpus: cpus.unwrap_or_default(),
            memory_kib: kib("MemTotal:"),
            free_kib: kib("MemFree:"),
            hugepages,
            distances: distances(host, &format!("{directory}/distance"), all)?,
        })
    }
}

impl Host {
    /// The sizes in names such as `hugepages-2048kB`.
    fn numbered_kib(&self, directory: &str) -> Vec<usize> {
        let entries = std::fs::read_dir(self.path(directory))
            .into_iter()
            .flatten();
        let size = |name: &str| {
            name.strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()
        };
        let mut sizes: Vec<usize> = entries
            .flatten()
            .filter_map(|entry| size(entry.file_name().to_str()?))
            .collect();
        sizes.sort_unstable();
        sizes
    }
}

/// One number for each online node, in the order of their ids.
fn distances(host: &Host, file: &str, all: &[usize]) -> Result<Vec<(usize, usize)>, CpuError> {
    let Some(text) = host.read(file) else {
        return Ok(Vec::new());
    };
    let numbers: Option<Vec<usize>> = text.split_whitespace().map(|n| n.parse().ok()).collect();
    match numbers {
        Some(numbers) => Ok(all.iter().copied().zip(numbers).collect()),
        None => Err(host.malformed(file.as_ref(), "one distance for each node", text)),
    }
}
