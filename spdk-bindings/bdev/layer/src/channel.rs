//! A thread's way to a device: polls it, routes completions, and outlives its users until the last I/O is back.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::task::Waker;
use std::rc::Rc;
use std::sync::Arc;

use spdk_env::DmaBuf;
use spdk_thread::{FdWatch, Interest, IoChannel, IoDevice, Period, PollResult, Poller, Thread};

use crate::health::{Counters, HealthBook};
use crate::life::{End, EndWatch};
use crate::operation::{Operation, Operations, ROUTE};
use crate::queue::Limits;
use crate::registry::{Mode, Opened};
use crate::table::{IoTable, Lane, Origin};
use crate::{
    Bdev, BdevChannel, BdevError, BdevErrorKind, Completion, CompletionSink, Geometry, IoQueue,
    Request, SlowIos,
};

/// Futures of one channel that are at the device at once; more wait in line.
const MAX_OPERATIONS: u32 = 256;

/// What all holders of one thread's channel share.
pub(crate) struct Core {
    name: Arc<str>,
    state: RefCell<State>,
    block_size: u32,
    operations: Operations,
    capacity: u32,
    /// Sum of the depths of the lanes.
    reserved: Cell<u32>,
    /// At the device.
    outstanding: Cell<u32>,
    counters: Arc<Counters>,
    /// Who hears of slow I/Os, and the nanoseconds from which on they are.
    slow: Option<SlowIos>,
    slow_after: u64,
    end: Arc<End>,
    poller: RefCell<Option<Poller>>,
    /// Keeps the device's descriptor in the reactor's set.
    watch: RefCell<Option<FdWatch>>,
    /// Whether finished I/Os wake the thread.
    wakes: bool,
    /// What the poller was last told: true when the reactor may sleep without polling us.
    interrupt_mode: Cell<bool>,
    closing: Cell<bool>,
    /// Descriptors whose holders have gone while I/O was outstanding: they stay open until it is back.
    draining: RefCell<Vec<Arc<Opened>>>,
    thread: Thread,
}

/// What submitting, polling and reaping change.
struct State {
    device: Box<dyn BdevChannel>,
    table: IoTable,
}

impl Core {
    fn start(facts: &Facts, thread: &Thread) -> Result<Rc<Core>, BdevError> {
        let device = facts.bdev.create_channel(thread)?;
        let capacity = device.capacity();
        let depth = MAX_OPERATIONS.min(capacity / 2).max(1);
        let watch = device
            .wake_fd()
            .map(|fd| thread.watch_fd(fd, Interest::READABLE));
        let wakes = watch.is_some() || device.wakes_by_carrier();
        let mut table = IoTable::default();
        // Route 0: the first lane.
        table.add_lane(depth);
        let core = Rc::new(Core {
            name: Arc::clone(&facts.name),
            state: RefCell::new(State { device, table }),
            block_size: facts.bdev.geometry().block_size,
            operations: Operations::new(depth),
            capacity,
            reserved: Cell::new(depth),
            outstanding: Cell::new(0),
            counters: facts.health.join(),
            slow: facts.health.slow.clone(),
            slow_after: SlowIos::limit(facts.health.slow.as_ref()),
            end: Arc::clone(&facts.end),
            poller: RefCell::new(None),
            wakes,
            watch: RefCell::new(watch),
            interrupt_mode: Cell::new(true),
            closing: Cell::new(false),
            draining: RefCell::default(),
            thread: thread.clone(),
        });
        let polled = Rc::clone(&core);
        let poller = thread.register_poller("bdev", Period::EveryTurn, move |now| polled.poll(now));
        poller.set_interrupt_mode(true);
        *core.poller.borrow_mut() = Some(poller);
        Ok(core)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the device was taken out of use, or is gone.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.end.is_over()
    }

    pub(crate) fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Gives a checked request to the device; gives it back when its lane is full.
    #[inline]
    pub(crate) fn submit(&self, route: u32, request: Request) -> Result<(), Request> {
        let State { device, table } = &mut *self.state.borrow_mut();
        let origin = Origin {
            trace: self.thread.trace(),
            since: self.thread.now(),
        };
        let (tag, request) = table.put(route, request, origin)?;
        device.submit(tag, request);
        self.outstanding.set(self.outstanding.get() + 1);
        if self.interrupt_mode.get() {
            self.start_polling();
        }
        Ok(())
    }

    /// What came for a queue.
    #[inline]
    pub(crate) fn pop(&self, route: u32) -> Option<Completion> {
        let found = self.take(route);
        if found.is_none() && self.state.borrow().device.has_finished() {
            self.poll(self.thread.now());
            return self.take(route);
        }
        found
    }

    #[inline]
    fn take(&self, route: u32) -> Option<Completion> {
        self.state.borrow_mut().table.pop(route)
    }

