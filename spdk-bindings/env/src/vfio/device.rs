//! [`VfioDevice`]: from a PCI address to a backing, with words for everything that may be in the way.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::container::Container;
use super::msix::Msix;
use super::sys;
use crate::bar::{Sentinel, map_bar};
use crate::mmio::MmioWindow;
use crate::pci_command::{BUS_MASTER, MEMORY_SPACE, set_command};
use crate::{BackingError, DeviceBacking, DmaBuf, DmaMemory, DmaPool, Segment};

/// Class code of NVMe controllers: mass storage, non-volatile memory, NVMe.
const NVME_CLASS: &str = "0x010802";

/// Why a device cannot be driven through VFIO.
#[derive(Debug, thiserror::Error)]
#[error("device {address}: {why}; {cure}")]
pub struct VfioError {
    /// Its address.
    pub address: String,
    /// What is in the way.
    pub why: String,
    /// What to do about it.
    pub cure: String,
}

/// A PCI device that the kernel has lent to this process. `Send + Sync`. Isolating or dropping it gives it back.
pub struct VfioDevice {
    address: String,
    numa_node: Option<u32>,
    registers: MmioWindow,
    sentinel: Sentinel,
    config_offset: u64,
    /// `None`: given back.
    fd: Mutex<Option<File>>,
    msix: Option<Msix>,
    /// Rung when the kernel wants the device back.
    request: Option<OwnedFd>,
    container: Arc<Container>,
}

impl VfioDevice {
    /// Opens the NVMe controller at a full PCI address (`0000:05:00.0`), which is bound to `vfio-pci`.
    ///
    /// # Errors
    /// [`VfioError`], with the cure.
    pub fn open_nvme(address: &str) -> Result<VfioDevice, VfioError> {
        let sysfs = find(address)?;
        let group = group_of(address, &sysfs)?;
        let (container, group, fd) = lend(address, &group)?;
        let map = || -> io::Result<((MmioWindow, Sentinel), u64)> {
            let config = sys::region(fd.as_fd(), sys::CONFIG)?;
            set_command(&fd, config.offset, BUS_MASTER | MEMORY_SPACE, 0)?;
            Ok((map_bar0(&fd)?, config.offset))
        };
        let ((registers, sentinel), config_offset) = map()
            .map_err(|error| refused(address, "its registers cannot be mapped", &error, LOG))?;
        let node = fs::read_to_string(sysfs.join("numa_node")).ok();
        Ok(VfioDevice {
            address: address.to_owned(),
            // -1 where the machine does not say.
            numa_node: node.and_then(|text| text.trim().parse().ok()),
            registers,
            sentinel,
            config_offset,
            msix: None,
            request: listen_for_request(&fd),
            fd: Mutex::new(Some(fd)),
            container: Arc::new(Container::new(container, group)),
        })
    }

    /// With up to `vectors` MSI-X vectors, vector 0 counted in, for queues whose threads want to sleep. A device that has fewer, or none that can be
    /// masked, has fewer.
    #[must_use]
    pub fn with_vectors(mut self, vectors: u16) -> VfioDevice {
        let fd = self.lent();
        let msix = fd
            .as_ref()
            .and_then(|fd| Msix::find(fd, self.config_offset, vectors, &self.registers));
        drop(fd);
        self.msix = msix;
        self
    }

    fn lent(&self) -> MutexGuard<'_, Option<File>> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsupported(&self, why: String) -> BackingError {
        BackingError::Unsupported {
            device: self.address.clone(),
            why,
        }
    }

    fn kernel_error(&self, action: &'static str, source: io::Error) -> BackingError {
        let cure = if source.raw_os_error() == Some(libc::ENOMEM) {
            "raise the limit of locked memory (LimitMEMLOCK=infinity, ulimit -l unlimited)"
                .to_owned()
        } else {
            String::new()
        };
        BackingError::Kernel {
            device: self.address.clone(),
            action,
            source,
            cure,
        }
    }
}

const LOG: &str = "see the kernel's log (dmesg)";

