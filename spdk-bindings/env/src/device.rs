//! [`DeviceBacking`]: what a user-space driver needs of its device, whoever provides it.

use std::os::fd::OwnedFd;

use crate::mmio::RegisterWindow;
use crate::{DmaBuf, DmaMemory, DmaPool, OutOfMemory, Segment};

/// Why a backing could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackingError {
    /// No memory that the device can reach.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// The device is not there any more.
    #[error("device {device} is gone: it was removed while the engine used it")]
    Removed {
        /// Its address.
        device: String,
    },
    /// The kernel refused.
    #[error("device {device}: cannot {action}: {source}{}", advice(.cure))]
    Kernel {
        /// Its address.
        device: String,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
        /// What to do about it; may be empty.
        cure: String,
    },
    /// The device or its backing cannot do that.
    #[error("device {device}: {why}")]
    Unsupported {
        /// Its address.
        device: String,
        /// What is missing, and the cure.
        why: String,
    },
}

fn advice(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("; {text}")
    }
}

/// A device as a user-space driver sees it: registers, memory that both reach, interrupts, and the news that it is gone. VFIO, uio
/// and emulated devices implement it (SPDK: `spdk_pci_device` with `spdk_vtophys`).
///
/// `Send + Sync`: a controller and its queue pairs share one, each on its own thread. A driver calls
/// [`DeviceBacking::registers`], [`DeviceBacking::translate`] and [`DeviceBacking::is_removed`] on its I/O path: they neither
/// lock, allocate nor enter the kernel. Everything else may.
pub trait DeviceBacking: Send + Sync + 'static {
    /// The registers (for NVMe: BAR 0), mapped when the device was opened.
    type Registers: RegisterWindow;

    /// What messages call the device: `0000:05:00.0`, `fake0`.
    fn address(&self) -> &str;

    /// The NUMA node that the device hangs on, where the machine says.
    fn numa_node(&self) -> Option<u32>;

    /// The register window.
    fn registers(&self) -> &Self::Registers;

    /// Zeroed memory that driver and device share (queues, lists), on the device's NUMA node, contiguous for the device and aligned to
    /// `align` bytes in its address space; `align` is a power of two.
    ///
    /// # Errors
    /// [`BackingError::OutOfMemory`] when the memory set aside for devices is used up.
    fn alloc_dma(&self, len: usize, align: usize) -> Result<DmaMemory, BackingError>;

    /// Lets the device reach the buffers of a pool, which then lives as long as the backing. Mapping it twice changes nothing.
    ///
    /// # Errors
    /// What the kernel says (limit of locked memory), or [`BackingError::Unsupported`] for a pool without a number
    /// ([`DmaBuf::pool_index`]).
    fn map_pool(&self, pool: &DmaPool) -> Result<(), BackingError>;

    /// Where the device finds the bytes of `buf` from `offset` on, and how many of them lie contiguous there: at least to
    /// the end of the page, or of the buffer's capacity. `None`: the device does not reach the buffer (not of a mapped pool), or `offset` lies outside.
    fn translate(&self, buf: &DmaBuf, offset: usize) -> Option<Segment>;

    /// Interrupt vectors (MSI-X) that can be had; 0 where the driver has to poll.
    fn interrupt_vectors(&self) -> u16;

    /// Switches vector `vector` on. The eventfd becomes readable when the device raises it; it belongs to the caller, and the
    /// vector is off when it is enabled again or the backing goes.
    ///
    /// # Errors
    /// [`BackingError::Unsupported`] for vectors that are not there, else what the kernel says.
    fn enable_interrupt(&self, vector: u16) -> Result<OwnedFd, BackingError>;

    /// Stops (`true`) or lets through a vector while its descriptor stays; interrupts raised meanwhile are delivered when it
    /// is let through. `false` when the backing cannot: then a driver that polls leaves interrupts off.
    fn mask_interrupt(&self, vector: u16, masked: bool) -> bool;

    /// True once the device is known to be gone. Registers read as ones then, as they may earlier.
    fn is_removed(&self) -> bool;

    /// A descriptor that becomes readable when the device goes or is asked to go (VFIO: the request interrupt), where there is one.
    fn removal_fd(&self) -> Option<OwnedFd>;

    /// Cuts the device off from memory: bus mastering off, mappings taken out of the IOMMU. After `Ok` it writes to no
    /// memory of the process any more, whatever its state, so buffers that it held may be used again. For good: nothing
    /// else works afterwards.
    ///
    /// # Errors
    /// When it cannot be proven; then memory that the device held must never be used again.
    fn isolate(&self) -> Result<(), BackingError>;
}
