//! What is asked of a device: where, and how long it took.

use std::str::FromStr;

use anyhow::{Result, bail};
use spdk_bdev::Op;
use spdk_env::Clock;

use crate::bdev::Options;
use crate::histogram::Histogram;

/// Share of reads in `randrw`, in percent.
const READ_PERCENT: u64 = 70;

/// Completions of one turn that share a reading of the clock: it costs as much as a fifth of an I/O that does nothing, and they lie within a fraction of
/// a microsecond.
pub(crate) const TIMED_TOGETHER: usize = 8;

/// Which access pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Sequential reads.
    Read,
    /// Sequential writes.
    Write,
    /// Reads at random offsets.
    RandRead,
    /// Writes at random offsets.
    RandWrite,
    /// 70 % reads, 30 % writes at random offsets.
    RandRw,
}

impl FromStr for Workload {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Workload> {
        Ok(match text {
            "read" => Workload::Read,
            "write" => Workload::Write,
            "randread" => Workload::RandRead,
            "randwrite" => Workload::RandWrite,
            "randrw" => Workload::RandRw,
            other => {
                bail!("workload `{other}` is none of read, write, randread, randwrite, randrw")
            }
        })
    }
}

/// One core's share.
pub(crate) struct Load {
    clock: Clock,
    workload: Workload,
    blocks: u32,
    /// Places of the device that an I/O may start at.
    slots: u64,
    next_slot: u64,
    random: u64,
    /// Submission time of each I/O in flight, by its number.
    submitted: Vec<u64>,
    histogram: Histogram,
    /// The newest latency, and how many I/Os in a row had it: those that are timed together do.
    took: u64,
    alike: u64,
    started_ns: u64,
    end_ns: u64,
}

impl Load {
    pub(crate) fn new(options: &Options, num_blocks: u64, block_size: u32, seed: u64) -> Load {
        let blocks = (options.io_size / u64::from(block_size)) as u32;
        let clock = Clock::tsc();
        let started_ns = clock.now();
        Load {
            clock,
            workload: options.workload,
            blocks,
            slots: num_blocks / u64::from(blocks),
            next_slot: 0,
            random: seed | 1,
            submitted: vec![0; options.queue_depth as usize],
            histogram: Histogram::default(),
            took: 0,
            alike: 0,
            started_ns,
            end_ns: started_ns + (options.seconds * 1e9) as u64,
        }
    }

    /// Blocks of one I/O.
    #[inline]
    pub(crate) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// For [`Load::next`] and [`Load::ended`].
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.clock.raw()
    }

    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.clock.now() >= self.end_ns
    }

    /// What I/O `number` does and where it begins.
    #[inline]
    pub(crate) fn next(&mut self, number: u64, now: u64) -> (Op, u64) {
        self.submitted[number as usize] = now;
        let (op, slot) = self.choose();
        (op, slot * u64::from(self.blocks))
    }

    /// I/O `number` is back.
    #[inline]
    pub(crate) fn ended(&mut self, number: u64, now: u64) {
        let took = now - self.submitted[number as usize];
        if took == self.took {
            self.alike += 1;
        } else {
            self.count_alike();
            (self.took, self.alike) = (took, 1);
        }
    }

    #[inline]
    fn count_alike(&mut self) {
        self.histogram.record_times(self.took, self.alike);
        self.alike = 0;
    }

    /// The latencies, and how many nanoseconds it ran.
    pub(crate) fn end(mut self) -> (Histogram, u64) {
        self.count_alike();
        (self.histogram, self.clock.now() - self.started_ns)
    }

    #[inline]
    fn choose(&mut self) -> (Op, u64) {
        let sequential = matches!(self.workload, Workload::Read | Workload::Write);
        let slot = if sequential {
            self.next_slot = if self.next_slot + 1 < self.slots {
                self.next_slot + 1
            } else {
                0
            };
            self.next_slot
        } else {
            // The high half of a product maps a random number to a range without a division (Lemire).
            ((u128::from(self.random()) * u128::from(self.slots)) >> 64) as u64
        };
        let op = match self.workload {
            Workload::Read | Workload::RandRead => Op::Read,
            Workload::Write | Workload::RandWrite => Op::Write,
            Workload::RandRw => {
                if self.random() % 100 < READ_PERCENT {
                    Op::Read
                } else {
                    Op::Write
                }
            }
        };
        (op, slot)
    }

    /// xorshift64*: one number in about a nanosecond.
    #[inline]
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
