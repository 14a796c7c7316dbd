//! [`SpdkBdev`]: a block device of SPDK's in our block layer.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nvme_spec::NamespaceName;

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
    ssd: Option<Ssd>,
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
        let (uuid, ssd) = identify(&handle).map_err(|why| OpenError::Other {
            name: bdev.to_owned(),
            why,
        })?;
        let mut slot = opened.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = slot.insert(handle);
        // It may have gone before there was something to let go of.
        if handle.is_removed() {
            *slot = None;
        }
        drop(slot);
        Ok(SpdkBdev {
            name: name.to_owned(),
            uuid,
            ssd,
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

    /// The SSD under it, if it is a namespace of one, as it was when it was opened.
    #[must_use]
    pub fn ssd(&self) -> Option<&Ssd> {
        self.ssd.as_ref()
    }

    /// The device of SPDK's that is this namespace of an SSD, whatever it is called there; one that SPDK attaches by itself gets a name of its
    /// own making. Opens them all for a moment, and waits; not for reactors.
    #[must_use]
    pub fn find(spdk: &Spdk, uuid: Uuid) -> Option<String> {
        let is_it = |name: &String| {
            // SPDK lets nobody ask a controller who may not write.
            let handle = spdk_sys::Bdev::open(spdk, name, true, |_| ());
            let found = handle.ok().and_then(|handle| identify(&handle).ok());
            found.is_some_and(|(found, ssd)| ssd.is_some() && found == uuid)
        };
        spdk_sys::Bdev::names(spdk).into_iter().find(is_it)
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

    /// Whether flushes reach a medium; `false` for modules that take none (uring, lvol): they count on media that lose nothing.
    #[must_use]
    pub fn passes_flushes(&self) -> bool {
        self.facts.flushes
    }

    /// The module of SPDK's that drives it: `malloc`, `nvme`, `uring`, ...
    #[must_use]
    pub fn module(&self) -> &str {
        &self.facts.module
    }
}

/// Who it is. A namespace of an SSD is what every driver calls it, so that a store moves between them. Of all others SPDK makes the uuids up
/// at each start: what stays is the name that its configuration gives.
fn identify(bdev: &spdk_sys::Bdev) -> io::Result<(Uuid, Option<Ssd>)> {
    let (ssd, text) = match ssd::identify(bdev)? {
        Some((ssd, NamespaceName::Uuid(bytes))) => return Ok((Uuid::from_bytes(bytes), Some(ssd))),
        Some((ssd, NamespaceName::Text(text))) => (Some(ssd), text),
        None => (None, format!("spdk name {}", bdev.name())),
    };
    let uuid = uuid::Builder::from_custom_bytes(xxh3_128(text.as_bytes()).to_be_bytes());
    Ok((uuid.into_uuid(), ssd))
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
            volatile_write_cache: self.is_volatile(),
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

    /// Whether writes need flushes. The NVMe module says what its SSD says; others say no and take flushes for what is below them (raid).
    fn is_volatile(&self) -> bool {
        let is_known = matches!(self.module(), "nvme" | "null");
        self.facts.has_write_cache || (self.facts.flushes && !is_known)
    }
}
