//! Memory for DMA: huge pages, and the limit of what may be locked.

use engine_config::Hugepages;

use super::Questions;
use crate::code;
use crate::finding::Finding;
use crate::hugepages::{NodePages, PageSize, contiguous, count_file};
use crate::pci::PciDevice;
use crate::root::Root;
use crate::usage::{Use, uses};

/// `CAP_IPC_LOCK` in `CapEff` of proc(5): the limit of locked memory does not count.
const IPC_LOCK: u64 = 1 << 14;

pub(super) fn huge(root: &Root, questions: &Questions, is_uio: bool, found: &mut Vec<Finding>) {
    let Some(size) = questions.need.page_size() else {
        return;
    };
    let all = NodePages::all(root);
    // Pages that the running engine holds are not missing.
    let runs = !questions.at_start
        && questions
            .need
            .devices
            .iter()
            .any(|address| is_driven(root, address));
    for (&node, &bytes) in &questions.need.bytes {
        let Some(pages) = NodePages::of(&all, node, size) else {
            found.push(no_pages(size));
            return;
        };
        let have = if runs { pages.total } else { pages.free };
        let missing = size.pages(bytes).saturating_sub(have);
        if missing == 0 {
            continue;
        }
        let subject = format!("node {node}");
        let which = if runs { "set aside" } else { "free" };
        let cause = format!(
            "{} MiB for DMA are needed, {} MiB of huge pages of {size} are {which}",
            bytes >> 20,
            (have * size.kib()) >> 10
        );
        let cure = format!(
            "echo {} > {}   (keel node prepare --config FILE does it, at each boot)",
            pages.total + missing,
            count_file(root, node, size)
        );
        let code = if is_uio || questions.need.pages != Hugepages::Auto {
            &code::NO_OTHER_PAGES
        } else {
            &code::FEW_PAGES
        };
        found.push(Finding::new(code, &subject, cause, cure));
        if size == PageSize::TwoMiB {
            fragmentation(root, node, &subject, missing, found);
        }
    }
}

fn no_pages(size: PageSize) -> Finding {
    let cure = match size {
        PageSize::TwoMiB => "use a kernel with CONFIG_HUGETLBFS, or say engine.hugepages = \"off\"",
        PageSize::OneGiB => {
            "use a processor with pdpe1gb and a kernel with CONFIG_HUGETLBFS, or say engine.hugepages = \"2MiB\""
        }
    };
    let cause = format!("this kernel has no huge pages of {size}");
    Finding::new(&code::NO_PAGES, "host", cause, cure)
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
