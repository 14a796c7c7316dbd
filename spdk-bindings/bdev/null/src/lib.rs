//! A device that does nothing, quickly: the ceiling of the block layer.
//!
//! [`NullBdev`] has a size and no contents. Reads leave the buffer as it is, everything else is forgotten (SPDK:
//! `module/bdev/null`). What an I/O costs here is what the block layer costs. Any thread may create it; its channels follow
//! the rules of `spdk_bdev`, its only neighbour.

use spdk_bdev::{Bdev, BdevChannel, BdevError, CompletionSink, Geometry, Request};
use spdk_thread::Thread;
use uuid::Uuid;

/// I/Os that one channel holds.
const CAPACITY: u32 = 65_536;

/// A device of `num_blocks` blocks that keeps nothing.
#[derive(Debug)]
pub struct NullBdev {
    name: String,
    uuid: Uuid,
    geometry: Geometry,
}

impl NullBdev {
    /// A device of `num_blocks` blocks of `block_size` bytes. The registry checks the numbers.
    #[must_use]
    pub fn new(name: &str, block_size: u32, num_blocks: u64) -> NullBdev {
        let geometry = Geometry {
            unmap_zeroes: false,
            ..Geometry::new(block_size, num_blocks)
        };
        NullBdev {
            name: name.to_owned(),
            uuid: Uuid::new_v4(),
            geometry,
        }
    }
}

impl Bdev for NullBdev {
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
        "null"
    }

    fn create_channel(&self, _thread: &Thread) -> Result<Box<dyn BdevChannel>, BdevError> {
        Ok(Box::new(NullChannel {
            pending: Vec::with_capacity(256),
        }))
    }
}

/// Holds I/O from its submission to the next poll, as every device does.
struct NullChannel {
    pending: Vec<u32>,
}

impl BdevChannel for NullChannel {
    fn submit(&mut self, tag: u32, _request: &mut Request) {
        self.pending.push(tag);
    }

    fn poll(&mut self, _now: u64, done: &mut CompletionSink<'_>) {
        for tag in self.pending.drain(..) {
            done.complete(tag, Ok(()));
        }
    }

    fn capacity(&self) -> u32 {
        CAPACITY
    }
}