    pub(crate) fn lane<R>(&self, route: u32, f: impl FnOnce(&mut Lane) -> R) -> R {
        f(self.state.borrow_mut().table.lane(route))
    }

    /// The first I/O after a rest: the poller may have had its call in this turn, so make sure of another turn.
    #[cold]
    fn start_polling(&self) {
        self.set_interrupt_mode(false);
        // Refused only when the thread exits or is full of tasks; then it is busy, or polls us within its idle goal.
        if let Ok(task) = self.thread.spawn("bdev start", async {}) {
            task.detach();
        }
    }

    /// The channel's poller. Stays in polling mode for one turn after its last I/O, so that a steady trickle of single
    /// I/Os does not switch back and forth.
    #[inline]
    fn poll(&self, now: u64) -> PollResult {
        if self.outstanding.get() == 0 {
            if !self.interrupt_mode.get() {
                self.set_interrupt_mode(true);
            }
            return PollResult::Idle;
        }
        if self.wakes
            && let Some(watch) = &*self.watch.borrow()
        {
            // Taken in every turn: a flag that nobody takes would stop the reactor from listening.
            if watch.take_readable() {
                self.state.borrow_mut().device.clear_wake();
            }
        }
        let (done, progressed) = self.poll_device(now);
        if done > 0 {
            self.outstanding.set(self.outstanding.get() - done);
            self.settle();
        }
        if self.outstanding.get() == 0 {
            self.draining.borrow_mut().clear();
            if self.closing.get() {
                self.stop();
            }
        } else if self.wakes {
            let interrupt = !self.state.borrow().device.needs_poll();
            if interrupt != self.interrupt_mode.get() {
                self.set_interrupt_mode(interrupt);
            }
        }
        if done > 0 || progressed {
            PollResult::Busy
        } else {
            PollResult::Idle
        }
    }

    #[inline]
    fn poll_device(&self, now: u64) -> (u32, bool) {
        let State { device, table } = &mut *self.state.borrow_mut();
        let mut sink = CompletionSink::new(table, now, self.slow_after);
        device.poll(now, &mut sink);
        let (tally, progressed, slow) = sink.into_parts();
        if !slow.is_empty() {
            self.tell_slow(&slow, table, now);
        }
        let done = tally.total();
        if done > 0 {
            self.counters.publish(&tally, self.block_size);
        }
        (done, progressed)
    }

    /// Before their users take them out.
    #[cold]
    fn tell_slow(&self, tags: &[u32], table: &IoTable, now: u64) {
        if let Some(slow) = &self.slow {
            tags.iter()
                .for_each(|tag| (slow.tell)(&table.ended(*tag, &self.name, now)));
        }
    }

    /// With I/O outstanding that no descriptor announces, the reactor must not sleep past its idle goal.
    fn set_interrupt_mode(&self, on: bool) {
        self.interrupt_mode.set(on);
        if let Some(poller) = &*self.poller.borrow() {
            poller.set_interrupt_mode(on);
        }
    }

    /// Passes on what a poll has put into the lanes.
    fn settle(&self) {
        while let Some(completion) = self.take(ROUTE) {
            self.operations.finish(completion);
        }
        let lanes = self.state.borrow().table.lanes() as u32;
        for route in ROUTE + 1..lanes {
            let table = &mut self.state.borrow_mut().table;
            let waker = table.take_waker(route);
            self.reserved
                .set(self.reserved.get() - table.clear_abandoned(route));
            // Waking only queues the task: it cannot come back here.
            waker.into_iter().for_each(Waker::wake);
        }
    }

    fn reserve(&self, depth: u32) -> Result<u32, BdevError> {
        let free = self.capacity.saturating_sub(self.reserved.get());
        if depth == 0 || depth > free {
            let (device, capacity) = (self.name().to_owned(), self.capacity);
            return Err(BdevErrorKind::QueueDepth {
                device,
                asked: depth,
                free,
                capacity,
            }
            .into());
        }
        self.reserved.set(self.reserved.get() + depth);
        Ok(self.state.borrow_mut().table.add_lane(depth))
    }

    /// The queue of `route` is gone.
    pub(crate) fn abandon(&self, route: u32) {
        let freed = self.state.borrow_mut().table.abandon(route);
        self.reserved.set(self.reserved.get() - freed);
    }

    fn close(&self) {
        self.closing.set(true);
        if self.outstanding.get() == 0 {
            self.stop();
        }
    }

    /// A holder goes. Its claim on the device must outlast its I/O.
    fn leave(&self, opened: &Arc<Opened>) {
        if self.outstanding.get() > 0 {
            let mut draining = self.draining.borrow_mut();
            if !draining.iter().any(|other| Arc::ptr_eq(other, opened)) {
                draining.push(Arc::clone(opened));
            }
        }
    }

    /// Ends the polling, and with it the device's channel: the poller holds the last reference.
    fn stop(&self) {
        self.watch.borrow_mut().take();
        let poller = self.poller.borrow_mut().take();
        drop(poller);
    }
}

