//! [`NodePages`]: huge pages of a NUMA node, and whether more could be made.

use serde::Serialize;

use crate::root::Root;

/// Size of the huge pages that are used: the smallest that x86_64 has. Larger ones count, and cannot be made while a machine runs.
pub(crate) const PAGE_KIB: u64 = 2048;
/// Pages of 4 KiB in one, as a power of two: what `/proc/buddyinfo` counts.
const PAGE_ORDER: usize = 9;

/// Huge pages of one size on one node, as the kernel counts them now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NodePages {
    /// The NUMA node; 0 on machines without.
    pub node: u32,
    /// Size of a page.
    pub size_kib: u64,
    /// Pages set aside.
    pub total: u64,
    /// Those that nobody uses.
    pub free: u64,
}

impl NodePages {
    /// Every node and size.
    #[must_use]
    pub fn all(root: &Root) -> Vec<NodePages> {
        let mut all = Vec::new();
        for node in nodes(root) {
            let directory = directory(root, node);
            for name in root.names(&directory) {
                let size = name
                    .strip_prefix("hugepages-")
                    .and_then(|size| size.strip_suffix("kB"));
                let Some(size_kib) = size.and_then(|size| size.parse().ok()) else {
                    continue;
                };
                let count = |file: &str| {
                    root.number(format!("{directory}/{name}/{file}"))
                        .unwrap_or(0)
                };
                all.push(NodePages {
                    node,
                    size_kib,
                    total: count("nr_hugepages"),
                    free: count("free_hugepages"),
                });
            }
        }
        all
    }

    /// Bytes in free pages of a node, of all sizes.
    pub(crate) fn free_bytes(all: &[NodePages], node: u32) -> u64 {
        all.iter()
            .filter(|pages| pages.node == node)
            .map(|pages| (pages.free * pages.size_kib) << 10)
            .sum()
    }

    /// Bytes in all pages of a node.
    pub(crate) fn total_bytes(all: &[NodePages], node: u32) -> u64 {
        all.iter()
            .filter(|pages| pages.node == node)
            .map(|pages| (pages.total * pages.size_kib) << 10)
            .sum()
    }
}

/// The nodes that have memory.
pub(crate) fn nodes(root: &Root) -> Vec<u32> {
    let names = root.names("/sys/devices/system/node");
    let mut nodes: Vec<u32> = names
        .iter()
        .filter_map(|name| name.strip_prefix("node")?.parse().ok())
        .collect();
    nodes.sort_unstable();
    if nodes.is_empty() {
        nodes.push(0);
    }
    nodes
}

/// Where a node's counters are; kernels without NUMA have them in one place.
fn directory(root: &Root, node: u32) -> String {
    let of_node = format!("/sys/devices/system/node/node{node}/hugepages");
    if root.exists(&of_node) {
        of_node
    } else {
        "/sys/kernel/mm/hugepages".to_owned()
    }
}

/// The file that takes the number of pages of [`PAGE_KIB`] that a node sets aside.
pub(crate) fn count_file(root: &Root, node: u32) -> String {
    format!(
        "{}/hugepages-{PAGE_KIB}kB/nr_hugepages",
        directory(root, node)
    )
}

/// How many huge pages could be made of the node's free memory as it lies; more may come of moving things.
pub(crate) fn contiguous(root: &Root, node: u32) -> Option<u64> {
    let text = root.read("/proc/buddyinfo")?;
    // Node 0, zone   Normal   4   3   2 ...: free runs of 1, 2, 4 ... pages.
    let of_node = text.lines().filter_map(|line| {
        let (head, rest) = line.split_once(',')?;
        (head.strip_prefix("Node")?.trim().parse::<u32>().ok()? == node).then_some(())?;
        let counts = rest
            .split_whitespace()
            .skip(2)
            .map(|count| count.parse::<u64>().unwrap_or(0));
        Some(
            counts
                .enumerate()
                .skip(PAGE_ORDER)
                .map(|(order, count)| count << (order - PAGE_ORDER))
                .sum::<u64>(),
        )
    });
    Some(of_node.sum())
}
