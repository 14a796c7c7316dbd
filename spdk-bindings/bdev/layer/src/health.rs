//! What was done on a device and how much of it failed.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Op, SlowIos};

/// Counts of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpCounts {
    /// Finished, well or badly.
    pub ops: u64,
    /// Finished badly.
    pub errors: u64,
    /// Bytes of those that finished well (reads, writes, write-zeroes, unmaps).
    pub bytes: u64,
}

/// Counters of a device over all threads since it was registered (DAOS: part of `BIO_HEALTH_QUERY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    by_op: [OpCounts; 5],
}

impl Health {
    /// The counts of one operation.
    #[must_use]
    pub fn of(&self, op: Op) -> OpCounts {
        self.by_op[op as usize]
    }

    /// Failed I/Os of any kind.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.by_op.iter().map(|counts| counts.errors).sum()
    }

    fn add(&mut self, other: &Health) {
        for (mine, theirs) in self.by_op.iter_mut().zip(&other.by_op) {
            mine.ops += theirs.ops;
            mine.errors += theirs.errors;
            mine.bytes += theirs.bytes;
        }
    }
}

/// What one poll finished; plain numbers, published once.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ops: [u32; 5],
    errors: [u32; 5],
    blocks: [u64; 5],
}

impl Tally {
    #[inline]
    pub(crate) fn count(&mut self, op: Op, blocks: u32, ok: bool) {
        let op = op as usize;
        self.ops[op] += 1;
        self.blocks[op] += if ok { u64::from(blocks) } else { 0 };
        self.errors[op] += u32::from(!ok);
    }

    pub(crate) fn total(&self) -> u32 {
        self.ops.iter().sum()
    }
}

/// One channel's counters: written by its thread only, read by anybody.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    by_op: [[AtomicU64; 3]; 5],
}

impl Counters {
    #[inline]
    pub(crate) fn publish(&self, tally: &Tally, block_size: u32) {
        for (op, [ops, errors, bytes]) in self.by_op.iter().enumerate() {
            if tally.ops[op] == 0 {
                continue;
            }
            // One writer: a load and a store, no locked instruction.
            let bump = |counter: &AtomicU64, by: u64| {
                counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
            };
            bump(ops, u64::from(tally.ops[op]));
            bump(bytes, tally.blocks[op] * u64::from(block_size));
            if tally.errors[op] > 0 {
                bump(errors, u64::from(tally.errors[op]));
            }
        }
    }

    fn read(&self) -> Health {
        Health {
            by_op: self.by_op.each_ref().map(|[ops, errors, bytes]| OpCounts {
                ops: ops.load(Ordering::Relaxed),
                errors: errors.load(Ordering::Relaxed),
                bytes: bytes.load(Ordering::Relaxed),
            }),
        }
    }
}

/// All counters of a device: those of its live channels, and the sum of the gone ones.
#[derive(Debug, Default)]
pub(crate) struct HealthBook {
    /// Who hears of slow I/Os.
    pub(crate) slow: Option<SlowIos>,
    inner: Mutex<(Health, Vec<Arc<Counters>>)>,
}

impl HealthBook {
    pub(crate) fn new(slow: Option<SlowIos>) -> HealthBook {
        HealthBook {
            slow,
            ..HealthBook::default()
        }
    }

    /// Counters for a new channel. Those that no channel holds any more are summed up and let go.
    pub(crate) fn join(&self) -> Arc<Counters> {
        let mut book = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (past, live) = &mut *book;
        live.retain(|counters| {
            let held = Arc::strong_count(counters) > 1;
            if !held {
                past.add(&counters.read());
            }
            held
        });
        let counters = Arc::new(Counters::default());
        live.push(Arc::clone(&counters));
        counters
    }

    pub(crate) fn read(&self) -> Health {
        let book = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = book.0;
        book.1.iter().for_each(|counters| sum.add(&counters.read()));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_outlive_their_channel() {
        let book = HealthBook::default();
        let first = book.join();
        let mut tally = Tally::default();
        tally.count(Op::Read, 2, true);
        tally.count(Op::Write, 3, false);
        first.publish(&tally, 512);
        drop(first);
        let second = book.join();
        second.publish(&tally, 512);
        let health = book.read();
        assert_eq!(
            health.of(Op::Read),
            OpCounts {
                ops: 2,
                errors: 0,
                bytes: 2048
            }
        );
        assert_eq!(
            health.of(Op::Write),
            OpCounts {
                ops: 2,
                errors: 2,
                bytes: 0
            }
        );
        assert_eq!((health.errors(), tally.total()), (2, 2));
    }
}
