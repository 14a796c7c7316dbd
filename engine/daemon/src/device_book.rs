//! What the engine knows of its devices beside their I/O: the table on stable storage, states, health, eviction.
//!
//! Changes and the periodic look (`device_watch`) happen on a thread of their own, because they write files and ask devices. Reading is a
//! lock away.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bdev_nvme::{Event, NvmeDevice};
use daos_errno::Der;
use drpc_wire::keel;
use engine_devices::{
    AssignError, Criteria, DeviceTable, Monitor, Plugged, Record, State, TableFile,
};
use spdk_bdev::Registry;
use spdk_ring::oneshot;
use uuid::Uuid;

use crate::device_health::Pages;
use crate::device_return::{Slot, Stranger};
use crate::error::BootError;
use crate::hosted::Hosted;
use crate::ras::{DeviceEvent, Ras};
use crate::ssds::Bays;

/// For devices to say how they are.
const LOOK_PATIENCE_NS: u64 = 2_000_000_000;

/// A device that the configuration names, opened.
pub(crate) struct Opened {
    pub(crate) plugged: Plugged,
    /// The SSD that it is a namespace of.
    pub(crate) ssd: Option<OnSsd>,
    /// Where it really is, if somebody else has it.
    pub(crate) hosted: Option<Arc<dyn Hosted>>,
    /// It keeps its data: it belongs into the table.
    pub(crate) is_kept: bool,
}

/// A namespace of an SSD.
#[derive(Clone)]
pub(crate) struct OnSsd {
    pub(crate) address: String,
    /// `None` once it was removed.
    pub(crate) ssd: Option<Arc<NvmeDevice>>,
    pub(crate) namespace: u32,
    pub(crate) block_size: u32,
}

/// All that operators are shown about one device, without its size and I/O counters.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Description {
    pub(crate) state: &'static str,
    pub(crate) serial: String,
    pub(crate) model: String,
    pub(crate) firmware: String,
    pub(crate) reason: String,
    pub(crate) namespace: u32,
    pub(crate) write_cache: bool,
    pub(crate) health: Option<keel::DeviceHealth>,
    pub(crate) pages: Pages,
    /// Troubles that were got over, or not.
    pub(crate) counters: Vec<keel::Counter>,
}

/// What the book's thread is told and asked.
pub(crate) enum Ask {
    SetFaulty(Uuid, oneshot::Sender<keel::Ack>),
    Replace(Uuid, Uuid, oneshot::Sender<keel::Ack>),
    /// Somebody wants to know; answered when the devices were looked at.
    Look(oneshot::Sender<()>),
    /// Something happened to the SSD at this address.
    Ssd(String, Event),
    /// The SSD that was put into this slot came up, or why not; and what was said about it before.
    Attached(String, Result<Arc<NvmeDevice>, String>, Option<String>),
    Stop,
}

/// A device of the configuration, watched.
pub(crate) struct Watched {
    pub(crate) opened: Opened,
    pub(crate) monitor: Monitor,
    /// Why it is not there any more; its targets are down until it comes back, or is replaced and the engine started again.
    pub(crate) gone: Option<String>,
    /// When the SSD last answered, and what.
    pub(crate) health: Option<keel::DeviceHealth>,
    pub(crate) pages: Pages,
    pub(crate) counters: Vec<keel::Counter>,
    /// Failed I/Os at the last look.
    pub(crate) failed: u64,
}

pub(crate) struct Inner {
    pub(crate) table: DeviceTable,
    pub(crate) devices: Vec<Watched>,
    /// Slots of SSDs that were removed, by address.
    pub(crate) slots: BTreeMap<String, Slot>,
}

pub(crate) struct Shared {
    pub(crate) registry: Registry,
    pub(crate) file: TableFile,
    pub(crate) inner: Mutex<Inner>,
    pub(crate) ras: Ras,
    pub(crate) bays: Arc<dyn Bays>,
    asks: Mutex<Sender<Ask>>,
}

/// The book, and the thread that keeps it. Any thread.
pub(crate) struct DeviceBook {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl DeviceBook {
    /// Where the book's thread will listen: SSDs have something to say before there is a book.
    pub(crate) fn mailbox() -> (Sender<Ask>, Receiver<Ask>) {
        channel()
    }

