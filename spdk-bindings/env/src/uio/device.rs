//! [`UioDevice`]: registers by `resource0`, physical addresses by pagemap, bus mastering by configuration space.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FlockOperation, flock};

use super::pagemap::{Pagemap, is_contiguous};
use crate::bar::{Sentinel, map_bar};
use crate::dma::{IovaTable, LARGE, Mapping, PAGE, PoolAddresses};
use crate::mmio::MmioWindow;
use crate::pci_command::{BUS_MASTER, MEMORY_SPACE, command, set_command};
use crate::{BackingError, DeviceBacking, DmaBuf, DmaMemory, DmaPool, Segment};

const DRIVER: &str = "uio_pci_generic";
/// How often memory is taken anew until it does not cross from one huge page into another that lies elsewhere.
const ATTEMPTS: usize = 8;

/// Why a device cannot be driven through uio.
#[derive(Debug, thiserror::Error)]
#[error("device {address}: {why}; {cure}")]
pub struct UioError {
    /// Its address.
    pub address: String,
    /// What is in the way.
    pub why: String,
    /// What to do about it.
    pub cure: String,
}

/// A PCI device bound to `uio_pci_generic`. `Send + Sync`. Dropping it, or the end of the process, ends its DMA.
pub struct UioDevice {
    address: String,
    numa_node: Option<u32>,
    registers: MmioWindow,
    sentinel: Sentinel,
    config: File,
    pagemap: Pagemap,
    /// Locked: an SSD has one engine. When it is closed, the kernel switches bus mastering off (Linux `uio_pci_generic.c`: `release`); only then may the
    /// pools go.
    _node: File,
    pools: IovaTable,
    is_isolated: AtomicBool,
}

fn sysfs(address: &str) -> PathBuf {
    // Nothing that leads elsewhere.
    let is_address = address
        .bytes()
        .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
    Path::new("/sys/bus/pci/devices").join(if is_address && !address.starts_with('.') {
        address
    } else {
        "-"
    })
}

impl UioDevice {
    /// Whether the device at a full PCI address is bound to `uio_pci_generic`.
    #[must_use]
    pub fn is_bound(address: &str) -> bool {
        let driver = fs::read_link(sysfs(address).join("driver"));
        driver.is_ok_and(|driver| driver.file_name().is_some_and(|name| name == DRIVER))
    }

    /// Opens the NVMe controller at a full PCI address (`0000:05:00.0`), which is bound to `uio_pci_generic`. Logs what protection is missing.
    ///
    /// # Errors
    /// [`UioError`], with the cure.
    pub fn open_nvme(address: &str) -> Result<UioDevice, UioError> {
        let failed = |what: &str, error: &io::Error, cure: &str| UioError {
            address: address.to_owned(),
            why: format!("{what}: {error}"),
            cure: cure.to_owned(),
        };
        let root =
            "uio works only for root; on a machine that is locked down (secure boot), not at all";
        if !UioDevice::is_bound(address) {
            return Err(UioError {
                address: address.to_owned(),
                why: format!("it is not bound to {DRIVER}"),
                cure: format!("keel node prepare --uio {address}"),
            });
        }
        let sysfs = sysfs(address);
        let node = node(&sysfs)
            .map_err(|error| failed("its file in /dev cannot be opened", &error, root))?;
        flock(&node, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            failed(
                "another process drives it",
                &errno.into(),
                "stop that one: an SSD has one engine",
            )
        })?;
        let pagemap = Pagemap::open()
            .map_err(|error| failed("physical addresses are not to be had", &error, root))?;
        let open = |name: &str| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(sysfs.join(name))
        };
        let map = || -> io::Result<(File, (MmioWindow, Sentinel))> {
            let config = open("config")?;
            set_command(&config, 0, BUS_MASTER | MEMORY_SPACE, 0)?;
            let bar = open("resource0")?;
            let len = bar.metadata()?.len();
            Ok((config, map_bar(&bar, 0, len)?))
        };
        let (config, (registers, sentinel)) =
            map().map_err(|error| failed("its registers cannot be mapped", &error, root))?;
        tracing::warn!(
            device = address,
            "driven through {DRIVER}: no IOMMU keeps this device to its memory, and a defect can overwrite any memory of this machine; \
             for service switch the IOMMU on and use vfio-pci"
        );
        let numa_node = fs::read_to_string(sysfs.join("numa_node")).ok();
        Ok(UioDevice {
            address: address.to_owned(),
            // -1 where the machine does not say.
            numa_node: numa_node.and_then(|text| text.trim().parse().ok()),
            registers,
            sentinel,
            config,
            pagemap,
            pools: IovaTable::default(),
            is_isolated: AtomicBool::new(false),
            _node: node,
        })
    }

    fn kernel_error(&self, action: &'static str, source: io::Error) -> BackingError {
        BackingError::Kernel {
            device: self.address.clone(),
            action,
            source,
            cure: "run the engine as root".into(),
        }
    }

    fn unsupported(&self, why: impl Into<String>) -> BackingError {
        BackingError::Unsupported {
            device: self.address.clone(),
            why: why.into(),
        }
    }

    fn not_huge(&self) -> BackingError {
        self.unsupported(
            "uio needs huge pages, and none were set aside or they are used up: ordinary memory moves while a device writes to it; \
             keel node prepare --uio --config FILE",
        )
    }

    fn in_use(&self) -> Result<(), BackingError> {
        match self.is_isolated.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(BackingError::Removed {
                device: self.address.clone(),
            }),
        }
    }

    /// Physical address of a mapping, if it is one run there.
    fn place(&self, mapping: &Mapping, align: usize) -> Result<Option<u64>, BackingError> {
        let start = mapping.as_ptr().as_ptr().addr();
        let addresses = self
            .pagemap
            .addresses(start, mapping.len())
            .map_err(|error| self.kernel_error("find memory for the device", error))?;
        let first = addresses
            .first()
            .copied()
            .filter(|first| first.is_multiple_of(align as u64));
        Ok(first.filter(|_| is_contiguous(&addresses)))
    }
}

