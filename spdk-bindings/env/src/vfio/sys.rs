#![allow(
    unsafe_code,
    reason = "VFIO is spoken to by ioctl; the sites rest on V1 and V2"
)]
//! The ioctls of VFIO (`include/uapi/linux/vfio.h`), each as a safe function over an open descriptor.
//!
//! Rules that the `unsafe` sites rest on:
//!
//! - **V1 structures**: each structure is `repr(C)`, laid out as in the header, `argsz` its size; the kernel reads and writes no more than that,
//!   and any bit pattern of its fields is valid.
//! - **V2 mappings**: what is given to the kernel as memory for DMA stays mapped in the process until it is unmapped there or for ever:
//!   [`super::container`] owns both sides.

use core::ffi::c_ulong;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `_IO(';', 100 + n)`.
const fn request(n: c_ulong) -> c_ulong {
    (b';' as c_ulong) << 8 | (100 + n)
}

/// Type 1 IOMMU, version 2.
pub(super) const TYPE1V2: c_ulong = 3;
/// The group may be used: all its devices are bound to VFIO or to nothing.
pub(super) const GROUP_VIABLE: u32 = 1;
/// Region 0 is BAR 0.
pub(super) const BAR0: u32 = 0;
/// Regions 0 to 5 are BARs.
pub(super) const BARS: u32 = 6;
/// Region 7 is PCI configuration space.
pub(super) const CONFIG: u32 = 7;
/// The region can be mapped.
pub(super) const REGION_MMAP: u32 = 4;

#[repr(C)]
#[derive(Default)]
struct GroupStatus {
    argsz: u32,
    flags: u32,
}

/// MSI-X vectors.
pub(super) const IRQ_MSIX: u32 = 2;
/// The kernel wants the device back: it is to be removed, or given to another driver.
pub(super) const IRQ_REQUEST: u32 = 4;

#[repr(C)]
#[derive(Default)]
struct IrqInfo {
    argsz: u32,
    flags: u32,
    index: u32,
    count: u32,
}

/// Where a region lies in the device's descriptor.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RegionInfo {
    argsz: u32,
    pub(super) flags: u32,
    index: u32,
    cap_offset: u32,
    pub(super) size: u64,
    pub(super) offset: u64,
}

#[repr(C)]
struct DmaMap {
    argsz: u32,
    flags: u32,
    vaddr: u64,
    iova: u64,
    size: u64,
}

#[repr(C)]
struct DmaUnmap {
    argsz: u32,
    flags: u32,
    iova: u64,
    size: u64,
}

