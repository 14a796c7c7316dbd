//! [`FakeController`]: the handle of tests and benchmarks.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nvme_spec::feature::AsyncEvent;
use nvme_spec::log::SmartLog;
use spdk_env::IoSpace;

use crate::device::Device;
use crate::media::Namespace;
use crate::registers::FakeRegisters;
use crate::{FakeOptions, Fault, NamespaceOptions, RegisterFault};

/// What the device saw its driver do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observed {
    /// Steps.
    pub steps: u64,
    /// Commands fetched.
    pub commands: u64,
    /// Completions posted.
    pub completions: u64,
    /// Times that CC.EN went to 1.
    pub enables: u64,
    /// Shutdown notifications.
    pub shutdowns: u64,
    /// Flush commands.
    pub flushes: u64,
    /// Abort commands.
    pub aborts: u64,
    /// Commands whose data was torn.
    pub torn: u64,
    /// Bytes of the largest read, write or compare.
    pub largest_transfer: usize,
    /// Reads, writes and compares with an SGL.
    pub sgl_commands: u64,
    /// Times that the interrupts of a vector were let through.
    pub unmaskings: u64,
    /// Doorbell registers written.
    pub doorbell_writes: u64,
    /// Doorbell values outside of their queue.
    pub bad_doorbells: u64,
    /// DMA to memory that the device was not given: must stay 0 for a correct driver.
    pub dma_faults: u64,
}

/// An emulated controller. `Clone + Send + Sync`; clones are the same device.
#[derive(Clone)]
pub struct FakeController {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) address: String,
    pub(crate) registers: Arc<FakeRegisters>,
    pub(crate) space: Arc<IoSpace>,
    pub(crate) vectors: u16,
    device: Mutex<Device>,
}

impl Inner {
    pub(crate) fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeController {
    /// A controller, powered on and disabled.
    #[must_use]
    pub fn new(options: FakeOptions) -> FakeController {
        let doorbells = 2 * (usize::from(options.queue_pairs) + 1);
        let registers = Arc::new(FakeRegisters::new(doorbells, options.dstrd));
        let space = Arc::new(IoSpace::new());
        let inner = Inner {
            address: options.address.clone(),
            vectors: options.interrupts,
            device: Mutex::new(Device::new(
                options,
                Arc::clone(&registers),
                Arc::clone(&space),
            )),
            registers,
            space,
        };
        FakeController {
            inner: Arc::new(inner),
        }
    }

    /// Lets the device move once: registers, then every queue. Returns the completions that it posted.
    pub fn step(&self) -> u32 {
        self.inner.device().step()
    }

    /// Lets the device step on a thread of its own until the result is dropped.
    #[must_use]
    pub fn run(&self) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let (device, seen) = (self.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Acquire) {
                if device.step() == 0 {
                    std::thread::yield_now();
                }
            }
        });
        Running {
            stop,
            thread: Some(thread),
        }
    }

    /// Adds a fault to the script.
    pub fn inject(&self, fault: Fault) {
        self.inner.device().script.add(fault);
    }

    /// Forgets the script.
    pub fn clear_faults(&self) {
        self.inner.device().script.clear();
        self.inner.registers.inject(RegisterFault::None);
    }

    /// Makes registers read wrong.
    pub fn inject_register(&self, fault: RegisterFault) {
        self.inner.registers.inject(fault);
    }

    /// Pulls the device out: registers read as ones, nothing moves, and it reaches memory no more.
    pub fn remove(&self) {
        self.inner.registers.remove();
        // With the device's lock: a step that is under way ends first.
        let _device = self.inner.device();
        self.inner.space.unmap_all();
    }

    /// Pulls the device out in step `step` (see [`Observed::steps`]).
    pub fn remove_at_step(&self, step: u64) {
        self.inner.device().remove_at = Some(step);
    }

    /// The same medium in a controller that was just put in: what its cache held is lost, all else is there.
    #[must_use]
    pub fn reinsert(&self) -> FakeController {
        self.remove();
        let mut old = self.inner.device();
        let fresh = FakeController::new(old.options.clone());
        let mut namespaces = core::mem::take(&mut old.namespaces);
        namespaces.values_mut().for_each(Namespace::power_cut);
        fresh.inner.device().namespaces = namespaces;
        fresh
    }

    /// Adds or replaces a namespace and tells the driver, if it listens.
    pub fn set_namespace(&self, nsid: u32, options: NamespaceOptions) {
        let mut device = self.inner.device();
        match device.namespaces.get_mut(&nsid) {
            // A resize keeps the contents.
            Some(namespace) if namespace.options.block_shift == options.block_shift => {
                namespace.options = options;
            }
            _ => {
                device.namespaces.insert(nsid, Namespace::new(options));
            }
        }
        namespaces_changed(&mut device, nsid);
    }

    /// Takes a namespace away and tells the driver, if it listens.
    pub fn remove_namespace(&self, nsid: u32) {
        let mut device = self.inner.device();
        device.namespaces.remove(&nsid);
        namespaces_changed(&mut device, nsid);
    }

    /// Raises an asynchronous event.
    pub fn raise(&self, event: AsyncEvent) {
        self.inner.device().events.raise(event);
    }

    /// Changes the SMART page.
    pub fn set_smart(&self, change: impl FnOnce(&mut SmartLog)) {
        change(&mut self.inner.device().events.smart);
    }

    /// Loses what the volatile cache holds, as a power cut does.
    pub fn power_cut(&self) {
        let mut device = self.inner.device();
        device
            .namespaces
            .values_mut()
            .for_each(Namespace::power_cut);
    }

    /// Bytes of the medium as the device would read them.
    ///
    /// # Panics
    /// When there is no such namespace.
    #[must_use]
    pub fn peek(&self, nsid: u32, lba: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let device = self.inner.device();
        device.namespaces[&nsid].read(lba, &mut bytes);
        bytes
    }

    /// What the device saw.
    #[must_use]
    pub fn observed(&self) -> Observed {
        let observed = self.inner.device().observed;
        let doorbell_writes = self.inner.registers.doorbell_writes();
        Observed {
            doorbell_writes,
            ..observed
        }
    }

    /// I/O queue pairs that exist.
    #[must_use]
    pub fn io_queues(&self) -> usize {
        self.inner.device().sqs.keys().filter(|id| **id > 0).count()
    }
}

fn namespaces_changed(device: &mut Device, nsid: u32) {
    device.events.changed_namespaces.insert(nsid);
    device.events.raise(AsyncEvent::NAMESPACE_CHANGED);
}

/// The thread that steps a device; it stops when this is dropped.
pub struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic of the device's was printed where it happened.
            let _ = thread.join();
        }
    }
}