fn node(sysfs: &Path) -> io::Result<File> {
    let mut names = fs::read_dir(sysfs.join("uio"))?;
    let name = names
        .next()
        .ok_or_else(|| io::Error::other("the kernel shows none"))??
        .file_name();
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(Path::new("/dev").join(name))
}

impl DeviceBacking for UioDevice {
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
        self.in_use()?;
        // Kept until the end, so that the next attempt lies elsewhere.
        let mut unfit: Vec<Mapping> = Vec::new();
        for _ in 0..ATTEMPTS {
            let mapping = Mapping::for_dma(len, self.numa_node)?;
            if !mapping.is_huge() {
                return Err(self.not_huge());
            }
            if let Some(iova) = self.place(&mapping, align)? {
                return Ok(DmaMemory::of_mapping(mapping, len, iova));
            }
            unfit.push(mapping);
        }
        Err(self.unsupported(format!(
            "{len} contiguous bytes are needed, and the huge pages of 2 MiB have no such run left: fewer queue entries, or huge pages of 1 GiB"
        )))
    }

    fn map_pool(&self, pool: &DmaPool) -> Result<(), BackingError> {
        self.in_use()?;
        if self.pools.contains(pool) {
            return Ok(());
        }
        if !pool.is_huge() {
            return Err(self.not_huge());
        }
        let (ptr, len) = pool.span();
        let start = ptr.as_ptr().addr();
        let addresses = self
            .pagemap
            .addresses(start, len)
            .map_err(|error| self.kernel_error("find a pool for the device", error))?;
        // Where the pool begins with a huge page, runs are as long as that.
        let addresses = if start.is_multiple_of(LARGE) {
            let runs = addresses.into_iter().step_by(LARGE / PAGE).collect();
            PoolAddresses::Pages {
                shift: LARGE.trailing_zeros(),
                addresses: runs,
            }
        } else {
            PoolAddresses::Pages {
                shift: PAGE.trailing_zeros(),
                addresses: addresses.into(),
            }
        };
        if self.pools.insert(pool, addresses) {
            Ok(())
        } else {
            Err(self.unsupported("the pool has no number: more than 64 pools exist"))
        }
    }

    #[inline]
    fn translate(&self, buf: &DmaBuf, offset: usize) -> Option<Segment> {
        self.pools.translate(buf, offset)
    }

    fn interrupt_vectors(&self) -> u16 {
        0
    }

    fn enable_interrupt(&self, vector: u16) -> Result<OwnedFd, BackingError> {
        Err(self.unsupported(format!(
            "interrupt vector {vector} is not available: {DRIVER} has no MSI-X, queues are polled"
        )))
    }

    fn mask_interrupt(&self, _vector: u16, _masked: bool) -> bool {
        false
    }

    fn is_removed(&self) -> bool {
        self.sentinel.is_lost() || self.registers.is_removed()
    }

    fn removal_fd(&self) -> Option<OwnedFd> {
        None
    }

    fn isolate(&self) -> Result<(), BackingError> {
        self.is_isolated.store(true, Ordering::Release);
        let cut = || -> io::Result<bool> {
            set_command(&self.config, 0, 0, BUS_MASTER)?;
            // Reading it back also waits for writes of the device that were under way. All ones: it is gone.
            let command = command(&self.config, 0)?;
            Ok(command == u16::MAX || command & BUS_MASTER == 0)
        };
        match cut() {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.unsupported("bus mastering cannot be switched off")),
            // Its configuration space is gone with it.
            Err(_) if !sysfs(&self.address).exists() => Ok(()),
            Err(error) => Err(self.kernel_error("switch bus mastering off", error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_or_not_an_address_is_refused_in_words() {
        for address in ["ffff:ff:1f.7", "", "../../../etc", "nvme0"] {
            let error = UioDevice::open_nvme(address).err().unwrap();
            assert_eq!(
                error.to_string(),
                format!(
                    "device {address}: it is not bound to uio_pci_generic; keel node prepare --uio {address}"
                )
            );
        }
        assert!(!UioDevice::is_bound(".."));
    }
}
