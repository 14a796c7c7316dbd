//! A PCI device through `uio_pci_generic`: for machines without an IOMMU, where VFIO lends nothing.
//!
//! * [`UioDevice`]: one device as a [`crate::DeviceBacking`] (SPDK: DPDK's `pci_uio.c`).
//! * `pagemap`: where pages lie in physical memory.
//!
//! **Nothing keeps such a device to the memory that it was given.** A wrong address, by a defect of its firmware or of ours, overwrites any memory of the
//! machine, the kernel's included; only root may do that. When the engine is killed, its memory goes back to the kernel a moment before the
//! kernel stops the device's writes. Memory that the device reaches consists of huge pages, which the kernel leaves
//! where they are ([`crate::reserve_dma`]).

mod device;
mod pagemap;

pub use device::{UioDevice, UioError};
