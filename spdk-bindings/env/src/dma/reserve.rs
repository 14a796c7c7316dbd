#![allow(
    unsafe_code,
    reason = "an address that other threads may know: arenas are never given back (ARENAS)"
)]
//! [`reserve_dma`]: huge pages for devices, set aside once when the engine starts (SPDK: the memory of `spdk_env_init`).

use core::ptr::NonNull;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::arena::{Arena, Piece};
use super::huge::{HugeFailure, HugePage};

/// Memory for devices near one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaNeed {
    /// The NUMA node that it is to lie on; `None`: wherever the kernel likes.
    pub node: Option<u32>,
    /// Bytes; rounded up to whole pages.
    pub bytes: usize,
}

/// Why no huge pages were set aside. Nothing was, then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// Not as many as needed.
    #[error("{needed} huge pages of {page} are needed for DMA{}, {free} of {total} are free: {cure}", place(*.node))]
    TooFew {
        /// Their size.
        page: HugePage,
        /// Where they are missing.
        node: Option<u32>,
        /// Pages needed there.
        needed: usize,
        /// Pages that nobody has.
        free: usize,
        /// All pages there.
        total: usize,
        /// The command.
        cure: String,
    },
    /// The kernel has none of that size.
    #[error(
        "this kernel has no huge pages of {page}: it is older than 5.14, built without them, or the processor has no such pages (pdpe1gb for 1 GiB)"
    )]
    Unsupported {
        /// Their size.
        page: HugePage,
    },
    /// The kernel refused otherwise.
    #[error("huge pages of {page} for DMA cannot be mapped: {source}")]
    Kernel {
        /// Their size.
        page: HugePage,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Memory is set aside once in a process.
    #[error("memory for DMA was set aside before")]
    Twice,
}

fn place(node: Option<u32>) -> String {
    node.map_or_else(String::new, |node| format!(" on NUMA node {node}"))
}

/// What was set aside; empty: nothing was, and nobody wants it.
static ARENAS: OnceLock<Vec<Arc<Arena>>> = OnceLock::new();

/// Sets memory for devices aside, taken from the kernel now. Pools and queues that are made later come from it: those of a device from its node, others
/// from the first of `needs`. What finds no room there comes from ordinary pages, which is logged once. Once in a process, before devices are opened;
/// any thread. Bytes set aside.
///
/// # Errors
/// [`ReserveError`]; everybody uses ordinary pages then, as without a call.
pub fn reserve_dma(page: HugePage, needs: &[DmaNeed]) -> Result<usize, ReserveError> {
    let arenas = set_aside(page, needs, Path::new("/sys"))?;
    let bytes = arenas.iter().map(|arena| arena.len()).sum();
    ARENAS.set(arenas).map_err(|_| ReserveError::Twice)?;
    Ok(bytes)
}

/// A range of what was set aside, for whoever maps memory for devices in another way ([`reserved_dma`]). It stays where it is until the
/// process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReservedDma {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the address of memory that is mapped for ever; the type gives out no access.
unsafe impl Send for ReservedDma {}
// SAFETY: as above.
unsafe impl Sync for ReservedDma {}

