//! [`NodePages`]: huge pages of a NUMA node, and whether more could be made.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::root::Root;

/// A size of huge pages that an engine can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub enum PageSize {
    /// 2 MiB: the smallest that x86_64 has.
    #[serde(rename = "2MiB")]
    TwoMiB,
    /// 1 GiB: found while a machine runs only where its memory was little used.
    #[serde(rename = "1GiB")]
    OneGiB,
}

impl PageSize {
    pub(crate) fn kib(self) -> u64 {
        match self {
            PageSize::TwoMiB => 2 << 10,
            PageSize::OneGiB => 1 << 20,
        }
    }

    /// Pages for so many bytes.
    pub(crate) fn pages(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.kib() << 10)
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PageSize::TwoMiB => "2 MiB",
            PageSize::OneGiB => "1 GiB",
        })
    }
}

/// Pages of 4 KiB in one of 2 MiB, as a power of two: what `/proc/buddyinfo` counts.
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

    /// Those of a node and size, if the kernel has that size.
    pub(crate) fn of(all: &[NodePages], node: u32, size: PageSize) -> Option<&NodePages> {
        all.iter()
            .find(|pages| pages.node == node && pages.size_kib == size.kib())
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

/// The file that takes the number of pages that a node sets aside.
pub(crate) fn count_file(root: &Root, node: u32, size: PageSize) -> String {
    format!(
        "{}/hugepages-{}kB/nr_hugepages",
        directory(root, node),
        size.kib()
    )
}

/// The kernel's options that set as many aside when it starts as this file of [`count_file`] was asked for.
pub(crate) fn boot_options(count_file: &str, count: u64) -> String {
    let is_giant = count_file.contains(&format!("hugepages-{}kB", PageSize::OneGiB.kib()));
    let size = if is_giant { "hugepagesz=1G " } else { "" };
    format!("{size}hugepages={count}")
}

/// How many pages of 2 MiB could be made of the node's free memory as it lies; more may come of moving things.
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
