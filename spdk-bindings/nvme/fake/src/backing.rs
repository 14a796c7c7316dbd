//! The driver's side: [`DeviceBacking`].

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use spdk_env::{
    BackingError, DeviceBacking, DmaBuf, DmaMemory, DmaPool, OutOfMemory, PAGE, Segment,
};

use crate::FakeController;
use crate::device::Vector;
use crate::registers::FakeRegisters;

impl DeviceBacking for FakeController {
    type Registers = FakeRegisters;

    fn address(&self) -> &str {
        &self.inner.address
    }

    fn numa_node(&self) -> Option<u32> {
        None
    }

    fn registers(&self) -> &FakeRegisters {
        &self.inner.registers
    }

    fn alloc_dma(&self, len: usize, align: usize) -> Result<DmaMemory, BackingError> {
        // Every range starts at an I/O address of its own, aligned to far more than anybody asks for.
        if !align.is_power_of_two() || align > 1 << 30 {
            return Err(OutOfMemory { bytes: len }.into());
        }
        Ok(self.inner.space.alloc(len.next_multiple_of(PAGE))?)
    }

    fn map_pool(&self, pool: &DmaPool) -> Result<(), BackingError> {
        if self.inner.space.map_pool(pool) {
            return Ok(());
        }
        Err(BackingError::Unsupported {
            device: self.inner.address.clone(),
            why: "the pool has no number: too many pools exist".into(),
        })
    }

    #[inline]
    fn translate(&self, buf: &DmaBuf, offset: usize) -> Option<Segment> {
        self.inner.space.translate(buf, offset)
    }

    fn interrupt_vectors(&self) -> u16 {
        self.inner.vectors
    }

    fn enable_interrupt(&self, vector: u16) -> Result<OwnedFd, BackingError> {
        if vector >= self.inner.vectors {
            return Err(BackingError::Unsupported {
                device: self.inner.address.clone(),
                why: format!("it has no interrupt vector {vector}"),
            });
        }
        let failed = |source: std::io::Error| BackingError::Kernel {
            device: self.inner.address.clone(),
            action: "make an eventfd",
            source,
            cure: String::new(),
        };
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)
            .map_err(|errno| failed(errno.into()))?;
        let ours = fd.as_fd().try_clone_to_owned().map_err(failed)?;
        let state = Vector {
            fd: ours,
            masked: false,
            raised: false,
        };
        self.inner.device().vectors.insert(vector, state);
        Ok(fd)
    }

    fn mask_interrupt(&self, vector: u16, masked: bool) -> bool {
        let device = &mut *self.inner.device();
        let Some(vector) = device.vectors.get_mut(&vector) else {
            return false;
        };
        vector.masked = masked;
        if !masked {
            device.observed.unmaskings += 1;
            vector.deliver();
        }
        true
    }

    fn is_removed(&self) -> bool {
        self.inner.registers.is_removed()
    }

    fn removal_fd(&self) -> Option<OwnedFd> {
        None
    }

    fn isolate(&self) -> Result<(), BackingError> {
        // Bus mastering off: what the device wants to do from now on does not happen, and is no fault of the driver's.
        self.inner.device().cut_off = true;
        self.inner.space.unmap_all();
        Ok(())
    }
}
