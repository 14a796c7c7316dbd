//! What one xstream knows.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use module_sdk::sync::{Notify, Semaphore};
use module_sdk::{
    Counter, Der, Gauge, JoinHandle, ModuleInfo, PerXstream, Tags, TlsKey, Xs, spawn_on,
};
use obj_proto::HANDLE_LEN;
use obj_store::Store;
use uuid::Uuid;

use crate::device::Device;
use crate::failure::Failure;
use crate::handles::Handle;
use crate::keep::first;
use crate::truth::Truth;

/// An upload that neither commits nor renews for this long is aborted; a reader's pin that is not renewed ends.
pub(crate) const LEASE: Duration = Duration::from_secs(120);
/// Pools' space is told to the scheduler so often at most; it looks every 2 s.
const TELL: Duration = Duration::from_millis(500);
/// Most pins of readers on one target.
const PINS_MAX: usize = 65_536;

pub(crate) static STATE: TlsKey<State> = TlsKey::new();

/// The module's value on one xstream.
pub(crate) struct State {
    /// On a main xstream.
    pub(crate) target: Option<Rc<Target>>,
    /// On the system xstream: one change of pools and containers at a time.
    changes: Rc<Semaphore>,
    /// On the system xstream: what pools' incast variables say.
    pub(crate) truth: RefCell<Truth>,
}

impl PerXstream for State {
    const TAGS: Tags = Tags::SYSTEM.and(Tags::TARGET);

    fn new(xstream: &ModuleInfo) -> Option<Self> {
        let target = xstream.target.map(|index| Rc::new(Target::new(index)));
        Some(State {
            target,
            changes: Rc::new(Semaphore::new(1)),
            truth: RefCell::default(),
        })
    }
}

/// The lock of pools and containers.
pub(crate) fn changes() -> Rc<Semaphore> {
    STATE.with(|state| state.changes.clone())
}

/// The target of this xstream.
///
/// # Errors
/// `DER_BAD_TARGET` on the system xstream.
pub(crate) fn here() -> Result<Rc<Target>, Failure> {
    let none = || {
        Failure::new(
            Der::BAD_TARGET,
            "objects are served by targets, not by the system xstream",
        )
    };
    STATE.with(|state| state.target.clone()).ok_or_else(none)
}

