//! One namespace as a block device.

use std::sync::Arc;

use nvme_spec::NamespaceName;
use spdk_bdev::{Bdev, BdevChannel, BdevError, Geometry, Op, OpSet};
use spdk_env::DeviceBacking;
use spdk_nvme::{IoTarget, Namespace, QueuePairs};
use spdk_thread::Thread;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use crate::bounce::{BYTES, Bounce};
use crate::channel::NvmeChannel;

/// A namespace that is used.
pub(crate) struct NvmeBdev<B: DeviceBacking> {
    pub(crate) name: Arc<str>,
    pub(crate) uuid: Uuid,
    pub(crate) geometry: Geometry,
    pub(crate) target: IoTarget,
    pub(crate) backing: Arc<B>,
    pub(crate) pairs: QueuePairs<B>,
    pub(crate) bounce: Bounce,
}

/// Who the namespace is.
pub(crate) fn identity(namespace: &Namespace, serial: &str) -> Uuid {
    let Namespace {
        uuid, nguid, eui64, ..
    } = *namespace;
    match NamespaceName::of(uuid, nguid, eui64, (serial, namespace.nsid)) {
        NamespaceName::Uuid(bytes) => Uuid::from_bytes(bytes),
        NamespaceName::Text(text) => {
            uuid::Builder::from_custom_bytes(xxh3_128(text.as_bytes()).to_be_bytes()).into_uuid()
        }
    }
}

pub(crate) fn geometry(namespace: &Namespace, oncs: u16, write_cache: bool) -> Geometry {
    let mut supports = OpSet::ALL;
    if oncs & 1 << 2 == 0 {
        supports = supports.without(Op::Unmap);
    }
    if oncs & 1 << 3 == 0 {
        supports = supports.without(Op::WriteZeroes);
    }
    let block_size = namespace.block_size();
    Geometry {
        optimal_io_blocks: namespace.optimal_blocks.max(1),
        max_io_blocks: (BYTES as u32 / block_size).max(1),
        volatile_write_cache: write_cache,
        unmap_zeroes: namespace.deallocated_zeroes,
        supports,
        ..Geometry::new(block_size, namespace.blocks)
    }
}

impl<B: DeviceBacking> Bdev for NvmeBdev<B> {
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
        "nvme"
    }

    fn create_channel(&self, thread: &Thread) -> Result<Box<dyn BdevChannel>, BdevError> {
        let seed = self
            .pairs
            .take()
            .map_err(|error| BdevError::channel(&self.name, error.to_string()))?;
        Ok(Box::new(NvmeChannel::new(
            Arc::clone(&self.name),
            Arc::clone(&self.backing),
            seed.attach(),
            self.target,
            self.bounce.clone(),
            thread.sleeps(),
        )))
    }
}
