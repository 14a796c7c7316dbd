//! The register window: words that the driver writes and the device looks at in its steps.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use nvme_spec::register;
use spdk_env::mmio::RegisterWindow;

use crate::RegisterFault;

/// The registers of a [`crate::FakeController`].
pub struct FakeRegisters {
    words: Box<[AtomicU32]>,
    /// For each doorbell: it was written since the device looked last.
    rung: Box<[AtomicBool]>,
    removed: AtomicBool,
    has_faults: AtomicBool,
    faults: Mutex<Faults>,
    doorbell_writes: AtomicU64,
}

#[derive(Default)]
struct Faults {
    values: BTreeMap<usize, u32>,
    /// Reads until everything reads as ones.
    ones_after: Option<u64>,
    /// Answers for successive reads, whatever the register; then the true values again.
    noise: Vec<u32>,
}

impl FakeRegisters {
    pub(crate) fn new(doorbells: usize, dstrd: u8) -> FakeRegisters {
        let bytes = register::DOORBELLS + doorbells * (4 << dstrd);
        FakeRegisters {
            words: (0..bytes / 4).map(|_| AtomicU32::new(0)).collect(),
            rung: (0..bytes / 4).map(|_| AtomicBool::new(false)).collect(),
            removed: AtomicBool::new(false),
            has_faults: AtomicBool::new(false),
            faults: Mutex::default(),
            doorbell_writes: AtomicU64::new(0),
        }
    }

    /// What the register holds, whatever the driver is shown.
    pub(crate) fn get(&self, offset: usize) -> u32 {
        self.words[offset / 4].load(Ordering::Acquire)
    }

    pub(crate) fn get64(&self, offset: usize) -> u64 {
        u64::from(self.get(offset)) | u64::from(self.get(offset + 4)) << 32
    }

    pub(crate) fn set(&self, offset: usize, value: u32) {
        self.words[offset / 4].store(value, Ordering::Release);
    }

    pub(crate) fn set64(&self, offset: usize, value: u64) {
        self.set(offset, value as u32);
        self.set(offset + 4, (value >> 32) as u32);
    }

    /// Whether the doorbell was written since the last call.
    pub(crate) fn take_rung(&self, offset: usize) -> bool {
        self.rung[offset / 4].swap(false, Ordering::AcqRel)
    }

    pub(crate) fn doorbell_writes(&self) -> u64 {
        self.doorbell_writes.load(Ordering::Relaxed)
    }

    pub(crate) fn remove(&self) {
        self.removed.store(true, Ordering::Release);
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    pub(crate) fn inject(&self, fault: RegisterFault) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            RegisterFault::Value { offset, value } => {
                faults.values.insert(offset, value);
            }
            RegisterFault::AllOnesAfter(reads) => faults.ones_after = Some(reads),
            RegisterFault::Noise(mut values) => {
                values.reverse();
                faults.noise = values;
            }
            RegisterFault::None => *faults = Faults::default(),
        }
        self.has_faults.store(true, Ordering::Release);
    }

    #[cold]
    fn faulty(&self, offset: usize, truth: u32) -> u32 {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = faults.noise.pop() {
            return value;
        }
        match &mut faults.ones_after {
            Some(0) => return u32::MAX,
            Some(left) => *left -= 1,
            None => {}
        }
        faults.values.get(&offset).copied().unwrap_or(truth)
    }
}

impl RegisterWindow for FakeRegisters {
    fn len(&self) -> usize {
        self.words.len() * 4
    }

    #[inline]
    fn read32(&self, offset: usize) -> u32 {
        let Some(word) = self.words.get(offset / 4) else {
            return u32::MAX;
        };
        if self.is_removed() || !offset.is_multiple_of(4) {
            return u32::MAX;
        }
        let truth = word.load(Ordering::Acquire);
        if self.has_faults.load(Ordering::Relaxed) {
            return self.faulty(offset, truth);
        }
        truth
    }

    #[inline]
    fn write32(&self, offset: usize, value: u32) {
        let Some(word) = self.words.get(offset / 4) else {
            return;
        };
        let read_only = matches!(
            offset,
            register::CAP
                | 0x04
                | register::VS
                | register::CSTS
                | register::CMBLOC
                | register::CMBSZ
        );
        if read_only || !offset.is_multiple_of(4) || self.is_removed() {
            return;
        }
        word.store(value, Ordering::Release);
        if offset >= register::DOORBELLS {
            self.rung[offset / 4].store(true, Ordering::Release);
            self.doorbell_writes.store(
                self.doorbell_writes.load(Ordering::Relaxed) + 1,
                Ordering::Relaxed,
            );
        }
    }
}
