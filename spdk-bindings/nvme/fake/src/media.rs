//! Contents of a namespace: sparse, with a volatile write cache on top.

use std::collections::{BTreeMap, HashMap};

use nvme_spec::{IdentifyNamespace, LbaFormat};

use crate::NamespaceOptions;

/// A namespace: its shape and contents.
pub(crate) struct Namespace {
    pub(crate) options: NamespaceOptions,
    durable: HashMap<u64, Box<[u8]>>,
    /// Blocks that a power cut loses; `None` is a deallocated one.
    cache: BTreeMap<u64, Option<Box<[u8]>>>,
}

impl Namespace {
    pub(crate) fn new(options: NamespaceOptions) -> Namespace {
        Namespace {
            options,
            durable: HashMap::new(),
            cache: BTreeMap::new(),
        }
    }

    pub(crate) fn block_size(&self) -> usize {
        1 << self.options.block_shift
    }

    pub(crate) fn read(&self, lba: u64, to: &mut [u8]) {
        for (lba, block) in (lba..).zip(to.chunks_mut(self.block_size())) {
            let held = match self.cache.get(&lba) {
                Some(cached) => cached.as_ref(),
                None => self.durable.get(&lba),
            };
            match held {
                Some(data) => block.copy_from_slice(data),
                None => block.fill(0),
            }
        }
    }

    pub(crate) fn write(&mut self, lba: u64, from: &[u8], cached: bool) {
        if self.options.discard {
            return;
        }
        for (lba, block) in (lba..).zip(from.chunks(self.block_size())) {
            self.put(lba, Some(block.into()), cached);
        }
    }

    pub(crate) fn zero(&mut self, lba: u64, blocks: u64, cached: bool) {
        if self.options.discard {
            return;
        }
        // Only what holds something: a deallocate of everything is one command.
        let held: Vec<u64> = (self.durable.keys().chain(self.cache.keys()))
            .copied()
            .filter(|held| (lba..lba + blocks).contains(held))
            .collect();
        held.into_iter().for_each(|lba| self.put(lba, None, cached));
    }

    fn put(&mut self, lba: u64, data: Option<Box<[u8]>>, cached: bool) {
        if cached {
            self.cache.insert(lba, data);
            return;
        }
        self.cache.remove(&lba);
        match data {
            Some(data) => self.durable.insert(lba, data),
            None => self.durable.remove(&lba),
        };
    }

    pub(crate) fn flush(&mut self) {
        for (lba, data) in core::mem::take(&mut self.cache) {
            self.put(lba, data, false);
        }
    }

    pub(crate) fn power_cut(&mut self) {
        self.cache.clear();
    }

    pub(crate) fn identify(&self, nsid: u32) -> IdentifyNamespace {
        let options = &self.options;
        let format = LbaFormat {
            metadata: options.metadata,
            data_shift: options.block_shift,
            performance: 0,
        };
        let mut data = IdentifyNamespace {
            blocks: options.blocks,
            capacity: options.blocks,
            used: options.blocks,
            format_count: 1,
            flbas: 1,
            protection: options.protection,
            deallocated: 1,
            optimal_boundary: options.optimal_boundary,
            eui64: (0x6b65_656c_0000_0000 | u64::from(nsid)).to_be_bytes(),
            ..IdentifyNamespace::default()
        };
        data.formats[0] = LbaFormat {
            data_shift: 9,
            ..LbaFormat::default()
        };
        data.formats[1] = format;
        data
    }
}
