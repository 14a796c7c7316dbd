//! [`Controller`]: one device, as its owner sees it.

use core::cell::{Cell, OnceCell, RefCell};
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use nvme_spec::IdentifyController;
use nvme_spec::feature::AsyncEvent;
use nvme_spec::log::{ErrorLogEntry, FirmwareSlots, SmartLog, TelemetryHeader};
use spdk_env::DeviceBacking;

use crate::admin::{Admin, AdminQueue};
use crate::error::NvmeErrorKind;
use crate::life;
use crate::queue_pair::QueueSeed;
use crate::shared::{End, Shared};
use crate::{Namespace, NvmeError, Options, ResetReason};

/// Events that wait to be taken; the oldest are dropped beyond that.
const MAX_EVENTS: usize = 256;

/// Where a controller is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControllerState {
    /// Being brought up for the first time.
    Starting,
    /// Takes I/O.
    Ready,
    /// Being reset; I/O waits.
    Resetting,
    /// Over: gone, or given up.
    Failed(NvmeError),
    /// Over, in order.
    ShutDown,
}

/// What happened to a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A reset begins.
    ResetStarted(ResetReason),
    /// I/O goes on.
    ResetDone,
    /// The device is gone.
    Removed,
    /// The controller was given up.
    Failed(NvmeError),
    /// The shutdown is complete.
    ShutDown,
    /// A namespace appeared.
    NamespaceAdded(Namespace),
    /// A namespace has another size or format.
    NamespaceChanged(Namespace),
    /// A namespace is gone.
    NamespaceRemoved(u32),
    /// The health log has a warning.
    Health(AsyncEvent, Box<SmartLog>),
    /// The device reports an error of its own or of the driver's.
    DeviceError(AsyncEvent),
    /// Any other event.
    Notice(AsyncEvent),
}

type Job = Pin<Box<dyn Future<Output = ()>>>;

/// What the futures of a controller share.
pub(crate) struct Inner<B: DeviceBacking> {
    pub(crate) backing: Arc<B>,
    pub(crate) options: Options,
    pub(crate) admin: Admin<B>,
    pub(crate) shared: OnceCell<Arc<Shared<B>>>,
    pub(crate) state: RefCell<ControllerState>,
    pub(crate) identity: RefCell<Option<IdentifyController>>,
    pub(crate) namespaces: RefCell<Vec<Namespace>>,
    pub(crate) shutdown_wanted: Cell<bool>,
    /// The owner says that the device is to go.
    pub(crate) removal_wanted: Cell<bool>,
    /// Aborts at the device.
    pub(crate) aborts: Cell<u32>,
    /// A queue is being deleted and made anew.
    pub(crate) recycling: Cell<bool>,
    /// The device reaches no memory.
    pub(crate) stopped: Cell<bool>,
    events: RefCell<VecDeque<Event>>,
    jobs: RefCell<Vec<Job>>,
    polls: Cell<u64>,
}

impl<B: DeviceBacking> Inner<B> {
    pub(crate) fn address(&self) -> &str {
        self.backing.address()
    }

    pub(crate) fn now(&self) -> u64 {
        self.admin.now.get()
    }

    pub(crate) fn emit(&self, event: Event) {
        let mut events = self.events.borrow_mut();
        if events.len() == MAX_EVENTS {
            events.pop_front();
        }
        events.push_back(event);
    }

    pub(crate) fn spawn(&self, job: Job) {
        self.jobs.borrow_mut().push(job);
    }

