//! A device that remembers what is not flushed, and an executor that completes its requests in any order.
//!
//! Power-cut model: a block holds its durable content or any content submitted since, each block of a write for itself;
//! blocks are never torn. A flush makes durable what had completed when it was submitted; a forced write is durable when
//! it completes. Tasks run only when woken: a lost wake-up is a deadlock and fails the test.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use obj_store::{BlockDev, DevError, FormatOptions, Geometry, OpenOptions, OpenReport, Store};
use obj_store::{StoreError, Superblock, UNIT};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

pub(crate) type Block = Rc<[u8]>;

/// What the medium holds, and what it may hold after a power cut.
#[derive(Clone)]
pub(crate) struct Medium {
    pub(crate) durable: Vec<Block>,
    /// Per block, contents that are not durable yet, oldest first, with the number of their write.
    pending: BTreeMap<u64, Vec<(u64, Block)>>,
}

impl Medium {
    /// One legal state of the medium after a power cut now.
    pub(crate) fn cut(&self, rng: &mut StdRng) -> Vec<Block> {
        let mut blocks = self.durable.clone();
        // Whole caches lost or kept are as likely as a mixture of single blocks.
        let mode = rng.random_range(0..4);
        for (lba, contents) in &self.pending {
            let keep = match mode {
                0 => None,
                1 => contents.last(),
                _ => {
                    let i = rng.random_range(0..=contents.len());
                    contents.get(i)
                }
            };
            if let Some((_, content)) = keep {
                blocks[*lba as usize] = content.clone();
            }
        }
        blocks
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read,
    Write,
    Flush,
    Unmap,
}

struct Request {
    kind: Kind,
    lba: u64,
    blocks: u64,
    data: Vec<u8>,
    fua: bool,
    write: u64,
    /// Writes that a flush makes durable: completed before its submission.
    covers: Vec<u64>,
    done: Rc<Slot>,
}

type Outcome = (Result<(), DevError>, Vec<u8>);

#[derive(Default)]
struct Slot {
    result: RefCell<Option<Outcome>>,
    waker: RefCell<Option<Waker>>,
}

/// Decides which requests fail: (kind, lba) -> fail?
pub(crate) type FaultPlan = Box<dyn FnMut(Kind, u64) -> bool>;

pub(crate) struct State {
    geometry: Geometry,
    pub(crate) medium: RefCell<Medium>,
    cached: RefCell<Vec<Block>>,
    queue: RefCell<Vec<Request>>,
    completed: RefCell<Vec<u64>>,
    writes: Cell<u64>,
    pub(crate) faults: RefCell<Option<FaultPlan>>,
    rng: RefCell<StdRng>,
}

#[derive(Clone)]
pub(crate) struct SimDev(pub(crate) Rc<State>);

impl SimDev {
    pub(crate) fn new(units: u64, block_size: u32, seed: u64) -> SimDev {
        let blocks = units as usize * UNIT / block_size as usize;
        let zero: Block = vec![0; block_size as usize].into();
        SimDev::with(vec![zero; blocks], block_size, seed)
    }

    /// A device that holds these blocks, all durable.
    pub(crate) fn with(blocks: Vec<Block>, block_size: u32, seed: u64) -> SimDev {
        let num_blocks = blocks.len() as u64;
        SimDev(Rc::new(State {
            geometry: Geometry {
                block_size,
                num_blocks,
                max_io_blocks: 0,
            },
            cached: RefCell::new(blocks.clone()),
            medium: RefCell::new(Medium {
                durable: blocks,
                pending: BTreeMap::new(),
            }),
            queue: RefCell::default(),
            completed: RefCell::default(),
            writes: Cell::new(0),
            faults: RefCell::default(),
            rng: RefCell::new(StdRng::seed_from_u64(seed)),
        }))
    }

    /// The same device with requests of at most `blocks` blocks.
    pub(crate) fn limit_io(blocks_each: u32, units: u64, block_size: u32, seed: u64) -> SimDev {
        let dev = SimDev::new(units, block_size, seed);
        let mut state = Rc::try_unwrap(dev.0).unwrap_or_else(|_| unreachable!());
        state.geometry.max_io_blocks = blocks_each;
        SimDev(Rc::new(state))
    }

    /// What a process that was killed leaves: everything completed is in the cache.
    pub(crate) fn contents(&self) -> Vec<Block> {
        self.0.cached.borrow().clone()
    }

    pub(crate) fn block_size(&self) -> usize {
        self.0.geometry.block_size as usize
    }

    /// Flips bits of the stored byte at an absolute offset.
    pub(crate) fn corrupt(&self, offset: u64, xor: u8) {
        let (lba, at) = (
            offset as usize / self.block_size(),
            offset as usize % self.block_size(),
        );
        let mut block = self.0.cached.borrow()[lba].to_vec();
        block[at] ^= xor;
        let block: Block = block.into();
        self.0.cached.borrow_mut()[lba] = block.clone();
        let mut medium = self.0.medium.borrow_mut();
        medium.durable[lba] = block;
        medium.pending.remove(&(lba as u64));
    }

