#![allow(
    unsafe_code,
    reason = "maps huge pages and binds them to a node: the memory behind arenas (H1 and H2)"
)]
//! [`HugeMapping`]: huge pages of one size and NUMA node, taken from the kernel when it is made.
//!
//! Rules that the `unsafe` sites rest on:
//!
//! - **H1 our own range**: the range was mapped by `new` at an address of the kernel's choice, and is unmapped by `drop` only.
//! - **H2 all there**: every page was taken before the mapping is known to anybody, so no access to it ever faults for lack of one.

use core::ffi::{c_ulong, c_void};
use core::fmt;
use core::ptr::{self, NonNull};
use std::io;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Size of huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePage {
    /// 2 MiB: what every x86_64 machine has, and can make while it runs.
    TwoMiB,
    /// 1 GiB: set aside when the machine boots.
    OneGiB,
}

impl HugePage {
    /// Bytes of one.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            HugePage::TwoMiB => 2 << 20,
            HugePage::OneGiB => 1 << 30,
        }
    }

    /// As the kernel writes it in directory names.
    pub(super) fn kib(self) -> usize {
        self.bytes() >> 10
    }

    fn flag(self) -> MapFlags {
        match self {
            HugePage::TwoMiB => MapFlags::HUGE_2MB,
            HugePage::OneGiB => MapFlags::HUGE_1GB,
        }
    }
}

impl fmt::Display for HugePage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HugePage::TwoMiB => "2 MiB",
            HugePage::OneGiB => "1 GiB",
        })
    }
}

/// Why there are no huge pages.
pub(super) enum HugeFailure {
    /// The kernel has not as many, or lets us not have them.
    TooFew,
    /// The kernel has none of that size, or is older than 5.14.
    Unknown,
    /// Something else.
    Other(io::Error),
}

/// An owned range of huge pages, zeroed.
pub(super) struct HugeMapping {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory without thread affinity; who may touch its bytes is ruled by D1, D4 and D5 of dma.rs.
unsafe impl Send for HugeMapping {}
// SAFETY: as above; the type offers its address only.
unsafe impl Sync for HugeMapping {}

impl HugeMapping {
    /// `len` bytes, a multiple of the page size, all of them on `node` if there is one.
    pub(super) fn new(len: usize, page: HugePage, node: Option<u32>) -> Result<Self, HugeFailure> {
        let failure = |error: rustix::io::Errno| match error {
            rustix::io::Errno::NOMEM => HugeFailure::TooFew,
            rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS => HugeFailure::Unknown,
            other => HugeFailure::Other(other.into()),
        };
        // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
        let ptr = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::HUGETLB | page.flag(),
            )
        }
        .map_err(failure)?;
        let ptr = NonNull::new(ptr.cast::<u8>()).ok_or(HugeFailure::TooFew)?;
        let mapping = HugeMapping { ptr, len };
        if let Some(node) = node {
            mapping.bind(node)?;
        }
        // The kernel counts huge pages of all nodes when it maps; the node's own are missed here, and as an error, not as a signal.
        // SAFETY: H1; populating changes no contents.
        match unsafe {
            madvise(
                ptr.as_ptr().cast::<c_void>(),
                len,
                Advice::LinuxPopulateWrite,
            )
        } {
            Ok(()) => Ok(mapping),
            Err(rustix::io::Errno::FAULT | rustix::io::Errno::HWPOISON) => Err(HugeFailure::TooFew),
            Err(other) => Err(failure(other)),
        }
    }

    /// Pages come from this node or not at all (mbind(2)).
    fn bind(&self, node: u32) -> Result<(), HugeFailure> {
        const MPOL_BIND: c_ulong = 2;
        const WORD: usize = c_ulong::BITS as usize;
        let mut mask: [c_ulong; 1024 / WORD] = [0; 1024 / WORD];
        let Some(word) = mask.get_mut(node as usize / WORD) else {
            return Err(HugeFailure::TooFew);
        };
        *word = 1 << (node as usize % WORD);
        // SAFETY: H1; the mask has the 1024 bits that are announced (the kernel takes one bit less than it is told), and only policy changes.
        let bound = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                self.ptr.as_ptr(),
                self.len,
                MPOL_BIND,
                mask.as_ptr(),
                1024 as c_ulong + 1,
                0 as c_ulong,
            )
        };
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            _ if bound == 0 => Ok(()),
            // No NUMA in the kernel, or a container that may not choose: then there is one node, or the kernel's choice.
            Some(libc::ENOSYS | libc::EPERM) => Ok(()),
            // No such node.
            Some(libc::EINVAL) => Err(HugeFailure::TooFew),
            _ => Err(HugeFailure::Other(error)),
        }
    }

    pub(super) fn as_ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Zeroes a part that nobody has.
    ///
    /// # Safety
    /// The range lies inside, and nothing else accesses it meanwhile.
    pub(super) unsafe fn zero(&self, offset: usize, len: usize) {
        // SAFETY: by the caller's promise; H2.
        unsafe { ptr::write_bytes(self.ptr.as_ptr().add(offset), 0, len) };
    }
}

impl Drop for HugeMapping {
    fn drop(&mut self) {
        // SAFETY: H1: nothing points into it any more (arenas are dropped after their last piece).
        let unmapped = unsafe { munmap(self.ptr.as_ptr().cast::<c_void>(), self.len) };
        debug_assert!(
            unmapped.is_ok(),
            "munmap of our own mapping failed: {unmapped:?}"
        );
    }
}