/// The thread's reference to its channel: the thread drops it with the last [`Channel`].
pub(crate) struct ChannelCore(Rc<Core>);

impl Drop for ChannelCore {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What channels of one life of a device are made of.
pub(crate) struct Facts {
    pub(crate) name: Arc<str>,
    pub(crate) health: Arc<HealthBook>,
    pub(crate) bdev: Arc<dyn Bdev>,
    pub(crate) end: Arc<End>,
}

pub(crate) fn io_device(facts: Facts) -> IoDevice<ChannelCore> {
    let name = Arc::clone(&facts.name);
    IoDevice::new(&name, move |thread: &Thread| {
        Core::start(&facts, thread)
            .map(ChannelCore)
            .map_err(|why| why.to_string())
    })
}

/// A thread's channel on a device (SPDK: `struct spdk_io_channel` from `spdk_bdev_get_io_channel`). Own thread only; clones
/// are references.
///
/// Its futures do one I/O each. At most 256 of them (or half of what the device takes) are at the device at once; later ones wait in
/// line. A future that is dropped detaches: the device finishes with the buffer, which is then freed.
#[derive(Clone)]
pub struct Channel {
    io: IoChannel<ChannelCore>,
    limits: Limits,
    opened: Arc<Opened>,
}

impl Channel {
    pub(crate) fn new(io: IoChannel<ChannelCore>, opened: Arc<Opened>) -> Channel {
        let limits = Limits::new(&opened.entry.geometry, opened.mode == Mode::ReadOnly);
        Channel { io, limits, opened }
    }

    fn core(&self) -> &Rc<Core> {
        &self.io.0
    }

    /// Size, shape and abilities of the device.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.opened.entry.geometry
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.core().name()
    }

    /// To hear when the device is evicted or removed: this channel, its queues and all others made before refuse I/O from then on. Who
    /// wants to go on drops them and asks the descriptor for a new one, once the device is back.
    #[must_use]
    pub fn watch_end(&self) -> EndWatch {
        EndWatch::new(&self.core().end)
    }

    /// I/Os of all holders that are at the device.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.core().outstanding.get()
    }

    /// A lane of its own for `depth` I/Os: the fast path.
    ///
    /// # Errors
    /// [`BdevErrorKind::QueueDepth`] when the device's channel cannot carry that many more, or for 0.
    pub fn queue(&self, depth: u32) -> Result<IoQueue, BdevError> {
        let route = self.core().reserve(depth)?;
        Ok(IoQueue::new(
            self.clone(),
            Rc::clone(self.core()),
            route,
            depth,
            self.limits,
        ))
    }

    async fn run(&self, request: Request) -> (Result<(), BdevError>, Option<DmaBuf>) {
        Operation::new(Rc::clone(self.core()), self.limits, request).await
    }

    /// Reads `blocks` blocks from `lba` into `buf`, which comes back in any case.
    pub async fn read(
        &self,
        lba: u64,
        blocks: u32,
        buf: DmaBuf,
    ) -> (Result<(), BdevError>, DmaBuf) {
        let (result, buf) = self.run(Request::read(lba, blocks, buf)).await;
        (result, buf.unwrap_or_else(DmaBuf::empty))
    }

    /// Writes `blocks` blocks of `buf` to `lba`; with `fua` durable before it completes. The buffer comes back in any case.
    pub async fn write(
        &self,
        lba: u64,
        blocks: u32,
        buf: DmaBuf,
        fua: bool,
    ) -> (Result<(), BdevError>, DmaBuf) {
        let (result, buf) = self
            .run(Request {
                fua,
                ..Request::write(lba, blocks, buf)
            })
            .await;
        (result, buf.unwrap_or_else(DmaBuf::empty))
    }

    /// Zeroes `blocks` blocks from `lba`.
    ///
    /// # Errors
    /// [`BdevErrorKind::Rejected`], [`BdevErrorKind::Io`].
    pub async fn write_zeroes(&self, lba: u64, blocks: u32) -> Result<(), BdevError> {
        self.run(Request::write_zeroes(lba, blocks)).await.0
    }

    /// Gives `blocks` blocks from `lba` back to the device; see [`Geometry::unmap_zeroes`] for what they read as.
    ///
    /// # Errors
    /// [`BdevErrorKind::Rejected`], [`BdevErrorKind::Io`].
    pub async fn unmap(&self, lba: u64, blocks: u32) -> Result<(), BdevError> {
        self.run(Request::unmap(lba, blocks)).await.0
    }

    /// Makes every write that completed before this call, on any thread, survive power loss.
    ///
    /// # Errors
    /// [`BdevErrorKind::Io`].
    pub async fn flush(&self) -> Result<(), BdevError> {
        self.run(Request::flush()).await.0
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.core().leave(&self.opened);
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("device", &self.name())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}