    fn submit(&self, kind: Kind, lba: u64, blocks: u64, data: Vec<u8>, fua: bool) -> Completion {
        let state = &self.0;
        let done = Rc::<Slot>::default();
        let write = state.writes.get();
        let covers = if kind == Kind::Flush {
            state.completed.borrow().clone()
        } else {
            vec![]
        };
        if kind == Kind::Write {
            assert!(
                data.len() >= blocks as usize * self.block_size(),
                "buffer too small"
            );
            assert!(lba + blocks <= state.geometry.num_blocks, "beyond the end");
            let max = state.geometry.max_io_blocks;
            assert!(max == 0 || blocks <= u64::from(max), "request too large");
            state.writes.set(write + 1);
            let mut medium = state.medium.borrow_mut();
            for (i, block) in data
                .chunks_exact(self.block_size())
                .take(blocks as usize)
                .enumerate()
            {
                medium
                    .pending
                    .entry(lba + i as u64)
                    .or_default()
                    .push((write, block.into()));
            }
        }
        let slot = done.clone();
        let request = Request {
            kind,
            lba,
            blocks,
            data,
            fua,
            write,
            covers,
            done,
        };
        state.queue.borrow_mut().push(request);
        Completion(slot)
    }

    /// Completes one request, any of those in flight. `false` when there is none.
    pub(crate) fn complete_one(&self) -> bool {
        let state = &self.0;
        let mut queue = state.queue.borrow_mut();
        if queue.is_empty() {
            return false;
        }
        let pick = state.rng.borrow_mut().random_range(0..queue.len());
        let mut request = queue.swap_remove(pick);
        drop(queue);
        let mut faults = state.faults.borrow_mut();
        let failed = faults
            .as_mut()
            .is_some_and(|f| f(request.kind, request.lba));
        let result = if failed {
            Err(DevError("injected".into()))
        } else {
            self.perform(&mut request);
            Ok(())
        };
        let data = std::mem::take(&mut request.data);
        *request.done.result.borrow_mut() = Some((result, data));
        if let Some(waker) = request.done.waker.borrow_mut().take() {
            waker.wake();
        }
        true
    }

    /// The process is killed: each write in flight has reached the cache or not, and is durable only by a later flush,
    /// even if it was to be forced.
    pub(crate) fn kill(&self) {
        let queue = std::mem::take(&mut *self.0.queue.borrow_mut());
        for mut request in queue {
            request.fua = false;
            let reached = self.0.rng.borrow_mut().random_bool(0.5);
            if reached && request.kind == Kind::Write {
                self.perform(&mut request);
            } else {
                let mut medium = self.0.medium.borrow_mut();
                let others = |(write, _): &(u64, Block)| *write != request.write;
                medium
                    .pending
                    .values_mut()
                    .for_each(|contents| contents.retain(others));
            }
        }
    }