/// # Safety
/// `arg` is what this request takes: a number, or a pointer that is valid for the structure of the request.
unsafe fn call(fd: BorrowedFd<'_>, request: c_ulong, arg: c_ulong) -> io::Result<i32> {
    // SAFETY: by the caller's promise.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, arg) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}

/// VFIO_GET_API_VERSION; 0 is the only one there is.
pub(super) fn api_version(container: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: takes no argument.
    unsafe { call(container, request(0), 0) }
}

/// VFIO_CHECK_EXTENSION.
pub(super) fn has_extension(container: BorrowedFd<'_>, extension: c_ulong) -> bool {
    // SAFETY: takes a number.
    unsafe { call(container, request(1), extension) }.is_ok_and(|answer| answer > 0)
}

/// VFIO_SET_IOMMU.
pub(super) fn set_iommu(container: BorrowedFd<'_>, kind: c_ulong) -> io::Result<()> {
    // SAFETY: takes a number.
    unsafe { call(container, request(2), kind) }.map(drop)
}

/// VFIO_GROUP_GET_STATUS.
pub(super) fn group_status(group: BorrowedFd<'_>) -> io::Result<u32> {
    let mut status = GroupStatus {
        argsz: size_of::<GroupStatus>() as u32,
        ..GroupStatus::default()
    };
    // SAFETY: V1.
    unsafe { call(group, request(3), (&raw mut status) as c_ulong) }?;
    Ok(status.flags)
}

/// VFIO_GROUP_SET_CONTAINER.
pub(super) fn set_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> io::Result<()> {
    let fd: i32 = container.as_raw_fd();
    // SAFETY: takes a pointer to an int.
    unsafe { call(group, request(4), (&raw const fd) as c_ulong) }.map(drop)
}

/// VFIO_GROUP_GET_DEVICE_FD.
pub(super) fn device_fd(group: BorrowedFd<'_>, address: &str) -> io::Result<OwnedFd> {
    let name = std::ffi::CString::new(address)?;
    // SAFETY: takes a C string, which lives through the call.
    let fd = unsafe { call(group, request(6), name.as_ptr() as c_ulong) }?;
    // SAFETY: the kernel made the descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// VFIO_DEVICE_GET_REGION_INFO.
pub(super) fn region(device: BorrowedFd<'_>, index: u32) -> io::Result<RegionInfo> {
    let mut info = RegionInfo {
        argsz: size_of::<RegionInfo>() as u32,
        index,
        ..RegionInfo::default()
    };
    // SAFETY: V1.
    unsafe { call(device, request(8), (&raw mut info) as c_ulong) }?;
    Ok(info)
}

/// VFIO_DEVICE_GET_IRQ_INFO: how many there are.
pub(super) fn irq_count(device: BorrowedFd<'_>, index: u32) -> io::Result<u32> {
    let mut info = IrqInfo {
        argsz: size_of::<IrqInfo>() as u32,
        index,
        ..IrqInfo::default()
    };
    // SAFETY: V1.
    unsafe { call(device, request(9), (&raw mut info) as c_ulong) }?;
    Ok(info.count)
}

/// VFIO_DEVICE_SET_IRQS: which eventfd each interrupt from `start` on rings; none where there is none.
pub(super) fn set_irqs(
    device: BorrowedFd<'_>,
    index: u32,
    start: u32,
    fds: &[Option<BorrowedFd<'_>>],
) -> io::Result<()> {
    const DATA_EVENTFD: u32 = 1 << 2;
    const ACTION_TRIGGER: u32 = 1 << 5;
    // The structure is five words and one for each descriptor.
    let bytes = (5 + fds.len()) * 4;
    let mut words = vec![
        bytes as u32,
        DATA_EVENTFD | ACTION_TRIGGER,
        index,
        start,
        fds.len() as u32,
    ];
    let number = |fd: &Option<BorrowedFd<'_>>| fd.map_or(-1, |fd| fd.as_raw_fd()) as u32;
    words.extend(fds.iter().map(number));
    // SAFETY: V1: the words are the structure, `argsz` their size.
    unsafe { call(device, request(10), words.as_ptr() as c_ulong) }.map(drop)
}

/// VFIO_IOMMU_MAP_DMA for reading and writing.
///
/// # Safety
/// The range is mapped in the process and stays so until it is unmapped here (V2).
pub(super) unsafe fn map_dma(
    container: BorrowedFd<'_>,
    vaddr: u64,
    iova: u64,
    size: u64,
) -> io::Result<()> {
    let map = DmaMap {
        argsz: size_of::<DmaMap>() as u32,
        flags: 1 | 2,
        vaddr,
        iova,
        size,
    };
    // SAFETY: V1, and V2 by the caller's promise.
    unsafe { call(container, request(13), (&raw const map) as c_ulong) }.map(drop)
}

/// VFIO_IOMMU_UNMAP_DMA of exactly one mapping.
pub(super) fn unmap_dma(container: BorrowedFd<'_>, iova: u64, size: u64) -> io::Result<()> {
    let mut unmap = DmaUnmap {
        argsz: size_of::<DmaUnmap>() as u32,
        flags: 0,
        iova,
        size,
    };
    // SAFETY: V1; taking memory away from a device harms no one.
    unsafe { call(container, request(14), (&raw mut unmap) as c_ulong) }?;
    if unmap.size == size {
        Ok(())
    } else {
        Err(io::Error::other("the kernel unmapped another length"))
    }
}
