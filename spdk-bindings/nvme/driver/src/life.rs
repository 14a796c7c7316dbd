//! The life of a controller, as one future: bring up, serve, reset, end.

use core::sync::atomic::Ordering;
use std::rc::Rc;
use std::sync::Arc;

use nvme_spec::feature::AsyncEvent;
use nvme_spec::opcode::admin;
use nvme_spec::register::{self, Configuration, ControllerStatus};
use nvme_spec::{Command, log};
use spdk_env::DeviceBacking;
use spdk_env::mmio::RegisterWindow;

use crate::admin::AdminError;
use crate::controller::{ControllerState, Event, Inner};
use crate::error::NvmeErrorKind;
use crate::options::MS;
use crate::shared::{End, Phase, QueueShared, State};
use crate::{Namespace, ResetReason};

/// Asynchronous event requests that are kept at the device.
const EVENT_REQUESTS: usize = 4;

/// The longest wait for CSTS.SHST where the controller names none or more.
const SHUTDOWN_LIMIT: u64 = 10_000 * MS;

/// What ends a time of service.
enum Ending {
    Reset(ResetReason),
    Removed,
    ShutDown,
}

pub(crate) async fn live<B: DeviceBacking>(inner: Rc<Inner<B>>) {
    if let Err(error) = inner.bring_up().await {
        return inner.over(error);
    }
    let mut generation = 0;
    loop {
        inner.running(generation);
        let reason = match inner.serve().await {
            Ending::Removed => return inner.over(NvmeErrorKind::Gone),
            Ending::ShutDown => return inner.shut_down_device().await,
            Ending::Reset(reason) => reason,
        };
        tracing::warn!(device = inner.address(), ?reason, "controller reset");
        inner.emit(Event::ResetStarted(reason));
        inner.state.replace(ControllerState::Resetting);
        if let Err(error) = inner.reset(generation).await {
            return inner.over(error);
        }
        generation += 1;
        inner.emit(Event::ResetDone);
    }
}

impl<B: DeviceBacking> Inner<B> {
    fn is_gone(&self) -> bool {
        self.removal_wanted.get() || self.backing.is_removed()
    }

    fn running(self: &Rc<Self>, generation: u32) {
        let Some(shared) = self.shared.get() else {
            return;
        };
        shared.clear_reset();
        shared.set_phase(Phase::new(State::Running, generation));
        self.state.replace(ControllerState::Ready);
        let limit = self
            .identity
            .borrow()
            .as_ref()
            .map_or(0, |id| usize::from(id.async_event_limit));
        for _ in 0..EVENT_REQUESTS.min(limit + 1) {
            let inner = Rc::clone(self);
            self.spawn(Box::pin(async move { inner.listen().await }));
        }
    }

    /// Runs while all is well: looks at CSTS, does what queue pairs ask for.
    async fn serve(self: &Rc<Self>) -> Ending {
        let Some(shared) = self.shared.get() else {
            return Ending::Removed;
        };
        // A command that never completes never interrupts: queue pairs that sleep are woken often enough to look at the time.
        let beat = self.options.io_timeout.min(self.options.abort_timeout) / 8;
        let mut next_beat = self.now();
        loop {
            if self.now() >= next_beat {
                next_beat = self.now().saturating_add(beat);
                let is_active =
                    |queue: &&Arc<QueueShared>| queue.active.load(Ordering::Relaxed) == 1;
                shared
                    .queues()
                    .iter()
                    .filter(is_active)
                    .for_each(|queue| queue.wake());
            }
            let csts = self.registers().read32(register::CSTS);
            if csts == register::ABSENT || self.is_gone() {
                return Ending::Removed;
            }
            if self.shutdown_wanted.get() {
                return Ending::ShutDown;
            }
            if ControllerStatus(csts).cfs() == 1 {
                shared.request_reset(ResetReason::Fatal);
            } else if ControllerStatus(csts).rdy() == 0 {
                // Not by us: the subsystem was reset.
                shared.request_reset(ResetReason::Fatal);
            }
            if self.admin.timed_out.get() {
                shared.request_reset(ResetReason::AdminTimeout);
            }
            if self.admin.nonsense.replace(0) > 0 {
                shared.request_reset(ResetReason::Nonsense);
            }
            if let Some(reason) = shared.reset_wanted() {
                return Ending::Reset(reason);
            }
            for queue in shared.queues() {
                self.look_after(queue);
            }
            self.next_poll().await;
        }
    }

