//! [`FuzzBacking`]: the device, as a driver sees it.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spdk_env::mmio::RegisterWindow;
use spdk_env::{
    BackingError, DeviceBacking, DmaBuf, DmaMemory, DmaPool, IoSpace, OutOfMemory, PAGE, Segment,
};

use crate::device::Device;
use crate::tape::Tape;

/// Bytes of the register window: doorbells of a few queues at the largest stride that fits.
const WINDOW: usize = 0x4000;

/// A device whose answers come from a [`Tape`].
pub struct FuzzBacking {
    registers: FuzzRegisters,
    space: Arc<IoSpace>,
}

/// Its registers: each read is decided by the tape.
pub struct FuzzRegisters(Mutex<Device>);

impl FuzzRegisters {
    pub(crate) fn device(&self) -> MutexGuard<'_, Device> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegisterWindow for FuzzRegisters {
    fn len(&self) -> usize {
        WINDOW
    }

    fn read32(&self, offset: usize) -> u32 {
        self.device().read(offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        self.device().write(offset, value);
    }
}

impl FuzzBacking {
    /// A device that was just switched on.
    #[must_use]
    pub fn new(tape: Tape) -> FuzzBacking {
        let space = Arc::new(IoSpace::new());
        let device = Device::new(tape, Arc::clone(&space));
        FuzzBacking {
            registers: FuzzRegisters(Mutex::new(device)),
            space,
        }
    }

    /// Lets the device move once.
    pub fn step(&self) {
        self.registers.device().step();
    }

    /// How often the device was told to use memory that it had not been given.
    #[must_use]
    pub fn faults(&self) -> u32 {
        self.registers.device().faults
    }
}

impl DeviceBacking for FuzzBacking {
    type Registers = FuzzRegisters;

    fn address(&self) -> &'static str {
        "fuzz0"
    }

    fn numa_node(&self) -> Option<u32> {
        None
    }

    fn registers(&self) -> &FuzzRegisters {
        &self.registers
    }

    fn alloc_dma(&self, len: usize, align: usize) -> Result<DmaMemory, BackingError> {
        if !align.is_power_of_two() || align > 1 << 30 {
            return Err(OutOfMemory { bytes: len }.into());
        }
        Ok(self.space.alloc(len.next_multiple_of(PAGE))?)
    }

    fn map_pool(&self, pool: &DmaPool) -> Result<(), BackingError> {
        if self.space.map_pool(pool) {
            return Ok(());
        }
        Err(BackingError::Unsupported {
            device: "fuzz0".into(),
            why: "the pool has no number: too many pools exist".into(),
        })
    }

    fn translate(&self, buf: &DmaBuf, offset: usize) -> Option<Segment> {
        self.space.translate(buf, offset)
    }

    fn interrupt_vectors(&self) -> u16 {
        0
    }

    fn enable_interrupt(&self, vector: u16) -> Result<OwnedFd, BackingError> {
        Err(BackingError::Unsupported {
            device: "fuzz0".into(),
            why: format!("it has no interrupt vector {vector}"),
        })
    }

    fn mask_interrupt(&self, _vector: u16, _masked: bool) -> bool {
        false
    }

    fn is_removed(&self) -> bool {
        self.registers.device().gone
    }

    fn removal_fd(&self) -> Option<OwnedFd> {
        None
    }

    fn isolate(&self) -> Result<(), BackingError> {
        self.registers.device().cut_off = true;
        self.space.unmap_all();
        Ok(())
    }
}
