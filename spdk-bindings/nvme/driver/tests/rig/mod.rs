//! A controller over the emulated device, on a clock that is turned by hand.
#![allow(dead_code, reason = "each test file uses a part of the rig")]
#![allow(missing_docs, reason = "tests")]

use std::cell::Cell;
use std::sync::Arc;

use nvme_fake::{FakeController, FakeOptions};
use spdk_env::{DeviceBacking, DmaBuf, DmaPool};
use spdk_nvme::{
    Controller, ControllerState, Done, Event, Io, IoKind, IoTarget, NvmeError, Options, QueuePair,
};

pub(crate) const MS: u64 = 1_000_000;

pub(crate) struct Rig {
    pub(crate) fake: FakeController,
    pub(crate) controller: Controller<FakeController>,
    pub(crate) pool: DmaPool,
    pub(crate) clock: Cell<u64>,
}

pub(crate) type Pair = QueuePair<FakeController>;

impl Rig {
    /// Not brought up yet.
    pub(crate) fn bare(fake: FakeController, options: Options) -> Rig {
        let controller = Controller::new(Arc::new(fake.clone()), options).unwrap();
        let pool = DmaPool::new(256 << 10, 40).unwrap();
        fake.map_pool(&pool).unwrap();
        Rig {
            fake,
            controller,
            pool,
            clock: Cell::new(0),
        }
    }

    pub(crate) fn try_new(fake: FakeOptions, options: Options) -> Result<Rig, NvmeError> {
        let mut rig = Rig::bare(FakeController::new(fake), options);
        rig.attach().map(|()| rig)
    }

    pub(crate) fn new(fake: FakeOptions, options: Options) -> Rig {
        Rig::try_new(fake, options).unwrap()
    }

    pub(crate) fn attach(&mut self) -> Result<(), NvmeError> {
        let (clock, fake) = (&self.clock, &self.fake);
        self.controller.attach(|| tick(clock, fake))
    }

    /// One millisecond passes, the device and the controller move.
    pub(crate) fn turn(&mut self) {
        let now = tick(&self.clock, &self.fake);
        self.controller.poll(now);
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.get()
    }

    pub(crate) fn pair(&self) -> Pair {
        self.controller.queue_pair().unwrap().attach()
    }

    pub(crate) fn target(&self, nsid: u32) -> IoTarget {
        let found = self.controller.namespaces();
        found.iter().find(|ns| ns.nsid == nsid).unwrap().target()
    }

    /// Turns until `wanted` I/Os are done.
    pub(crate) fn finish(&mut self, pair: &mut Pair, wanted: usize) -> Vec<Done> {
        let mut done = Vec::new();
        for _ in 0..200_000 {
            pair.poll(self.now(), |d| done.push(d));
            if done.len() >= wanted {
                return done;
            }
            self.turn();
        }
        panic!(
            "{} of {wanted} I/Os came back; controller {:?}",
            done.len(),
            self.controller.state()
        );
    }

    /// One I/O from beginning to end.
    pub(crate) fn one(&mut self, pair: &mut Pair, target: &IoTarget, io: Io) -> Done {
        pair.submit(target, io).map_err(|(_, why)| why).unwrap();
        self.finish(pair, 1).remove(0)
    }

    pub(crate) fn buf(&self, bytes: &[u8]) -> DmaBuf {
        let mut buf = self.pool.get().unwrap();
        buf.set_len(bytes.len());
        buf.as_mut_slice().copy_from_slice(bytes);
        buf
    }

    pub(crate) fn write(
        &mut self,
        pair: &mut Pair,
        target: &IoTarget,
        lba: u64,
        blocks: u32,
        bytes: &[u8],
    ) -> Done {
        let io = Io::new(IoKind::Write, lba, blocks).with_buf(self.buf(bytes));
        self.one(pair, target, io)
    }

    /// Reads, and checks that it succeeds.
    pub(crate) fn read(
        &mut self,
        pair: &mut Pair,
        target: &IoTarget,
        lba: u64,
        blocks: u32,
        bytes: usize,
    ) -> Vec<u8> {
        let io = Io::new(IoKind::Read, lba, blocks).with_buf(self.buf(&vec![0xcc; bytes]));
        let done = self.one(pair, target, io);
        assert_eq!(done.result, Ok(()));
        done.io.buf.unwrap().as_slice().to_vec()
    }

    pub(crate) fn until(&mut self, state: &ControllerState) {
        for _ in 0..200_000 {
            if self.controller.state() == *state {
                return;
            }
            self.turn();
        }
        panic!("never {state:?}, but {:?}", self.controller.state());
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.controller.take_event()).collect()
    }

    /// Every buffer of the pool is back, and the device never reached for what it was not given.
    pub(crate) fn check(&self) {
        assert_eq!(
            self.fake.observed().dma_faults,
            0,
            "DMA outside of what the device was given"
        );
        assert_eq!(
            self.pool.available(),
            self.pool.count(),
            "a buffer is missing"
        );
    }
}

pub(crate) fn tick(clock: &Cell<u64>, fake: &FakeController) -> u64 {
    fake.step();
    clock.set(clock.get() + MS);
    clock.get()
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64)
        .map(|i| ((i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

/// Short times, so that ladders are climbed in few turns.
pub(crate) fn quick() -> Options {
    Options {
        io_timeout: 80 * MS,
        abort_timeout: 40 * MS,
        admin_timeout: 200 * MS,
        ..Options::default()
    }
}