/// Runs something on a target's xstream, with that target.
pub(crate) async fn on_target<T, F, Fut>(index: u32, name: &str, f: F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: FnOnce(Rc<Target>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, Failure>> + 'static,
{
    let task = spawn_on(
        Xs::Target(index),
        name,
        move || async move { f(here()?).await },
    )?;
    task.await?.map_err(|failure| failure.on(index))
}

/// Runs something on every target at once; the results in order of the target.
pub(crate) async fn on_all<T, F, Fut>(name: &str, f: F) -> Vec<Result<T, Failure>>
where
    T: Send + 'static,
    F: FnOnce(Rc<Target>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<T, Failure>> + 'static,
{
    let start = |index| {
        let f = f.clone();
        spawn_on(
            Xs::Target(index),
            name,
            move || async move { f(here()?).await },
        )
    };
    let started: Vec<_> = (0..module_sdk::targets()).map(start).collect();
    let mut results = Vec::with_capacity(started.len());
    for (index, task) in (0..).zip(started) {
        let result = match task {
            Ok(task) => task.await.map_err(Failure::from).flatten(),
            Err(der) => Err(der.into()),
        };
        results.push(result.map_err(|failure| failure.on(index)));
    }
    results
}

/// Whether the target's store is there.
#[derive(Clone)]
pub(crate) enum Slot {
    /// Setup has not come to it.
    Waiting,
    Open(Store<Device>),
    /// It could not be opened; why.
    Failed(Failure),
    Closed,
}

/// A reader that must not lose the version it reads.
struct Pin {
    version: u64,
    until: u64,
}

/// One target.
pub(crate) struct Target {
    pub(crate) index: u32,
    pub(crate) slot: RefCell<Slot>,
    pins: RefCell<HashMap<u64, Pin>>,
    next_pin: Cell<u64>,
    /// Uploads whose head is here: (container, name, version) and when they end.
    pub(crate) leases: RefCell<HashMap<(Uuid, String, u64), u64>>,
    /// Handles of containers that came with requests.
    pub(crate) handles: RefCell<HashMap<[u8; HANDLE_LEN], Rc<Handle>>>,
    /// Something is to be reclaimed, or the store closes.
    pub(crate) work: Notify,
    /// The module is being cleaned up.
    pub(crate) closing: Notify,
    /// The task that keeps the store open (`keep`).
    pub(crate) keeper: RefCell<Option<JoinHandle<()>>>,
    pub(crate) metrics: Metrics,
    /// When the scheduler was last told what pools have, ns.
    told: Cell<u64>,
}

/// What is counted per target.
pub(crate) struct Metrics {
    pub(crate) puts: Counter,
    pub(crate) gets: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) damaged: Counter,
    pub(crate) reclaimed: Counter,
    pub(crate) total: Gauge,
    pub(crate) free: Gauge,
    pub(crate) read_only: Gauge,
}

impl Metrics {
    fn new(target: u32) -> Metrics {
        let counter = |name, help| Counter::register(name, help, Some(target));
        let gauge = |name, help| Gauge::register(name, help, Some(target));
        Metrics {
            puts: counter("puts", "objects and pieces stored"),
            gets: counter("gets", "objects and pieces read"),
            bytes_in: counter("bytes_in", "bytes of data stored"),
            bytes_out: counter("bytes_out", "bytes of data read"),
            damaged: counter("checksum_errors", "reads that met damaged data"),
            reclaimed: counter(
                "reclaimed",
                "versions dropped after replacement, removal or abort",
            ),
            total: gauge("bytes_total", "bytes of the target's data region"),
            free: gauge(
                "bytes_free",
                "bytes of the data region that no object holds",
            ),
            read_only: gauge(
                "read_only",
                "1 when the target takes no changes since its log failed",
            ),
        }
    }
}

impl Target {
    fn new(index: u32) -> Target {
        Target {
            index,
            slot: RefCell::new(Slot::Waiting),
            pins: RefCell::default(),
            next_pin: Cell::new(1),
            leases: RefCell::default(),
            handles: RefCell::default(),
            work: Notify::new(),
            closing: Notify::new(),
            keeper: RefCell::default(),
            metrics: Metrics::new(index),
            told: Cell::new(0),
        }
    }

    /// The store.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn store(&self) -> Result<Store<Device>, Failure> {
        match &*self.slot.borrow() {
            Slot::Open(store) => Ok(store.clone()),
            Slot::Failed(failure) => {
                let message = format!("this target is down: {}", failure.message);
                Err(Failure {
                    der: failure.der,
                    message,
                })
            }
            Slot::Waiting => Err(Failure::new(Der::AGAIN, "the target is starting")),
            Slot::Closed => Err(Failure::new(Der::SHUTDOWN, "the target is stopping")),
        }
    }

    /// The module has been cleaned up here.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(&*self.slot.borrow(), Slot::Closed)
    }

    /// Waits, but not beyond the module's end.
    pub(crate) async fn unless_closing(&self, wait: impl Future<Output = ()>) {
        // Made before looking, so that nothing is missed in between.
        let closing = self.closing.notified();
        if !self.is_closed() {
            first(pin!(wait), pin!(closing)).await;
        }
    }

    /// Brings the gauges up to date.
    pub(crate) fn measure(&self, store: &Store<Device>) {
        let space = store.space();
        self.metrics.total.set(space.total as f64);
        self.metrics.free.set(space.free as f64);
        self.metrics.read_only.set(if store.read_only().is_some() {
            1.0
        } else {
            0.0
        });
        let now = module_sdk::now_ns();
        if now.saturating_sub(self.told.get()) >= TELL.as_nanos() as u64 {
            self.told.set(now);
            self.tell_space(store);
        }
    }

    /// Tells the scheduler what each pool has here: its share, or less when the device has less.
    pub(crate) fn tell_space(&self, store: &Store<Device>) {
        let device = store.space().free;
        for pool in store.pools() {
            let free = pool.quota.saturating_sub(pool.used).min(device);
            if let Err(der) = module_sdk::report_space(pool.uuid.as_bytes(), pool.quota, free) {
                module_sdk::debug!("space of pool {}: {der}", pool.uuid);
            }
        }
    }

    /// Keeps a version from being reclaimed until the pin is given back or its lease ends.
    pub(crate) fn pin(&self, version: u64) -> Result<u64, Failure> {
        let mut pins = self.pins.borrow_mut();
        if pins.len() >= PINS_MAX {
            return Err(Failure::new(
                Der::BUSY,
                "too many objects are being read on this target",
            ));
        }
        let pin = self.next_pin.get();
        self.next_pin.set(pin + 1);
        pins.insert(
            pin,
            Pin {
                version,
                until: lease_end(),
            },
        );
        self.work.notify_all();
        Ok(pin)
    }

    pub(crate) fn renew_pin(&self, pin: u64) -> Result<(), Failure> {
        let gone = || {
            Failure::new(
                Der::STALE,
                "the reader's lease has ended: read the object again",
            )
        };
        self.pins.borrow_mut().get_mut(&pin).ok_or_else(gone)?.until = lease_end();
        Ok(())
    }

    pub(crate) fn unpin(&self, pin: u64) {
        if self.pins.borrow_mut().remove(&pin).is_some() {
            self.work.notify_all();
        }
    }

    pub(crate) fn pinned(&self, version: u64) -> bool {
        self.pins
            .borrow()
            .values()
            .any(|pin| pin.version == version)
    }

    /// Ends pins whose lease has run out; `true` when some are left.
    pub(crate) fn expire_pins(&self, now: u64) -> bool {
        let mut pins = self.pins.borrow_mut();
        pins.retain(|_, pin| pin.until > now);
        !pins.is_empty()
    }
}

/// When a lease that is given now ends.
pub(crate) fn lease_end() -> u64 {
    module_sdk::now_ns() + LEASE.as_nanos() as u64
}

/// The time of day, ns since 1970.
pub(crate) fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_nanos() as u64)
}
