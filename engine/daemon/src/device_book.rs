//! What the engine knows of its devices beside their I/O: the table on stable storage, states, health, eviction.
//!
//! Changes and the periodic look happen on a thread of their own, because they write files and ask devices. Reading is a lock away.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use daos_errno::Der;
use drpc_wire::keel;
use engine_devices::{
    AssignError, ChangeError, Criteria, DeviceTable, Kept, Monitor, Plugged, Record, Sample, State,
    TableFile,
};
use spdk_bdev::{Op, Registry};
use spdk_ring::oneshot;
use uuid::Uuid;

use crate::error::BootError;
use crate::ras::{DeviceEvent, Ras};

/// A device that the configuration names, opened.
pub(crate) struct Opened {
    pub(crate) plugged: Plugged,
    /// Firmware revision; empty where it has none.
    pub(crate) firmware: String,
    /// It keeps its data: it belongs into the table.
    pub(crate) is_kept: bool,
}

/// All that operators are shown about one device, without its size and I/O counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) state: &'static str,
    pub(crate) serial: String,
    pub(crate) model: String,
    pub(crate) firmware: String,
    pub(crate) reason: String,
}

enum Ask {
    SetFaulty(Uuid, oneshot::Sender<keel::Ack>),
    Replace(Uuid, Uuid, oneshot::Sender<keel::Ack>),
    Look,
}

struct Watched {
    opened: Opened,
    monitor: Monitor,
}

struct Inner {
    table: DeviceTable,
    devices: Vec<Watched>,
}

struct Shared {
    registry: Registry,
    file: TableFile,
    inner: Mutex<Inner>,
    ras: Ras,
}