    /// Compares the devices with the table, saves it if it changed, closes evicted devices to I/O, and starts watching.
    pub(crate) fn open(
        file: TableFile,
        registry: &Registry,
        devices: Vec<Opened>,
        criteria: Criteria,
        ras: Ras,
        bays: Arc<dyn Bays>,
        (asks, asked): (Sender<Ask>, Receiver<Ask>),
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
            gone: None,
            health: None,
            pages: Pages::default(),
            counters: Vec::new(),
            failed: 0,
        };
        let inner = Inner {
            table,
            devices: devices.into_iter().map(watch).collect(),
            slots: BTreeMap::new(),
        };
        let shared = Arc::new(Shared {
            registry: registry.clone(),
            file,
            inner: Mutex::new(inner),
            ras,
            bays,
            asks: Mutex::new(asks),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("keel_devices".to_owned())
            .spawn(move || own.watch(&asked))
            .map_err(BootError::system)?;
        Ok(DeviceBook {
            shared,
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
        let state = match &device.gone {
            gone if device.opened.is_kept => inner.table.state(plugged.uuid, gone.is_none()),
            Some(_) => State::Unplugged,
            None => State::Normal,
        };
        let kept_reason = || record.map(|record| record.reason.clone());
        let on_ssd = device.opened.ssd.as_ref();
        let ssd = on_ssd.and_then(|on| on.ssd.as_ref());
        let host = device.opened.hosted.as_ref().and_then(|host| host.ssd());
        let (firmware, namespace, write_cache) = match (ssd, host) {
            (Some(ssd), _) => (ssd.firmware(), None, ssd.has_write_cache()),
            (None, Some(host)) => (&*host.firmware, Some(host.namespace), host.write_cache),
            (None, None) => ("", None, false),
        };
        Description {
            state: state.as_str(),
            serial: plugged.serial.clone(),
            model: plugged.model.clone(),
            firmware: firmware.to_owned(),
            reason: device.gone.clone().or_else(kept_reason).unwrap_or_default(),
            namespace: on_ssd.map(|on| on.namespace).or(namespace).unwrap_or(0),
            write_cache,
            health: device.health,
            pages: device.pages.clone(),
            counters: device.counters.clone(),
        }
    }

    /// Bytes of the device that targets' shares are cut from: those that it had when they were put on it.
    pub(crate) fn bytes_of(&self, uuid: Uuid) -> Option<u64> {
        let inner = self.shared.lock();
        inner.table.get(uuid).map(|record| record.bytes)
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

    /// SSDs in the slots of others, with their addresses.
    pub(crate) fn strangers(&self) -> Vec<(String, Stranger)> {
        let inner = self.shared.lock();
        let stranger = |(address, slot): (&String, &Slot)| match slot {
            Slot::Stranger(stranger) => Some((address.clone(), stranger.clone())),
            _ => None,
        };
        inner.slots.iter().filter_map(stranger).collect()
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

    fn send(&self, ask: Ask) {
        // A thread that is gone drops the question, and with it the way back.
        let _ = self.shared.asks().send(ask);
    }

    async fn ask(&self, question: impl FnOnce(oneshot::Sender<keel::Ack>) -> Ask) -> keel::Ack {
        let (sender, answer) = oneshot::channel();
        self.send(question(sender));
        answer
            .await
            .unwrap_or_else(|_| refused(Der::SHUTDOWN, "the engine is stopping".to_owned()))
    }

    /// Somebody wants to know: looks at the devices now, not only when it is time. Does not wait for one that does not answer.
    pub(crate) async fn look_now(&self) {
        let (sender, looked) = oneshot::channel();
        self.send(Ask::Look(sender));
        // What was known before is as good as it gets then.
        let _ = spdk_thread::timeout(LOOK_PATIENCE_NS, looked).await;
    }

    /// Stops watching.
    pub(crate) fn stop(&self) {
        self.send(Ask::Stop);
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

    /// Shuts all SSDs down in order, after everybody who used them has gone, and the book was closed.
    pub(crate) fn shut_ssds_down(&self) {
        let mut ssds: BTreeMap<String, Arc<NvmeDevice>> = BTreeMap::new();
        for device in &self.shared.lock().devices {
            if let Some((address, ssd)) = device.opened.ssd.as_ref().and_then(OnSsd::there) {
                ssds.insert(address, ssd);
            }
        }
        std::thread::scope(|scope| {
            for ssd in ssds.values() {
                scope.spawn(|| ssd.shut_down());
            }
        });
    }
}

impl OnSsd {
    /// The SSD with its address, while it is there.
    pub(crate) fn there(&self) -> Option<(String, Arc<NvmeDevice>)> {
        let ssd = self.ssd.as_ref()?;
        Some((self.address.clone(), Arc::clone(ssd)))
    }
}

pub(crate) fn refused(der: Der, error: String) -> keel::Ack {
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
    pub(crate) fn asks(&self) -> Sender<Ask> {
        let asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        asks.clone()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
