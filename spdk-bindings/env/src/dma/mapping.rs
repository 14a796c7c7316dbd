#![allow(
    unsafe_code,
    reason = "maps and unmaps anonymous memory: rules D2 and D3 of dma.rs start here"
)]
//! One private, zero-filled range of pages; the memory behind pools and regions.

use core::ffi::c_void;
use core::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::arena::Piece;
use super::{OutOfMemory, PAGE, reserve};

/// An owned range of pages. Zero-filled at first touch; unmapped, or given back to what was set aside, on drop.
pub(crate) struct Mapping {
    ptr: NonNull<u8>,
    len: usize,
    /// Of the memory that was set aside for devices.
    piece: Option<Piece>,
}

// SAFETY: a mapping is plain memory without thread affinity; who may touch its bytes is ruled by D1 and D4.
unsafe impl Send for Mapping {}
// SAFETY: as above; the type itself offers only its address and length.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps at least `len` bytes (rounded up to a page), with huge pages where the kernel has them to give: random
    /// access over hundreds of MiB is bound by address translation otherwise.
    pub(crate) fn new(len: usize) -> Result<Mapping, OutOfMemory> {
        let fail = OutOfMemory { bytes: len };
        let len = len.max(1).checked_next_multiple_of(PAGE).ok_or(fail)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice aliases nothing.
        let ptr = unsafe {
            mmap_anonymous(
                core::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }
        .map_err(|_| OutOfMemory { bytes: len })?;
        let ptr = NonNull::new(ptr.cast::<u8>()).ok_or(OutOfMemory { bytes: len })?;
        if len >= 2 << 20 {
            // A hint: kernels without transparent huge pages answer EINVAL and nothing is lost but speed.
            // SAFETY: the range is the mapping made above, and LinuxHugepage changes no contents.
            let _ = unsafe { madvise(ptr.as_ptr().cast::<c_void>(), len, Advice::LinuxHugepage) };
        }
        Ok(Mapping {
            ptr,
            len,
            piece: None,
        })
    }

    /// As [`Mapping::new`], of the memory that was set aside for devices near `node` ([`super::reserve_dma`]) if there is any; all of it is
    /// there.
    pub(crate) fn for_dma(len: usize, node: Option<u32>) -> Result<Mapping, OutOfMemory> {
        let whole = len.max(1).checked_next_multiple_of(PAGE);
        if let Some(piece) = whole.and_then(|len| reserve::piece(len, node)) {
            return Ok(Mapping {
                ptr: piece.as_ptr(),
                len: piece.len(),
                piece: Some(piece),
            });
        }
        let mapping = Mapping::new(len)?;
        // Whoever registers it with a ring or a device pins all of it, which must not take its pages meanwhile.
        mapping.populate()?;
        Ok(mapping)
    }

    /// Takes every page from the machine now instead of at first touch.
    pub(super) fn populate(&self) -> Result<(), OutOfMemory> {
        // SAFETY: the range is this mapping, and populating changes no contents.
        match unsafe {
            madvise(
                self.ptr.as_ptr().cast::<c_void>(),
                self.len,
                Advice::LinuxPopulateWrite,
            )
        } {
            // Kernels before 5.14 do not know it; then pages come at first touch.
            Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
            Err(_) => Err(OutOfMemory { bytes: self.len }),
        }
    }

    /// Whether it consists of huge pages, which stay where they are in physical memory.
    pub(crate) fn is_huge(&self) -> bool {
        self.piece.is_some()
    }

    pub(crate) fn as_ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.piece.take().is_some() {
            // Back to where it was cut from.
            return;
        }
        // SAFETY: the range was mapped by `new`, and by D2 no buffer into it exists any more.
        let unmapped = unsafe { munmap(self.ptr.as_ptr().cast::<c_void>(), self.len) };
        debug_assert!(
            unmapped.is_ok(),
            "munmap of our own mapping failed: {unmapped:?}"
        );
    }
}
