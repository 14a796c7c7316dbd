//! For tests of devices: a driver that polls one thread until a future is done, and an oracle that compares any device with
//! a byte vector.

use std::rc::Rc;

use core::cell::RefCell;
use core::future::Future;

use spdk_env::{Clock, DmaBuf};
use spdk_thread::{JoinHandle, Thread};

use crate::{Channel, Completion, IoQueue, Op, Request};

/// Runs `future` on `thread` by polling it with the real clock, as a reactor would.
///
/// # Panics
/// When the future panics or the thread takes no task.
pub fn drive<T: 'static>(thread: &Thread, future: impl Future<Output = T> + 'static) -> T {
    let clock = Clock::tsc();
    let out = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&out);
    let task: JoinHandle<()> = match thread.spawn("drive", async move {
        let value = future.await;
        *slot.borrow_mut() = Some(value);
    }) {
        Ok(task) => task,
        Err(why) => panic!("drive: {why}"),
    };
    while !task.is_finished() {
        if !thread.poll(clock.now()).is_busy() {
            std::thread::yield_now();
        }
    }
    let value = out.borrow_mut().take();
    match value {
        Some(value) => value,
        None => panic!("drive: the future panicked"),
    }
}

/// Compares a device with a byte vector under random concurrent operations.
///
/// Operations in flight never overlap, so every read has one right answer. The same seed makes the same operations.
pub struct Oracle {
    queue: IoQueue,
    block: usize,
    model: Vec<u8>,
    /// Blocks that an operation in flight touches.
    busy: Vec<bool>,
    in_flight: Vec<Option<(Op, usize, usize)>>,
    random: u64,
    unmap_zeroes: bool,
}

/// I/Os in flight.
const DEPTH: usize = 8;
/// Blocks of the longest operation.
const LONGEST: u64 = 9;

impl Oracle {
    /// Starts from what the device holds.
    ///
    /// # Panics
    /// When the device cannot be read, or has more than 64 MiB.
    pub async fn new(channel: &Channel, seed: u64) -> Oracle {
        let geometry = channel.geometry();
        assert!(
            geometry.bytes() <= 64 << 20,
            "an oracle is for small devices"
        );
        let block = geometry.block_size as usize;
        let mut model = Vec::new();
        for lba in 0..geometry.num_blocks {
            let Ok(buf) = DmaBuf::alloc(block) else {
                panic!("no memory")
            };
            let (result, buf) = channel.read(lba, 1, buf).await;
            assert!(result.is_ok(), "{result:?}");
            model.extend_from_slice(buf.as_slice());
        }
        let queue = match channel.queue(DEPTH as u32) {
            Ok(queue) => queue,
            Err(why) => panic!("{why}"),
        };
        Oracle {
            queue,
            block,
            model,
            busy: vec![false; geometry.num_blocks as usize],
            in_flight: (0..DEPTH).map(|_| None).collect(),
            random: seed | 1,
            unmap_zeroes: geometry.unmap_zeroes,
        }
    }

    /// What the device should hold.
    #[must_use]
    pub fn model(&self) -> &[u8] {
        &self.model
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// Does `steps` random operations and waits for all of them.
    ///
    /// # Panics
    /// At the first difference, naming the operation, or the first error.
    pub async fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            while !self.submit() {
                self.finish_some().await;
            }
        }
        while self.queue.in_flight() > 0 {
            self.finish_some().await;
        }
    }

    async fn finish_some(&mut self) {
        self.queue.ready().await;
        while let Some(completion) = self.queue.pop() {
            self.finish(completion);
        }
    }

    /// One more operation; false when the queue is full or the range that was drawn is busy.
    fn submit(&mut self) -> bool {
        let Some(user) = self.in_flight.iter().position(Option::is_none) else {
            return false;
        };
        let blocks = 1 + self.below(LONGEST.min(self.busy.len() as u64)) as usize;
        let first = self.below((self.busy.len() - blocks + 1) as u64) as usize;
        if self.busy[first..first + blocks].iter().any(|busy| *busy) {
            return false;
        }
        let op = match self.below(10) {
            0..4 => Op::Read,
            4..7 => Op::Write,
            7 => Op::WriteZeroes,
            8 if self.unmap_zeroes => Op::Unmap,
            _ => Op::Flush,
        };
        let (lba, count) = (first as u64, blocks as u32);
        let bytes = first * self.block..(first + blocks) * self.block;
        let request = match op {
            Op::Read | Op::Write => {
                let Ok(mut buf) = DmaBuf::alloc(blocks * self.block) else {
                    panic!("no memory")
                };
                let fill = self.below(256) as u8;
                let data = buf.as_mut_slice();
                data.iter_mut()
                    .enumerate()
                    .for_each(|(i, byte)| *byte = fill.wrapping_add((i / 61) as u8));
                if op == Op::Write {
                    self.model[bytes].copy_from_slice(buf.as_slice());
                }
                let fua = self.below(4) == 0;
                Request {
                    op,
                    fua: fua && op == Op::Write,
                    ..Request::read(lba, count, buf)
                }
            }
            Op::WriteZeroes | Op::Unmap => {
                self.model[bytes].fill(0);
                Request {
                    op,
                    ..Request::unmap(lba, count)
                }
            }
            Op::Flush => Request::flush(),
        };
        if op != Op::Flush {
            self.busy[first..first + blocks].fill(true);
        }
        self.in_flight[user] = Some((op, first, blocks));
        let taken = self.queue.submit(request.with_user(user as u64));
        assert!(taken.is_ok(), "{taken:?}");
        true
    }

    fn finish(&mut self, completion: Completion) {
        let Some((op, first, blocks)) = self.in_flight[completion.user as usize].take() else {
            panic!("a completion that nothing waits for: {completion:?}");
        };
        assert_eq!(completion.op, op);
        assert!(completion.result.is_ok(), "{:?}", completion.result);
        if op == Op::Flush {
            return;
        }
        self.busy[first..first + blocks].fill(false);
        if op == Op::Read {
            let expected = &self.model[first * self.block..(first + blocks) * self.block];
            let got = completion
                .buf
                .as_ref()
                .map_or(&[][..], |buf| buf.as_slice());
            assert!(
                got == expected,
                "read of {blocks} blocks at lba {first} differs from what was written"
            );
        }
    }

    /// Reads everything once more.
    ///
    /// # Panics
    /// At the first difference.
    pub async fn verify(&self) {
        verify(self.queue.channel(), &self.model).await;
    }
}

/// Compares all of a device with `model`.
///
/// # Panics
/// At the first difference.
pub async fn verify(channel: &Channel, model: &[u8]) {
    let block = channel.geometry().block_size as usize;
    for (lba, expected) in model.chunks(block).enumerate() {
        let Ok(buf) = DmaBuf::alloc(block) else {
            panic!("no memory")
        };
        let (result, buf) = channel.read(lba as u64, 1, buf).await;
        assert!(result.is_ok(), "{result:?}");
        assert!(
            buf.as_slice() == expected,
            "block {lba} differs from what was written"
        );
    }
}