/// The book, and the thread that keeps it. Any thread.
pub(crate) struct DeviceBook {
    shared: Arc<Shared>,
    asks: Mutex<Option<Sender<Ask>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl DeviceBook {
    /// Compares the devices with the table, saves it if it changed, closes evicted devices to I/O, and starts watching.
    pub(crate) fn open(
        file: TableFile,
        registry: &Registry,
        devices: Vec<Opened>,
        criteria: Criteria,
        ras: Ras,
    ) -> Result<DeviceBook, BootError> {
        let mut table = file.load().map_err(BootError::cannot_use)?;
        let kept: Vec<Plugged> = devices
            .iter()
            .filter(|d| d.is_kept)
            .map(|d| d.plugged.clone())
            .collect();
        let changed = table.reconcile(&kept).map_err(|error| {
            if let AssignError::Elsewhere { recorded, .. } = &error {
                ras.raise(
                    DeviceEvent::Unplugged,
                    &recorded.to_string(),
                    &error.to_string(),
                );
            }
            BootError::cannot_use(error)
        })?;
        if changed {
            file.save(&table).map_err(BootError::cannot_use)?;
        }
        for device in &kept {
            if table.state(device.uuid, true) == State::Evicted {
                tracing::error!(device = device.name, uuid = %device.uuid, "the device is evicted: its targets have no storage until it is replaced");
                registry
                    .set_evicted(&device.name, true)
                    .map_err(BootError::software)?;
            }
        }
        let watch = |opened| Watched {
            opened,
            monitor: Monitor::new(criteria),
        };
        let inner = Inner {
            table,
            devices: devices.into_iter().map(watch).collect(),
        };
        let shared = Arc::new(Shared {
            registry: registry.clone(),
            file,
            inner: Mutex::new(inner),
            ras,
        });
        let (asks, asked) = channel();
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("keel_devices".to_owned())
            .spawn(move || own.watch(&asked))
            .map_err(BootError::system)?;
        Ok(DeviceBook {
            shared,
            asks: Mutex::new(Some(asks)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// What is known of a device of the configuration.
    pub(crate) fn describe(&self, name: &str) -> Description {
        let inner = self.shared.lock();
        let Some(device) = inner.devices.iter().find(|d| d.opened.plugged.name == name) else {
            return Description::default();
        };
        let plugged = &device.opened.plugged;
        let record = inner.table.get(plugged.uuid);
        let state = if device.opened.is_kept {
            inner.table.state(plugged.uuid, true)
        } else {
            State::Normal
        };
        Description {
            state: state.as_str(),
            serial: plugged.serial.clone(),
            model: plugged.model.clone(),
            firmware: device.opened.firmware.clone(),
            reason: record
                .map(|record| record.reason.clone())
                .unwrap_or_default(),
        }
    }

    /// Devices in the table that are not plugged.
    pub(crate) fn unplugged(&self) -> Vec<Record> {
        let inner = self.shared.lock();
        let is_plugged = |uuid| inner.devices.iter().any(|d| d.opened.plugged.uuid == uuid);
        inner
            .table
            .records()
            .iter()
            .filter(|record| !is_plugged(record.uuid))
            .cloned()
            .collect()
    }

    /// The rank that events carry.
    pub(crate) fn set_rank(&self, rank: u32) {
        self.shared.ras.set_rank(rank);
    }

    /// Takes a device out of use. On stable storage when it answers with status 0.
    pub(crate) async fn set_faulty(&self, uuid: &str) -> keel::Ack {
        match Uuid::try_parse(uuid) {
            Ok(uuid) => self.ask(|answer| Ask::SetFaulty(uuid, answer)).await,
            Err(_) => not_a_uuid(uuid),
        }
    }

    /// Puts the targets of a faulty device on another one, or the device back into use.
    pub(crate) async fn replace(&self, old: &str, new: &str) -> keel::Ack {
        match (Uuid::try_parse(old), Uuid::try_parse(new)) {
            (Ok(old), Ok(new)) => self.ask(|answer| Ask::Replace(old, new, answer)).await,
            (Err(_), _) => not_a_uuid(old),
            _ => not_a_uuid(new),
        }
    }

    async fn ask(&self, question: impl FnOnce(oneshot::Sender<keel::Ack>) -> Ask) -> keel::Ack {
        let (sender, answer) = oneshot::channel();
        {
            let asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(asks) = &*asks {
                // A thread that is gone drops the question, and with it the sender.
                let _ = asks.send(question(sender));
            }
        }
        answer
            .await
            .unwrap_or_else(|_| refused(Der::SHUTDOWN, "the engine is stopping".to_owned()))
    }

    /// Somebody wants to know: looks at the devices now, not only when it is time.
    pub(crate) fn look_now(&self) {
        let asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asks) = &*asks {
            // A thread that is gone looks no more.
            let _ = asks.send(Ask::Look);
        }
    }

    /// Stops watching.
    pub(crate) fn stop(&self) {
        self.asks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            // A panic was logged where it happened.
            let _ = thread.join();
        }
    }
}

fn refused(der: Der, error: String) -> keel::Ack {
    keel::Ack {
        status: der.neg(),
        error,
    }
}

fn not_a_uuid(text: &str) -> keel::Ack {
    refused(
        Der::INVAL,
        format!("`{text}` is not a device's uuid: `keel devices` lists them"),
    )
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, asked: &Receiver<Ask>) {
        loop {
            let calm = self
                .lock()
                .table
                .records()
                .iter()
                .all(|record| record.state == Kept::Normal);
            // Whoever asked may have gone away meanwhile.
            match asked.recv_timeout(Duration::from_secs(Monitor::period(calm))) {
                Ok(Ask::SetFaulty(uuid, answer)) => {
                    drop(answer.send(self.set_faulty(uuid, "set faulty by an operator")))
                }
                Ok(Ask::Replace(old, new, answer)) => drop(answer.send(self.replace(old, new))),
                Ok(Ask::Look) | Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Looks at every device that is in use.
    fn look(&self) {
        let mut verdicts = Vec::new();
        let mut inner = self.lock();
        let Inner { table, devices } = &mut *inner;
        for device in devices.iter_mut().filter(|device| device.opened.is_kept) {
            let plugged = &device.opened.plugged;
            let Ok(health) = self.registry.health(&plugged.name) else {
                continue;
            };
            let sample = Sample {
                read_errors: health.of(Op::Read).errors,
                write_errors: health.of(Op::Write).errors,
                ..Sample::default()
            };
            if let Some(why) = device.monitor.look(sample)
                && table.state(plugged.uuid, true) == State::Normal
            {
                verdicts.push((plugged.uuid, why.to_string()));
            }
        }
        drop(inner);
        for (uuid, why) in verdicts {
            let done = self.set_faulty(uuid, &why);
            if done.status != 0 {
                tracing::error!(%uuid, "a faulty device stays in use: {}", done.error);
            }
        }
    }

    /// Changes the table, saves it, and only then takes it for true.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut DeviceTable) -> Result<T, ChangeError>,
    ) -> Result<T, keel::Ack> {
        let mut inner = self.lock();
        let mut next = inner.table.clone();
        let result = change(&mut next).map_err(|error| refused(error.der(), error.to_string()))?;
        if next != inner.table {
            self.file
                .save(&next)
                .map_err(|error| refused(Der::IO, error.to_string()))?;
            inner.table = next;
        }
        Ok(result)
    }

    fn name_of(&self, uuid: Uuid) -> Option<String> {
        let inner = self.lock();
        let device = inner.devices.iter().find(|d| d.opened.plugged.uuid == uuid);
        device.map(|device| device.opened.plugged.name.clone())
    }

    fn set_faulty(&self, uuid: Uuid, reason: &str) -> keel::Ack {
        match self.change(|table| table.set_faulty(uuid, reason)) {
            Ok(false) => keel::Ack::default(),
            Ok(true) => {
                if let Some(name) = self.name_of(uuid)
                    && let Err(error) = self.registry.set_evicted(&name, true)
                {
                    tracing::error!(%error, "an evicted device was not found");
                }
                let text = format!("device {uuid} was evicted: {reason}");
                self.ras
                    .raise(DeviceEvent::SetFaulty, &uuid.to_string(), &text);
                keel::Ack::default()
            }
            Err(refusal) => refusal,
        }
    }

    fn replace(&self, old: Uuid, new: Uuid) -> keel::Ack {
        let plugged = {
            let inner = self.lock();
            let known = inner
                .devices
                .iter()
                .find(|d| d.opened.is_kept && d.opened.plugged.uuid == new);
            known.map(|device| device.opened.plugged.clone())
        };
        let Some(plugged) = plugged else {
            let error = ChangeError::NotPlugged(new);
            return refused(error.der(), error.to_string());
        };
        if let Err(refusal) = self.change(|table| table.replace(old, &plugged)) {
            return refusal;
        }
        for device in self
            .lock()
            .devices
            .iter_mut()
            .filter(|d| d.opened.plugged.uuid == new)
        {
            device.monitor.readmitted();
        }
        if let Err(error) = self.registry.set_evicted(&plugged.name, false) {
            return refused(Der::NONEXIST, error.to_string());
        }
        let text = if old == new {
            format!("device {new} is back in use")
        } else {
            format!("device {old} was replaced by {new}")
        };
        self.ras
            .raise(DeviceEvent::Replaced, &new.to_string(), &text);
        keel::Ack::default()
    }
}
