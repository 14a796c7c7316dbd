//! Memory for DMA: huge pages, and the limit of what may be locked.

use super::Questions;
use crate::code;
use crate::finding::Finding;
use crate::hugepages::{NodePages, PAGE_KIB, contiguous, count_file};
use crate::need::pages;
use crate::pci::PciDevice;
use crate::root::Root;
use crate::usage::{Use, uses};

/// `CAP_IPC_LOCK` in `CapEff` of proc(5): the limit of locked memory does not count.
const IPC_LOCK: u64 = 1 << 14;

pub(super) fn huge(root: &Root, questions: &Questions, is_uio: bool, found: &mut Vec<Finding>) {
    let all = NodePages::all(root);
    if !all.iter().any(|pages| pages.size_kib == PAGE_KIB) {
        let cure = "use a kernel with CONFIG_HUGETLBFS; until then the engine uses ordinary pages";
        found.push(Finding::new(
            &code::NO_PAGES,
            "host",
            "this kernel has no huge pages of 2 MiB",
            cure,
        ));
        return;
    }
    // Pages that the running engine holds are not missing.
    let runs = !questions.at_start
        && questions
            .need
            .devices
            .iter()
            .any(|address| is_driven(root, address));
    for (&node, &bytes) in &questions.need.bytes {
        let have = match runs {
            true => NodePages::total_bytes(&all, node),
            false => NodePages::free_bytes(&all, node),
        };
        let missing = pages(bytes.saturating_sub(have));
        if missing == 0 {
            continue;
        }
        let total = all
            .iter()
            .find(|pages| pages.node == node && pages.size_kib == PAGE_KIB)
            .map_or(0, |pages| pages.total);
        let subject = format!("node {node}");
        let which = if runs { "set aside" } else { "free" };
        let cause = format!(
            "{} MiB for DMA are needed, {} MiB of huge pages are {which}",
            bytes >> 20,
            have >> 20
        );
        let cure = format!(
            "echo {} > {}   (keel node prepare --config FILE does it, at each boot)",
            total + missing,
            count_file(root, node)
        );
        let code = if is_uio {
            &code::FEW_PAGES_UIO
        } else {
            &code::FEW_PAGES
        };
        found.push(Finding::new(code, &subject, cause, cure));
        fragmentation(root, node, &subject, missing, found);
    }
}

fn is_driven(root: &Root, address: &crate::Address) -> bool {
    PciDevice::read(root, address).is_some_and(|device| {
        uses(root, &device)
            .iter()
            .any(|of| matches!(of, Use::Process { .. }))
    })
}

fn fragmentation(root: &Root, node: u32, subject: &str, missing: u64, found: &mut Vec<Finding>) {
    if let Some(there) = contiguous(root, node)
        && there < missing
    {
        let cause = format!(
            "{missing} huge pages are missing, and the free memory has {there} runs of 2 MiB"
        );
        let cure = format!(
            "echo 1 > /proc/sys/vm/compact_memory, and once more; if that does not help: hugepages={node}:{missing} on the kernel's command line, reboot"
        );
        found.push(Finding::new(&code::FRAGMENTED, subject, cause, cure));
    }
}

/// VFIO locks what is mapped for a device, and that counts against the limit.
pub(super) fn locked(root: &Root, questions: &Questions, found: &mut Vec<Finding>) {
    // Another user's limits are set where it is started: by its unit.
    if questions.account != crate::Account::own() || has_ipc_lock(root) {
        return;
    }
    let limits = root.read("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"));
    // "unlimited" is no number, and enough.
    let Some(limit) = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
    else {
        return;
    };
    let need = questions.need.total();
    if limit < need {
        let cause = format!(
            "{} MiB may be locked, {} MiB are needed for DMA",
            limit >> 20,
            need >> 20
        );
        let cure = "LimitMEMLOCK=infinity in the [Service] part of keel-engine.service; in a shell: ulimit -l unlimited";
        found.push(Finding::new(&code::MEMLOCK, "host", cause, cure));
    }
}

fn has_ipc_lock(root: &Root) -> bool {
    let status = root.read("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .is_some_and(|capabilities| capabilities & IPC_LOCK != 0)
}