impl ReservedDma {
    /// Its first byte; huge pages begin there.
    #[must_use]
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes; whole huge pages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: nobody sets nothing aside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What [`reserve_dma`] has set aside; nothing, if it was not called or failed. Buffers from it say so ([`super::DmaBuf::is_reserved`]).
#[must_use]
pub fn reserved_dma() -> Vec<ReservedDma> {
    let arenas = ARENAS.get().into_iter().flatten();
    let range = |arena: &Arc<Arena>| ReservedDma {
        start: arena.as_ptr(),
        len: arena.len(),
    };
    arenas.map(range).collect()
}

fn set_aside(
    page: HugePage,
    needs: &[DmaNeed],
    sys: &Path,
) -> Result<Vec<Arc<Arena>>, ReserveError> {
    let mut arenas = Vec::with_capacity(needs.len());
    for need in needs {
        let arena = Arena::new(need.bytes, page, need.node)
            .map_err(|failure| explain(failure, page, *need, sys))?;
        arenas.push(Arc::new(arena));
    }
    Ok(arenas)
}

fn explain(failure: HugeFailure, page: HugePage, need: DmaNeed, sys: &Path) -> ReserveError {
    let DmaNeed { node, bytes } = need;
    let counts = directory(sys, page, node);
    match failure {
        HugeFailure::Other(source) => return ReserveError::Kernel { page, source },
        HugeFailure::Unknown => return ReserveError::Unsupported { page },
        HugeFailure::TooFew if !counts.exists() => return ReserveError::Unsupported { page },
        HugeFailure::TooFew => {}
    }
    let needed = bytes.max(1).div_ceil(page.bytes());
    let count = |file: &str| {
        let text = fs::read_to_string(counts.join(file)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    let (total, free): (usize, usize) = (count("nr_hugepages"), count("free_hugepages"));
    let want = total.saturating_sub(free) + needed;
    let file = counts.join("nr_hugepages");
    let cure = match page {
        _ if free >= needed => {
            "others hold them already, or a limit of the cgroup forbids it (hugetlb.2MB.max, hugetlb.1GB.max)".to_owned()
        }
        HugePage::TwoMiB => format!(
            "echo {want} > {} (if the kernel finds fewer: hugepagesz=2M hugepages={want} on its command line, reboot)",
            file.display()
        ),
        HugePage::OneGiB => format!(
            "hugepagesz=1G hugepages={want} on the kernel's command line, reboot; or, while memory is not fragmented yet: echo {want} > {}",
            file.display()
        ),
    };
    ReserveError::TooFew {
        page,
        node,
        needed,
        free,
        total,
        cure,
    }
}

/// Where the kernel counts them; one without NUMA has node 0 only, and no directory for it.
fn directory(sys: &Path, page: HugePage, node: Option<u32>) -> PathBuf {
    let of = match node {
        Some(node) if node > 0 || sys.join("devices/system/node").exists() => {
            format!("devices/system/node/node{node}/hugepages")
        }
        _ => "kernel/mm/hugepages".to_owned(),
    };
    sys.join(of).join(format!("hugepages-{}kB", page.kib()))
}

/// Memory that was set aside, for a device on `node`; `None` when there is none, or no room.
pub(super) fn piece(len: usize, node: Option<u32>) -> Option<Piece> {
    static TOLD: AtomicBool = AtomicBool::new(false);
    let arenas = ARENAS.get()?;
    let near = arenas.iter().find(|a| node.is_some() && a.node() == node);
    let arena = near.or_else(|| arenas.first())?;
    let piece = arena.take(len);
    if piece.is_none() && !TOLD.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            bytes = len,
            "the huge pages that were set aside for DMA are used up: ordinary pages from here on, which are slower to reach"
        );
    }
    piece
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sys(node: Option<u32>, page: HugePage, total: usize, free: usize) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let counts = directory(sys.path(), page, node);
        fs::create_dir_all(&counts).unwrap();
        fs::write(counts.join("nr_hugepages"), format!("{total}\n")).unwrap();
        fs::write(counts.join("free_hugepages"), format!("{free}\n")).unwrap();
        sys
    }

    fn said(page: HugePage, node: Option<u32>, total: usize, free: usize) -> String {
        let sys = sys(node, page, total, free);
        let need = DmaNeed {
            node,
            bytes: 5 << 20,
        };
        let text = explain(HugeFailure::TooFew, page, need, sys.path()).to_string();
        text.replace(&*sys.path().to_string_lossy(), "/sys")
    }

    #[test]
    fn too_few_pages_come_with_the_command_that_makes_them() {
        assert_eq!(
            said(HugePage::TwoMiB, Some(1), 10, 2),
            "3 huge pages of 2 MiB are needed for DMA on NUMA node 1, 2 of 10 are free: \
             echo 11 > /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages \
             (if the kernel finds fewer: hugepagesz=2M hugepages=11 on its command line, reboot)"
        );
        let giant = said(HugePage::OneGiB, None, 0, 0);
        assert!(
            giant.starts_with(
                "1 huge pages of 1 GiB are needed for DMA, 0 of 0 are free: hugepagesz=1G hugepages=1 on the kernel's command line, reboot"
            ),
            "{giant}"
        );
        let limited = said(HugePage::TwoMiB, None, 10, 10);
        assert!(limited.contains("hugetlb.2MB.max"), "{limited}");
    }

    #[test]
    fn a_kernel_without_huge_pages_says_so() {
        let sys = tempfile::tempdir().unwrap();
        let need = DmaNeed {
            node: None,
            bytes: 1,
        };
        let error = explain(HugeFailure::TooFew, HugePage::OneGiB, need, sys.path());
        assert!(matches!(error, ReserveError::Unsupported { .. }), "{error}");
    }

    #[test]
    fn more_than_the_machine_has_is_refused_and_nothing_stays_taken() {
        let needs = [1, usize::MAX >> 8].map(|bytes| DmaNeed { node: None, bytes });
        let refused = set_aside(HugePage::TwoMiB, &needs, Path::new("/sys"));
        assert!(refused.is_err());
    }
}
