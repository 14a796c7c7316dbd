//! A PCI device through VFIO: the kernel lends it to this process, and the IOMMU keeps it to the memory that it was given.
//!
//! * [`VfioDevice`]: one device as a [`crate::DeviceBacking`] (SPDK: `lib/env_dpdk/pci.c` with DPDK's `pci_vfio.c`).
//! * `container`: the group and container of a device, and its DMA mappings (type 1).
//! * `sys`: the ioctls and their structures, from the kernel's `include/uapi/linux/vfio.h`.
//! * `msix`: interrupt vectors, for threads that sleep.
//!
//! I/O addresses are handed out by us from 4 GiB upwards, one mapping for each pool and range, whatever the process's own addresses are: they fit
//! IOMMUs of 39 bits and stay clear of the interrupt range below 4 GiB. No huge pages are needed; the kernel pins what is mapped,
//! which counts against the limit of locked memory.

mod container;
mod device;
mod msix;
mod sys;

pub use device::{VfioDevice, VfioError};