    /// Waits for the next poll of the controller.
    pub(crate) async fn next_poll(&self) {
        let before = self.polls.get();
        core::future::poll_fn(|_| {
            if self.polls.get() == before {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }
}

/// An NVMe controller (SPDK: `struct spdk_nvme_ctrlr`). `!Send`: the thread that makes it polls it; queue pairs go to other threads
/// as [`QueueSeed`]s.
///
/// It moves only in [`Controller::poll`], every few milliseconds: bring-up, events, aborts, resets. I/O does not pass through it.
/// Dropped without [`Controller::shut_down`], it cuts the device off from memory; I/O that is out fails.
pub struct Controller<B: DeviceBacking> {
    inner: Rc<Inner<B>>,
    life: Option<Job>,
}

impl<B: DeviceBacking> Controller<B> {
    /// A controller that has not been touched yet; polls bring it up.
    ///
    /// # Errors
    /// When there is no memory for the admin queue.
    pub fn new(backing: Arc<B>, options: Options) -> Result<Controller<B>, NvmeError> {
        let admin = AdminQueue::new(Arc::clone(&backing))
            .map_err(|error| NvmeErrorKind::from(error).of(backing.address()))?;
        let inner = Rc::new(Inner {
            backing,
            options,
            admin: Rc::new(admin),
            shared: OnceCell::new(),
            state: RefCell::new(ControllerState::Starting),
            identity: RefCell::default(),
            namespaces: RefCell::default(),
            shutdown_wanted: Cell::new(false),
            removal_wanted: Cell::new(false),
            aborts: Cell::new(0),
            recycling: Cell::new(false),
            stopped: Cell::new(false),
            events: RefCell::default(),
            jobs: RefCell::default(),
            polls: Cell::new(0),
        });
        let life: Job = Box::pin(life::live(Rc::clone(&inner)));
        Ok(Controller {
            inner,
            life: Some(life),
        })
    }

    /// Moves on. `now` in ns, never going back.
    pub fn poll(&mut self, now: u64) {
        let inner = &self.inner;
        inner.admin.now.set(now);
        inner.polls.set(inner.polls.get().wrapping_add(1));
        inner.admin.poll();
        let mut cx = Context::from_waker(Waker::noop());
        if let Some(life) = &mut self.life
            && life.as_mut().poll(&mut cx).is_ready()
        {
            self.life = None;
        }
        let mut jobs = core::mem::take(&mut *inner.jobs.borrow_mut());
        jobs.retain_mut(|job| job.as_mut().poll(&mut cx).is_pending());
        // Those that were started meanwhile come after those that were there.
        let mut started = inner.jobs.borrow_mut();
        jobs.append(&mut started);
        *started = jobs;
    }

    /// Polls until a question is answered; `turn` is called between polls, to let time pass (and an emulated device step), and returns the time.
    ///
    /// # Errors
    /// What the question says.
    pub fn drive<T>(
        &mut self,
        question: impl Future<Output = Result<T, NvmeError>>,
        mut turn: impl FnMut() -> u64,
    ) -> Result<T, NvmeError> {
        let mut question = core::pin::pin!(question);
        loop {
            self.poll(turn());
            if let Poll::Ready(answer) = question
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
            {
                return answer;
            }
        }
    }

    /// Polls until the controller is up.
    ///
    /// # Errors
    /// Why it did not come up.
    pub fn attach(&mut self, mut turn: impl FnMut() -> u64) -> Result<(), NvmeError> {
        loop {
            match self.state() {
                ControllerState::Ready => return Ok(()),
                ControllerState::Failed(error) => return Err(error),
                ControllerState::ShutDown => {
                    return Err(NvmeErrorKind::NotUp("it was shut down").of(self.inner.address()));
                }
                ControllerState::Starting | ControllerState::Resetting => self.poll(turn()),
            }
        }
    }

    /// Where it is in its life.
    #[must_use]
    pub fn state(&self) -> ControllerState {
        self.inner.state.borrow().clone()
    }

    /// The oldest event that was not taken. Beyond 256 the oldest are lost.
    pub fn take_event(&mut self) -> Option<Event> {
        self.inner.events.borrow_mut().pop_front()
    }

    /// What the controller says about itself, once it was up.
    #[must_use]
    pub fn identity(&self) -> Option<IdentifyController> {
        self.inner.identity.borrow().clone()
    }

    /// Its active namespaces, those that cannot be used included.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Namespace> {
        self.inner.namespaces.borrow().clone()
    }

    /// The device.
    #[must_use]
    pub fn backing(&self) -> &Arc<B> {
        &self.inner.backing
    }

    /// A queue pair that nobody has, for the thread that will drive it.
    ///
    /// # Errors
    /// [`NvmeErrorKind::NoQueuePair`], [`NvmeErrorKind::NotUp`].
    pub fn queue_pair(&self) -> Result<QueueSeed<B>, NvmeError> {
        self.queue_pairs()?.take()
    }

    /// The queue pairs, for other threads to take from.
    ///
    /// # Errors
    /// [`NvmeErrorKind::NotUp`].
    pub fn queue_pairs(&self) -> Result<QueuePairs<B>, NvmeError> {
        let not_up = || NvmeErrorKind::NotUp("it was never up").of(self.inner.address());
        Ok(QueuePairs {
            shared: Arc::clone(self.inner.shared.get().ok_or_else(not_up)?),
        })
    }

    /// Asks for a reset; I/O that is out is submitted again afterwards.
    pub fn request_reset(&self) {
        if let Some(shared) = self.inner.shared.get() {
            shared.request_reset(ResetReason::Requested);
        }
    }

    /// Asks for the orderly end: queues deleted, CC.SHN, disabled. I/O that is still out fails. Poll until the state is
    /// [`ControllerState::ShutDown`].
    pub fn shut_down(&self) {
        self.inner.shutdown_wanted.set(true);
    }

    /// The device is about to be taken away ([`DeviceBacking::removal_fd`]): lets go of it, as if it were gone already. I/O that is out fails.
    pub fn give_up_device(&self) {
        self.inner.removal_wanted.set(true);
    }

    /// SMART / health log.
    pub fn smart_log(&self) -> impl Future<Output = Result<SmartLog, NvmeError>> + use<B> {
        let inner = Rc::clone(&self.inner);
        async move {
            inner
                .smart()
                .await
                .map_err(|error| error.of(inner.address()))
        }
    }

    /// The newest entries of the error log (up to 64).
    pub fn error_log(
        &self,
    ) -> impl Future<Output = Result<Vec<ErrorLogEntry>, NvmeError>> + use<B> {
        let inner = Rc::clone(&self.inner);
        async move {
            inner
                .errors()
                .await
                .map_err(|error| error.of(inner.address()))
        }
    }

    /// Firmware slots.
    pub fn firmware_slots(
        &self,
    ) -> impl Future<Output = Result<FirmwareSlots, NvmeError>> + use<B> {
        let inner = Rc::clone(&self.inner);
        async move {
            inner
                .firmware()
                .await
                .map_err(|error| error.of(inner.address()))
        }
    }

    /// What telemetry the controller has collected; `None` where it does not collect any.
    pub fn telemetry(
        &self,
    ) -> impl Future<Output = Result<Option<TelemetryHeader>, NvmeError>> + use<B> {
        let inner = Rc::clone(&self.inner);
        async move {
            inner
                .telemetry()
                .await
                .map_err(|error| error.of(inner.address()))
        }
    }
}

impl<B: DeviceBacking> Drop for Controller<B> {
    fn drop(&mut self) {
        self.inner.admin.close();
        self.life = None;
        self.inner.jobs.borrow_mut().clear();
        let over = matches!(
            *self.inner.state.borrow(),
            ControllerState::Failed(_) | ControllerState::ShutDown
        );
        if !over {
            self.inner.stop(End::Failed);
        }
    }
}

impl<B: DeviceBacking> Drop for Inner<B> {
    fn drop(&mut self) {
        if !self.stopped.get() {
            self.admin.keep_for_ever();
        }
    }
}

/// The queue pairs of a controller. `Clone + Send + Sync`: any thread takes one for itself.
pub struct QueuePairs<B: DeviceBacking> {
    shared: Arc<Shared<B>>,
}

impl<B: DeviceBacking> Clone for QueuePairs<B> {
    fn clone(&self) -> QueuePairs<B> {
        QueuePairs {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<B: DeviceBacking> QueuePairs<B> {
    /// One that nobody has.
    ///
    /// # Errors
    /// [`NvmeErrorKind::NoQueuePair`].
    pub fn take(&self) -> Result<QueueSeed<B>, NvmeError> {
        let queues = self.shared.queues();
        let free = queues
            .iter()
            .find(|queue| !queue.taken.swap(true, Ordering::AcqRel));
        let Some(queue) = free else {
            return Err(NvmeErrorKind::NoQueuePair {
                count: queues.len() as u16,
                granted: self.shared.granted,
            }
            .of(self.shared.backing.address()));
        };
        Ok(QueueSeed {
            shared: Arc::clone(&self.shared),
            queue: Arc::clone(queue),
        })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.queues().len()
    }

    /// Longest transfer of one command in bytes.
    #[must_use]
    pub fn max_transfer(&self) -> u32 {
        self.shared.max_transfer
    }

    /// Retries, time-outs and nonsense of all queue pairs since attach.
    #[must_use]
    pub fn troubles(&self) -> Troubles {
        let sum = |pick: fn(&crate::shared::Counters) -> &core::sync::atomic::AtomicU64| {
            self.shared
                .queues()
                .iter()
                .map(|queue| pick(&queue.counters).load(Ordering::Relaxed))
                .sum()
        };
        Troubles {
            retries: sum(|c| &c.retries),
            timeouts: sum(|c| &c.timeouts),
            nonsense: sum(|c| &c.nonsense),
            lost: sum(|c| &c.lost),
        }
    }
}

/// What went wrong on the queue pairs of a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Troubles {
    /// Commands tried again.
    pub retries: u64,
    /// Commands whose time was over.
    pub timeouts: u64,
    /// Completions that made no sense.
    pub nonsense: u64,
    /// Commands that failed because no abort and no reset brought them back in time.
    pub lost: u64,
}