    /// Aborts what a queue pair asks for; makes the queue of a dropped one anew.
    fn look_after(self: &Rc<Self>, queue: &Arc<QueueShared>) {
        let word = queue.abort.load(Ordering::Acquire);
        let limit = self
            .identity
            .borrow()
            .as_ref()
            .map_or(0, |id| u32::from(id.abort_limit));
        if word != 0 && self.aborts.get() <= limit {
            queue.abort.store(0, Ordering::Release);
            self.aborts.set(self.aborts.get() + 1);
            let (inner, id) = (Rc::clone(self), queue.id);
            self.spawn(Box::pin(async move {
                tracing::warn!(
                    device = inner.address(),
                    queue = id,
                    cid = word as u16,
                    "command timed out: aborting it"
                );
                // What became of it shows in the command's own completion, or in its next time-out.
                let _ = inner
                    .command("abort", Command::abort(id, word as u16))
                    .await;
                inner.aborts.set(inner.aborts.get().saturating_sub(1));
            }));
        }
        if queue.has_orphans.load(Ordering::Acquire) && !self.recycling.replace(true) {
            let (inner, queue) = (Rc::clone(self), Arc::clone(queue));
            self.spawn(Box::pin(async move {
                let done = match inner.delete_queue(&queue).await {
                    Ok(()) => inner.create_queue(&queue).await,
                    Err(error) => Err(error),
                };
                if let (Err(_), Some(shared)) = (done, inner.shared.get()) {
                    shared.request_reset(ResetReason::AdminTimeout);
                }
                inner.recycling.set(false);
            }));
        }
    }