    fn perform(&self, request: &mut Request) {
        let size = self.block_size();
        let mut cached = self.0.cached.borrow_mut();
        let mut medium = self.0.medium.borrow_mut();
        let lbas = request.lba..request.lba + request.blocks;
        match request.kind {
            Kind::Read => {
                for (i, lba) in lbas.enumerate() {
                    request.data[i * size..(i + 1) * size].copy_from_slice(&cached[lba as usize]);
                }
            }
            Kind::Write => {
                for (i, lba) in lbas.enumerate() {
                    let block: Block = request.data[i * size..(i + 1) * size].into();
                    cached[lba as usize] = block.clone();
                    if request.fua {
                        medium.durable[lba as usize] = block;
                        let newer = |(write, _): &(u64, Block)| *write > request.write;
                        medium.pending.entry(lba).or_default().retain(newer);
                    }
                }
                self.0.completed.borrow_mut().push(request.write);
            }
            Kind::Flush => {
                let Medium { durable, pending } = &mut *medium;
                for (lba, contents) in pending.iter_mut() {
                    let covered = |(write, _): &(u64, Block)| request.covers.contains(write);
                    if let Some(last) = contents.iter().rposition(covered) {
                        durable[*lba as usize] = contents[last].1.clone();
                        contents.drain(..=last);
                    }
                }
                pending.retain(|_, contents| !contents.is_empty());
                let covers = &request.covers;
                self.0
                    .completed
                    .borrow_mut()
                    .retain(|w| !covers.contains(w));
            }
            Kind::Unmap => {}
        }
    }
}

struct Completion(Rc<Slot>);

impl Future for Completion {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0.result.borrow_mut().take() {
            Some(result) => Poll::Ready(result),
            None => {
                *self.0.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl BlockDev for SimDev {
    type Buf = Vec<u8>;

    fn geometry(&self) -> Geometry {
        self.0.geometry
    }
    fn alloc(&self, len: usize) -> Result<Vec<u8>, DevError> {
        Ok(vec![0xdb; len])
    }
    async fn read(&self, lba: u64, blocks: u32, buf: Vec<u8>) -> (Result<(), DevError>, Vec<u8>) {
        self.submit(Kind::Read, lba, blocks.into(), buf, false)
            .await
    }
    async fn write(
        &self,
        lba: u64,
        blocks: u32,
        buf: Vec<u8>,
        fua: bool,
    ) -> (Result<(), DevError>, Vec<u8>) {
        self.submit(Kind::Write, lba, blocks.into(), buf, fua).await
    }
    async fn flush(&self) -> Result<(), DevError> {
        self.submit(Kind::Flush, 0, 0, Vec::new(), false).await.0
    }
    async fn unmap(&self, lba: u64, blocks: u64) -> Result<(), DevError> {
        self.submit(Kind::Unmap, lba, blocks, Vec::new(), false)
            .await
            .0
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Task {
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    woken: Arc<Flag>,
}

/// Runs tasks over a device on the test's thread.
pub(crate) struct Sim {
    pub(crate) dev: SimDev,
    tasks: RefCell<Vec<Task>>,
    /// Called after each completed device request.
    pub(crate) on_step: RefCell<Option<Box<dyn FnMut()>>>,
}

impl Sim {
    pub(crate) fn new(dev: SimDev) -> Sim {
        Sim {
            dev,
            tasks: RefCell::default(),
            on_step: RefCell::default(),
        }
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let woken = Arc::new(Flag(AtomicBool::new(true)));
        self.tasks.borrow_mut().push(Task {
            future: Some(Box::pin(future)),
            woken,
        });
    }

    /// Runs until this future is done.
    pub(crate) fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        let result = Rc::new(RefCell::new(None));
        let out = result.clone();
        self.spawn(async move {
            let value = future.await;
            *out.borrow_mut() = Some(value);
        });
        loop {
            let any = self.poll_woken();
            if let Some(value) = result.borrow_mut().take() {
                return value;
            }
            // The device is sometimes slower than the tasks, and sometimes faster.
            if any && self.dev.0.rng.borrow_mut().random_bool(0.5) {
                continue;
            }
            let completed = self.dev.complete_one();
            assert!(
                any || completed,
                "deadlock: nothing is woken and no request in flight"
            );
            if completed && let Some(step) = &mut *self.on_step.borrow_mut() {
                step();
            }
        }
    }

    fn poll_woken(&self) -> bool {
        let mut any = false;
        let count = self.tasks.borrow().len();
        for i in 0..count {
            let woken = self.tasks.borrow()[i].woken.clone();
            if !woken.0.swap(false, Ordering::Relaxed) {
                continue;
            }
            let future = self.tasks.borrow_mut()[i].future.take();
            let Some(mut future) = future else { continue };
            any = true;
            let waker = Waker::from(woken);
            if future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
            {
                self.tasks.borrow_mut()[i].future = Some(future);
            }
        }
        any
    }
}

pub(crate) const ENGINE: Uuid = Uuid::from_u128(0xe);
pub(crate) const POOL: Uuid = Uuid::from_u128(0x9001);
pub(crate) const CONT: Uuid = Uuid::from_u128(0xc047);

pub(crate) fn format_options() -> FormatOptions {
    FormatOptions {
        engine: ENGINE,
        store: Uuid::from_u128(0x570e),
        target: 1,
        targets: 4,
        log_half_bytes: Some(128 << 10),
        force: false,
    }
}

pub(crate) fn format(dev: &SimDev, options: FormatOptions) -> Result<Superblock, StoreError> {
    let dev2 = dev.clone();
    Sim::new(dev.clone()).run(async move { Store::format(dev2, &options).await })
}

/// Opens the store of a device and spawns its tasks.
pub(crate) fn open_with(
    sim: &Sim,
    options: OpenOptions,
) -> Result<(Store<SimDev>, OpenReport), StoreError> {
    let dev = sim.dev.clone();
    let (store, report, tasks) = sim.run(async move { Store::open(dev, &options).await })?;
    for task in tasks {
        sim.spawn(task);
    }
    Ok((store, report))
}

/// Opens the store of a device as the next process would: what the one before had asked for is done.
pub(crate) fn open(dev: &SimDev) -> Result<(Sim, Store<SimDev>, OpenReport), StoreError> {
    while dev.complete_one() {}
    let sim = Sim::new(dev.clone());
    let (store, report) = open_with(&sim, OpenOptions::default())?;
    Ok((sim, store, report))
}

/// A formatted device with one pool and one container.
pub(crate) fn fresh(units: u64, block_size: u32, seed: u64) -> (Sim, Store<SimDev>) {
    let dev = SimDev::new(units, block_size, seed);
    format(&dev, format_options()).unwrap();
    let (sim, store, _) = open(&dev).unwrap();
    let s = store.clone();
    sim.run(async move { add_container(&s).await });
    (sim, store)
}

pub(crate) async fn add_container(store: &Store<SimDev>) {
    let quota = store.space().unpromised;
    let pool = obj_store::PoolInfo {
        uuid: POOL,
        label: "p".into(),
        quota,
        used: 0,
        created: 1,
    };
    store.create_pool(&pool).await.unwrap();
    let cont = obj_store::ContainerInfo {
        uuid: CONT,
        pool: POOL,
        label: "c".into(),
        created: 2,
    };
    store.create_container(&cont).await.unwrap();
}