fn refused(address: &str, action: &str, error: &io::Error, cure: &str) -> VfioError {
    VfioError {
        address: address.to_owned(),
        why: format!("{action}: {error}"),
        cure: cure.to_owned(),
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Container, group and device, joined.
fn lend(address: &str, group: &str) -> Result<(File, OwnedFd, File), VfioError> {
    let path = Path::new("/dev/vfio/vfio");
    let container = open(path).map_err(|error| {
        let cure = "load the module vfio-pci, and run as a user that may open it";
        refused(address, "cannot open /dev/vfio/vfio", &error, cure)
    })?;
    let path = Path::new("/dev/vfio").join(group);
    let group_fd: OwnedFd = open(&path)
        .map_err(|error| {
            let cure = if error.kind() == io::ErrorKind::PermissionDenied {
                "give the engine's user access to it (chown)"
            } else if is_open_here(&path) {
                "this process drives another device of the IOMMU group, whose memory accesses cannot be told from this one's: \
                 use one of them, or move one to a slot with a group of its own"
            } else {
                "another process may have it: a device belongs to one engine at a time"
            };
            refused(
                address,
                &format!("cannot open {}", path.display()),
                &error,
                cure,
            )
        })?
        .into();
    let join = || -> io::Result<Option<File>> {
        let is_type1 = sys::has_extension(container.as_fd(), sys::TYPE1V2);
        if sys::api_version(container.as_fd())? != 0 || !is_type1 {
            return Err(io::Error::other("this kernel's VFIO has no type 1 IOMMU"));
        }
        if sys::group_status(group_fd.as_fd())? & sys::GROUP_VIABLE == 0 {
            return Ok(None);
        }
        sys::set_container(group_fd.as_fd(), container.as_fd())?;
        sys::set_iommu(container.as_fd(), sys::TYPE1V2)?;
        sys::device_fd(group_fd.as_fd(), address).map(|fd| Some(fd.into()))
    };
    match join() {
        Ok(Some(fd)) => Ok((container, group_fd, fd)),
        Ok(None) => Err(VfioError {
            address: address.to_owned(),
            why: format!("other devices of its IOMMU group {group} belong to the kernel"),
            cure: "bind all devices of the group to vfio-pci, or move the device to another slot"
                .into(),
        }),
        Err(error) => Err(refused(address, "VFIO refuses it", &error, LOG)),
    }
}

/// Whether one of this process's descriptors is this file.
fn is_open_here(path: &Path) -> bool {
    let descriptors = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let mut links = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links.any(|link| link == path)
}

/// The device in sysfs, if it is an NVMe controller that VFIO has.
fn find(address: &str) -> Result<PathBuf, VfioError> {
    let failed = |why: String, cure: String| {
        Err(VfioError {
            address: address.to_owned(),
            why,
            cure,
        })
    };
    let is_address = !address.is_empty()
        && address
            .bytes()
            .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
    let sysfs = Path::new("/sys/bus/pci/devices").join(if is_address { address } else { "-" });
    let Ok(class) = fs::read_to_string(sysfs.join("class")) else {
        return failed(
            "there is no such PCI device".into(),
            "give a full address such as 0000:05:00.0 (lspci -D)".into(),
        );
    };
    if class.trim() != NVME_CLASS {
        let what = if class.trim().starts_with("0x06") {
            "a bridge"
        } else {
            "not an NVMe controller"
        };
        return failed(
            format!("it is {what} (PCI class {})", class.trim()),
            "give the address of an NVMe controller (lspci -D | grep -i nvm)".into(),
        );
    }
    let driver = fs::read_link(sysfs.join("driver")).ok();
    let driver = driver
        .as_deref()
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy().into_owned());
    match driver.as_deref() {
        Some("vfio-pci") => Ok(sysfs),
        other => {
            let has = other.map_or("no driver".to_owned(), |name| {
                format!("the driver `{name}`")
            });
            failed(
                format!("it has {has}, not vfio-pci"),
                format!(
                    "unmount what is on it, then: echo vfio-pci > {0}/driver_override; echo {address} > {0}/driver/unbind; \
                     echo {address} > /sys/bus/pci/drivers_probe",
                    sysfs.display()
                ),
            )
        }
    }
}

fn group_of(address: &str, sysfs: &Path) -> Result<String, VfioError> {
    let link = fs::read_link(sysfs.join("iommu_group")).ok();
    let group = link
        .as_deref()
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy().into_owned());
    group.ok_or_else(|| VfioError {
        address: address.to_owned(),
        why: "it is behind no IOMMU".into(),
        cure:
            "switch the IOMMU on in the firmware (VT-d, AMD-Vi) and in the kernel (intel_iommu=on)"
                .into(),
    })
}

