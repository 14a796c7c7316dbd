//! [`SpdkBdev`]: a block device of SPDK's in our block layer.

use std::sync::{Arc, Mutex, PoisonError};

use spdk_bdev::{Bdev, BdevChannel, BdevError, Geometry, Op, OpSet};
use spdk_sys::{Event, Facts, OpenError, Spdk};
use spdk_thread::Thread;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use crate::channel::SpdkChannel;
use crate::ssd::{self, Ssd, SsdHealth};
use crate::threads::SpdkCarrier;

/// Longest I/O in bytes; SPDK splits what its device does not take at once.
pub(crate) const MAX_IO: u32 = 1 << 20;

/// A block device of SPDK's, opened for writing. Threads that use it must be SPDK's ([`crate::SpdkThreads`]); each gets its own I/O channel,
/// which for an NVMe namespace is a queue pair of its own. When SPDK takes the device away, new I/O fails, and device and channels are let go of.
pub struct SpdkBdev {
    name: String,
    facts: Facts,
    uuid: Uuid,
    /// Drivers reach registered memory only: I/O of other memory is copied.
    copies: bool,
    /// Gone once the device is.
    opened: Arc<Mutex<Option<spdk_sys::Bdev>>>,
}

impl SpdkBdev {
    /// Opens SPDK's device `bdev` as `name`. Waits; not for reactors. `on_event` hears of removal and new sizes, on SPDK's app thread.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        spdk: &Spdk,
        name: &str,
        bdev: &str,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<SpdkBdev, OpenError> {
        let opened: Arc<Mutex<Option<spdk_sys::Bdev>>> = Arc::default();
        let slot = Arc::downgrade(&opened);
        let own = name.to_owned();
        let heard = move |event| {
            match event {
                Event::Removed => {
                    tracing::error!(
                        device = own,
                        "SPDK takes the device away: its I/O fails from here on"
                    );
                    // SPDK waits for that.
                    if let Some(slot) = slot.upgrade() {
                        slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                    }
                }
                Event::Resized(blocks) => {
                    tracing::warn!(
                        device = own,
                        blocks,
                        "the device has another size; the engine uses what it had"
                    );
                }
            }
            on_event(event);
        };
        let handle = spdk_sys::Bdev::open(spdk, bdev, true, heard)?;
        let facts = handle.facts().clone();
        let ssd = ssd::identify(&handle);
        let mut slot = opened.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = slot.insert(handle);
        // It may have gone before there was something to let go of.
        if handle.is_removed() {
            *slot = None;
        }
        drop(slot);
        Ok(SpdkBdev {
            name: name.to_owned(),
            uuid: identity(bdev, ssd.as_ref()),
            copies: spdk.has_pci(),
            facts,
            opened,
        })
    }

    /// Bytes that it has now; `None` once SPDK has taken it away.
    #[must_use]
    pub fn bytes_now(&self) -> Option<u64> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let blocks = opened.as_ref().map(spdk_sys::Bdev::num_blocks)?;
        Some(blocks * u64::from(self.facts.block_size))
    }

    /// The SSD under it, if an NVMe controller is. Waits for it; not for reactors.
    #[must_use]
    pub fn ssd(&self) -> Option<Ssd> {
        ssd::identify(&self.handle()?)
    }

    /// How the SSD under it is. Waits for it; not for reactors.
    #[must_use]
    pub fn health(&self) -> Option<SsdHealth> {
        ssd::health(&self.handle()?)
    }

    /// Clones it, so that nobody waits with the lock: who takes the device away needs it.
    fn handle(&self) -> Option<spdk_sys::Bdev> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.clone()
    }

    /// The module of SPDK's that drives it: `malloc`, `nvme`, `uring`, ...
    #[must_use]
    pub fn module(&self) -> &str {
        &self.facts.module
    }
}

/// SPDK makes most uuids up at each start. What stays is the name that its configuration gives, and the serial number of an SSD.
fn identity(bdev: &str, ssd: Option<&Ssd>) -> Uuid {
    let serial = ssd.map_or("", |ssd| &ssd.serial);
    let text = format!("spdk serial {serial} name {bdev}");
    uuid::Builder::from_custom_bytes(xxh3_128(text.as_bytes()).to_be_bytes()).into_uuid()
}

impl Bdev for SpdkBdev {
    fn name(&self) -> &str {
        &self.name
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn geometry(&self) -> Geometry {
        let Facts {
            block_size,
            num_blocks,
            ..
        } = self.facts;
        let can = |op: Op, able: bool, set: OpSet| if able { set } else { set.without(op) };
        let mut supports = OpSet::ALL;
        // Without a volatile cache there is nothing to flush: the channel answers by itself.
        supports = can(Op::Flush, self.flushes(), supports);
        supports = can(Op::Write, self.facts.writes, supports);
        supports = can(Op::WriteZeroes, self.facts.writes_zeroes, supports);
        supports = can(Op::Unmap, self.facts.unmaps, supports);
        Geometry {
            optimal_io_blocks: self.facts.optimal_io_blocks.max(1),
            max_io_blocks: (MAX_IO / block_size.max(1)).max(1),
            volatile_write_cache: self.facts.has_write_cache,
            unmap_zeroes: false,
            supports,
            ..Geometry::new(block_size, num_blocks)
        }
    }

    fn driver(&self) -> &'static str {
        "spdk"
    }

    fn create_channel(&self, thread: &Thread) -> Result<Box<dyn BdevChannel>, BdevError> {
        let refused = |why: &str| BdevError::channel(&self.name, why.to_owned());
        let carrier = thread
            .carrier()
            .and_then(|carrier| carrier.downcast_ref::<SpdkCarrier>())
            .ok_or_else(|| refused("this thread is none of SPDK's: its reactor was started with the native provider"))?;
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = opened
            .as_ref()
            .ok_or_else(|| refused("SPDK has taken the device away"))?;
        let channel = SpdkChannel::new(
            &self.name,
            handle,
            &carrier.thread,
            (self.flushes() && !self.facts.flushes, self.copies),
        )
        .ok_or_else(|| {
            refused("SPDK has no I/O channel left (memory, queue pairs of the controller, or huge pages for copies)")
        })?;
        Ok(Box::new(channel))
    }
}

impl SpdkBdev {
    fn flushes(&self) -> bool {
        self.facts.flushes || !self.facts.has_write_cache
    }
}
