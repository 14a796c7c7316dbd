//! A device in memory.
//!
//! [`MallocBdev`] keeps its blocks in one [`SharedRegion`] that all channels copy from and to (SPDK: `module/bdev/malloc`). What
//! is written is lost with the process; there is nothing to flush. Any thread may create it; its channels follow the rules
//! of `spdk_bdev`. Neighbours: `spdk_bdev` (the contract), `spdk_env` (the memory).

use std::sync::Arc;

use spdk_bdev::{Bdev, BdevChannel, BdevError, CompletionSink, Geometry, Op, Request};
use spdk_env::{OutOfMemory, SharedRegion};
use spdk_thread::Thread;
use uuid::Uuid;

/// I/Os that one channel holds.
const CAPACITY: u32 = 65_536;

/// A device of `num_blocks` blocks in memory, zeroed at creation.
pub struct MallocBdev {
    name: String,
    uuid: Uuid,
    geometry: Geometry,
    memory: Arc<SharedRegion>,
}

impl MallocBdev {
    /// A device of `num_blocks` blocks of `block_size` bytes. The registry checks the numbers. All
    /// memory is taken from the machine now.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn new(name: &str, block_size: u32, num_blocks: u64) -> Result<MallocBdev, OutOfMemory> {
        let geometry = Geometry::new(block_size, num_blocks);
        let bytes = u64::from(block_size)
            .checked_mul(num_blocks)
            .and_then(|bytes| usize::try_from(bytes).ok());
        let memory = SharedRegion::new(bytes.ok_or(OutOfMemory { bytes: usize::MAX })?)?;
        Ok(MallocBdev {
            name: name.to_owned(),
            uuid: Uuid::new_v4(),
            geometry,
            memory: Arc::new(memory),
        })
    }
}

impl Bdev for MallocBdev {
    fn name(&self) -> &str {
        &self.name
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn driver(&self) -> &'static str {
        "malloc"
    }

    fn create_channel(&self, _thread: &Thread) -> Result<Box<dyn BdevChannel>, BdevError> {
        let shift = self.geometry.block_size.trailing_zeros();
        Ok(Box::new(MallocChannel {
            memory: Arc::clone(&self.memory),
            shift,
            pending: Vec::with_capacity(256),
        }))
    }
}

struct MallocChannel {
    memory: Arc<SharedRegion>,
    /// Block size as a power of two.
    shift: u32,
    pending: Vec<u32>,
}

impl MallocChannel {
    fn run(memory: &SharedRegion, shift: u32, request: &mut Request) {
        // The layer checked the range against the region's size.
        let (at, len) = (
            (request.lba as usize) << shift,
            (request.blocks as usize) << shift,
        );
        match (request.op, &mut request.buf) {
            (Op::Read, Some(buf)) => memory.copy_out(at, &mut buf.as_mut_slice()[..len]),
            (Op::Write, Some(buf)) => memory.copy_in(at, &buf.as_slice()[..len]),
            (Op::WriteZeroes | Op::Unmap, _) => memory.zero(at, len),
            _ => {}
        }
    }
}

impl BdevChannel for MallocChannel {
    fn submit(&mut self, tag: u32, request: &mut Request) {
        if request.op.has_data() {
            // The copy runs at the next poll; until then the first lines are on their way.
            self.memory.prefetch((request.lba as usize) << self.shift);
        }
        self.pending.push(tag);
    }

    fn poll(&mut self, _now: u64, done: &mut CompletionSink<'_>) {
        for tag in self.pending.drain(..) {
            MallocChannel::run(&self.memory, self.shift, done.request(tag));
            done.complete(tag, Ok(()));
        }
    }

    fn capacity(&self) -> u32 {
        CAPACITY
    }
}