/// An eventfd that the kernel rings when it wants the device back; `None` where it cannot.
fn listen_for_request(fd: &File) -> Option<OwnedFd> {
    if sys::irq_count(fd.as_fd(), sys::IRQ_REQUEST).ok()? == 0 {
        return None;
    }
    let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).ok()?;
    sys::set_irqs(fd.as_fd(), sys::IRQ_REQUEST, 0, &[Some(bell.as_fd())]).ok()?;
    Some(bell)
}

fn map_bar0(fd: &File) -> io::Result<(MmioWindow, Sentinel)> {
    let region = sys::region(fd.as_fd(), sys::BAR0)?;
    if region.flags & sys::REGION_MMAP == 0 || region.size == 0 {
        return Err(io::Error::other("BAR 0 is not memory that can be mapped"));
    }
    map_bar(fd, region.offset, region.size)
}

impl DeviceBacking for VfioDevice {
    type Registers = MmioWindow;

    fn address(&self) -> &str {
        &self.address
    }

    fn numa_node(&self) -> Option<u32> {
        self.numa_node
    }

    fn registers(&self) -> &MmioWindow {
        &self.registers
    }

    fn alloc_dma(&self, len: usize, align: usize) -> Result<DmaMemory, BackingError> {
        self.container
            .alloc(len, align, self.numa_node)
            .map_err(|error| self.kernel_error("map memory for the device", error))
    }

    fn map_pool(&self, pool: &DmaPool) -> Result<(), BackingError> {
        self.container
            .map_pool(pool)
            .map_err(|error| self.kernel_error("map a pool for the device", error))
    }

    #[inline]
    fn translate(&self, buf: &DmaBuf, offset: usize) -> Option<Segment> {
        self.container.pools.translate(buf, offset)
    }

    fn interrupt_vectors(&self) -> u16 {
        self.msix.as_ref().map_or(0, Msix::vectors)
    }

    fn enable_interrupt(&self, vector: u16) -> Result<OwnedFd, BackingError> {
        let fd = self.lent();
        let Some(fd) = &*fd else {
            return Err(BackingError::Removed {
                device: self.address.clone(),
            });
        };
        let Some(msix) = self.msix.as_ref().filter(|msix| vector < msix.vectors()) else {
            return Err(self.unsupported(format!(
                "interrupt vector {vector} is not available: queues are polled"
            )));
        };
        msix.enable(fd, vector)
            .map_err(|error| self.kernel_error("switch an interrupt vector on", error))
    }

    fn mask_interrupt(&self, vector: u16, masked: bool) -> bool {
        self.msix
            .as_ref()
            .is_some_and(|msix| msix.mask(&self.registers, vector, masked))
    }

    fn is_removed(&self) -> bool {
        self.sentinel.is_lost() || self.registers.is_removed()
    }

    fn removal_fd(&self) -> Option<OwnedFd> {
        self.request.as_ref()?.try_clone().ok()
    }

    fn isolate(&self) -> Result<(), BackingError> {
        let mut fd = self.lent();
        // The IOMMU decides; without bus mastering a device that is still there does not even try.
        if let Some(fd) = &*fd
            && let Err(error) = set_command(fd, self.config_offset, 0, BUS_MASTER)
        {
            tracing::debug!(device = self.address, %error, "bus mastering could not be switched off");
        }
        // The kernel lets a device go, or others have it, when nobody has its registers mapped or open.
        let let_go = || {
            if self.sentinel.retire() {
                *fd = None;
            }
        };
        self.container
            .close(let_go)
            .map_err(|error| self.kernel_error("take its memory away", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_open_here_are_known() {
        let path = std::env::current_exe().unwrap();
        assert!(!is_open_here(&path));
        let _file = File::open(&path).unwrap();
        assert!(is_open_here(&path));
    }

    #[test]
    fn what_is_not_there_or_not_an_address_is_refused_in_words() {
        for address in ["ffff:ff:1f.7", "", "../../../etc", "nvme0"] {
            let error = VfioDevice::open_nvme(address).err().unwrap();
            assert_eq!(
                error.to_string(),
                format!(
                    "device {address}: there is no such PCI device; give a full address such as 0000:05:00.0 (lspci -D)"
                )
            );
        }
    }
}
