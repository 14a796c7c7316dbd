//! The volatile cache: writes that were acknowledged and are on no device yet.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::PowerCut;

/// A write in the volatile cache, as a test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unflushed {
    /// Its number: writes are counted from 1.
    pub id: u64,
    /// First block.
    pub lba: u64,
    /// How many blocks of it are in the cache still.
    pub blocks: u64,
}

/// One block of one write.
struct Entry {
    write: u64,
    lba: u64,
    data: Box<[u8]>,
    /// It survived a power cut: it is on the medium as far as anybody can tell, and only waits to be moved there.
    survived: bool,
}

/// Blocks in the order in which they were written.
pub(crate) struct Cache {
    entries: Vec<Entry>,
    block: usize,
    limit: usize,
    writes: u64,
}

/// Contents to put on the device underneath: (first block, data), each at most as long as one I/O may be.
pub(crate) type Runs = Vec<(u64, Vec<u8>)>;

impl Cache {
    pub(crate) fn new(block: usize, limit: usize) -> Cache {
        Cache {
            entries: Vec::new(),
            block,
            limit,
            writes: 0,
        }
    }

    /// Whether `bytes` more fit.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.entries.len() * self.block + bytes <= self.limit
    }

    /// Takes a write in; returns its number.
    pub(crate) fn put(&mut self, lba: u64, data: &[u8]) -> u64 {
        self.writes += 1;
        for (at, block) in data.chunks(self.block).enumerate() {
            let entry = Entry {
                write: self.writes,
                lba: lba + at as u64,
                data: block.into(),
                survived: false,
            };
            self.entries.push(entry);
        }
        self.writes
    }

    /// Writes in the cache over what was read from the device.
    pub(crate) fn patch(&self, lba: u64, data: &mut [u8]) {
        let blocks = data.len() / self.block;
        for entry in &self.entries {
            let Some(at) = entry
                .lba
                .checked_sub(lba)
                .map(|at| at as usize)
                .filter(|at| *at < blocks)
            else {
                continue;
            };
            data[at * self.block..(at + 1) * self.block].copy_from_slice(&entry.data);
        }
    }

    /// The newest contents of every block written up to now, to be put on the device, and the number of the last write.
    pub(crate) fn runs(&self, max_blocks: usize) -> (Runs, u64) {
        (self.join(max_blocks, |_| true), self.writes)
    }

    /// The contents of one write.
    pub(crate) fn runs_of(&self, write: u64, max_blocks: usize) -> Runs {
        self.join(max_blocks, |entry| entry.write == write)
    }

    fn join(&self, max_blocks: usize, which: impl Fn(&Entry) -> bool) -> Runs {
        let newest: BTreeMap<u64, &[u8]> = self
            .entries
            .iter()
            .filter(|entry| which(entry))
            .map(|entry| (entry.lba, &*entry.data))
            .collect();
        let mut runs: Runs = Vec::new();
        for (lba, data) in newest {
            match runs.last_mut() {
                Some((first, run))
                    if *first + (run.len() / self.block) as u64 == lba
                        && run.len() / self.block < max_blocks =>
                {
                    run.extend_from_slice(data);
                }
                _ => runs.push((lba, data.to_vec())),
            }
        }
        runs
    }

    /// Everything up to write number `last` is on the device.
    pub(crate) fn retire(&mut self, last: u64) {
        self.entries.retain(|entry| entry.write > last);
    }

    /// One write is on the device, over everything older.
    pub(crate) fn retire_one(&mut self, write: u64) {
        let blocks: Vec<u64> = self
            .entries
            .iter()
            .filter(|entry| entry.write == write)
            .map(|entry| entry.lba)
            .collect();
        self.entries
            .retain(|entry| entry.write > write || !blocks.contains(&entry.lba));
    }

    pub(crate) fn list(&self) -> Vec<Unflushed> {
        let mut list: Vec<Unflushed> = Vec::new();
        for entry in self.entries.iter().filter(|entry| !entry.survived) {
            match list.last_mut() {
                Some(last) if last.id == entry.write => last.blocks += 1,
                _ => list.push(Unflushed {
                    id: entry.write,
                    lba: entry.lba,
                    blocks: 1,
                }),
            }
        }
        list
    }

    pub(crate) fn cut(&mut self, keep: &PowerCut) {
        let mut random = match keep {
            PowerCut::KeepSome { seed } => StdRng::seed_from_u64(*seed),
            _ => StdRng::seed_from_u64(0),
        };
        self.entries.retain_mut(|entry| {
            entry.survived |= match keep {
                PowerCut::LoseAll => false,
                PowerCut::KeepWrites(writes) => writes.contains(&entry.write),
                PowerCut::KeepSome { .. } => random.random_bool(0.5),
            };
            entry.survived
        });
    }
}
