#![allow(unsafe_code, reason = "maps a BAR of a device (W1 of mmio.rs)")]
//! A BAR that a file of the kernel's offers for mapping, as a register window that survives the device's removal.

use core::ffi::c_void;
use core::ptr::NonNull;
use std::fs::File;
use std::io;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::mmio::MmioWindow;
use crate::sigbus::Guard;

pub(crate) use crate::sigbus::Sentinel;

/// A mapped BAR: unmapped when dropped, guarded until then.
struct Bar {
    guard: Option<Guard>,
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: W1: the mapping has no thread affinity; the type only owns it.
unsafe impl Send for Bar {}
// SAFETY: as above.
unsafe impl Sync for Bar {}

impl Drop for Bar {
    fn drop(&mut self) {
        self.guard.take();
        // SAFETY: mapped by `map_bar` and, by W1, used by the window only, which is gone.
        let unmapped = unsafe { munmap(self.ptr.as_ptr().cast::<c_void>(), self.len) };
        debug_assert!(
            unmapped.is_ok(),
            "munmap of our own mapping failed: {unmapped:?}"
        );
    }
}

/// Maps `len` bytes at `offset` of the file.
pub(crate) fn map_bar(file: &File, offset: u64, len: u64) -> io::Result<(MmioWindow, Sentinel)> {
    let len = usize::try_from(len).map_err(io::Error::other)?;
    // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
    let ptr = unsafe {
        mmap(
            core::ptr::null_mut(),
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            file,
            offset,
        )
    }?;
    let ptr = NonNull::new(ptr.cast::<u8>()).ok_or_else(|| io::Error::other("mapped at 0"))?;
    // Unmaps if the guard cannot be had.
    let mut bar = Bar {
        guard: None,
        ptr,
        len,
    };
    let guard = Guard::new(ptr.as_ptr() as usize, len)?;
    let sentinel = guard.sentinel();
    bar.guard = Some(guard);
    // SAFETY: W1: `bar` keeps the range mapped; W3: nobody else knows it.
    let window = unsafe { MmioWindow::from_raw(ptr, len, Box::new(bar)) };
    Ok((window, sentinel))
}