    /// Stops I/O, disables the device, waits for the queue pairs to let go, and brings the device up again.
    async fn reset(&self, generation: u32) -> Result<(), NvmeErrorKind> {
        let Some(shared) = self.shared.get() else {
            return Err(NvmeErrorKind::Gone);
        };
        let phase = Phase::new(State::Resetting, generation);
        shared.set_phase(phase);
        self.aborts.set(0);
        let mut failed = NvmeErrorKind::Gone;
        for _ in 0..self.options.reset_attempts.max(1) {
            match self.reset_once(phase).await {
                Ok(()) => return Ok(()),
                Err(NvmeErrorKind::Gone) => return Err(NvmeErrorKind::Gone),
                Err(error) => {
                    tracing::error!(device = self.address(), "reset failed: {error}");
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    async fn reset_once(&self, phase: Phase) -> Result<(), NvmeErrorKind> {
        // Disabled first: it does no more harm while slow threads let go.
        self.disable().await?;
        let Some(shared) = self.shared.get() else {
            return Err(NvmeErrorKind::Gone);
        };
        let mut warned = false;
        let patience = self.now().saturating_add(5_000 * MS);
        while let Some(queue) = shared
            .queues()
            .iter()
            .find(|queue| !queue.has_let_go(phase))
        {
            if !warned && self.now() >= patience {
                warned = true;
                tracing::error!(
                    device = self.address(),
                    queue = queue.id,
                    "a thread does not let go of its queue: the reset waits for it"
                );
            }
            if self.is_gone() {
                return Err(NvmeErrorKind::Gone);
            }
            self.next_poll().await;
        }
        for queue in shared.queues() {
            queue.abort.store(0, Ordering::Release);
        }
        self.recycling.set(false);
        self.bring_up().await
    }

    /// The end, other than by shutdown.
    fn over(&self, error: NvmeErrorKind) {
        self.admin.close();
        let (end, event) = match error {
            NvmeErrorKind::Gone => (End::Removed, Event::Removed),
            _ => (End::Failed, Event::Failed(error.clone().of(self.address()))),
        };
        tracing::error!(device = self.address(), "controller is over: {error}");
        self.stop(end);
        self.state
            .replace(ControllerState::Failed(error.of(self.address())));
        self.emit(event);
    }

    /// Makes sure that the device reaches no memory, and tells the queue pairs.
    pub(crate) fn stop(&self, end: End) {
        let cut_off = match self.stopped.get() {
            true => Ok(()),
            false => self.backing.isolate(),
        };
        let safe = cut_off.is_ok();
        self.stopped.set(safe);
        match cut_off {
            Ok(()) => self.admin.release(),
            Err(error) => tracing::error!(
                device = self.address(),
                %error,
                "the device could not be cut off: memory that it was given stays lost"
            ),
        }
        if let Some(shared) = self.shared.get() {
            shared.set_end(end, safe);
        }
    }

    /// Deletes the queues, notifies the device, disables it.
    async fn shut_down_device(&self) {
        if let Some(shared) = self.shared.get() {
            // I/O that is still out fails below; nothing new is started.
            let phase = Phase::new(State::Resetting, shared.phase().generation());
            shared.set_phase(phase);
            for queue in shared.queues() {
                if self.delete_queue(queue).await.is_err() {
                    break;
                }
            }
        }
        let cc = Configuration(self.registers().read32(register::CC));
        self.registers()
            .write32(register::CC, cc.with_shn(register::SHN_NORMAL).0);
        let reported = self
            .identity
            .borrow()
            .as_ref()
            .map_or(0, |id| u64::from(id.shutdown_us) * 1000);
        let deadline = self
            .now()
            .saturating_add(reported.clamp(1_000 * MS, SHUTDOWN_LIMIT));
        loop {
            let csts = self.registers().read32(register::CSTS);
            if csts == register::ABSENT || ControllerStatus(csts).shst() == register::SHST_COMPLETE
            {
                break;
            }
            if self.now() >= deadline {
                tracing::warn!(
                    device = self.address(),
                    "the controller did not finish its shutdown in time"
                );
                break;
            }
            self.next_poll().await;
        }
        self.stopped.set(self.disable().await.is_ok());
        self.stop(End::ShutDown);
        self.state.replace(ControllerState::ShutDown);
        self.emit(Event::ShutDown);
    }

    /// One asynchronous event request after another.
    async fn listen(self: Rc<Self>) {
        loop {
            let request = Command::new(admin::ASYNC_EVENT, 0);
            match self.admin.run(request, u64::MAX).await {
                Ok(dword) => self.handle(AsyncEvent::from_dword(dword as u32)).await,
                Err(AdminError::Status(status)) => {
                    tracing::info!(device = self.address(), %status, "asynchronous event request refused");
                    return;
                }
                Err(_) => return,
            }
        }
    }

    async fn handle(&self, event: AsyncEvent) {
        if event.kind == 2 && event.info == AsyncEvent::NAMESPACE_CHANGED.info {
            // Reading the list lets the next notice through; what changed is seen by looking.
            let _ = self
                .page(
                    "get log page (changed namespaces)",
                    Command::get_log(log::CHANGED_NAMESPACES, ALL, 0, 4096, false),
                )
                .await;
            self.rescan().await;
            return;
        }
        match event.kind {
            0 => self.emit(Event::DeviceError(event)),
            1 => match self.smart().await {
                Ok(smart) => self.emit(Event::Health(event, Box::new(smart))),
                Err(error) => tracing::warn!(
                    device = self.address(),
                    "cannot read the health log: {error}"
                ),
            },
            _ => {
                if event.log != 0 {
                    let _ = self
                        .page(
                            "get log page",
                            Command::get_log(event.log, ALL, 0, 512, false),
                        )
                        .await;
                }
                self.emit(Event::Notice(event));
            }
        }
        if event.kind == 0 {
            let _ = self.errors().await;
        }
    }

    /// Compares the namespaces with what they were.
    async fn rescan(&self) {
        let Some(max_transfer) = self.shared.get().map(|shared| shared.max_transfer) else {
            return;
        };
        let found = match self.find_namespaces(max_transfer).await {
            Ok(found) => found,
            Err(error) => {
                return tracing::warn!(
                    device = self.address(),
                    "cannot look at the namespaces: {error}"
                );
            }
        };
        let before = self.namespaces.replace(found.clone());
        let same_id = |list: &[Namespace], nsid| list.iter().any(|ns: &Namespace| ns.nsid == nsid);
        for namespace in &found {
            match before.iter().find(|old| old.nsid == namespace.nsid) {
                None => self.emit(Event::NamespaceAdded(namespace.clone())),
                Some(old) if old != namespace => {
                    self.emit(Event::NamespaceChanged(namespace.clone()))
                }
                Some(_) => {}
            }
        }
        for old in before.iter().filter(|old| !same_id(&found, old.nsid)) {
            self.emit(Event::NamespaceRemoved(old.nsid));
        }
    }
}

const ALL: u32 = nvme_spec::ALL_NAMESPACES;
