//! SSDs that were removed, and what is put into their slots: the same one is taken back without a restart, another one is left alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use bdev_nvme::NvmeDevice;
use engine_devices::{Sample, State};
use spdk_bdev::{Bdev, Op};
use uuid::Uuid;

use crate::device_book::{Ask, Inner, Shared};
use crate::ras::DeviceEvent;

/// The slot of an SSD that is gone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Slot {
    /// The system still shows what was there: this one ([`Bays::occupant`]).
    Leaving(Option<u64>),
    Empty,
    /// Somebody is there and is being looked at.
    Coming,
    /// Whoever is there could not be taken; why, as it was told. Tried again at each look.
    Refused(String),
    /// Another SSD.
    Stranger(Stranger),
}

/// An SSD in the place of another: new, and left alone.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stranger {
    /// Its first namespace's.
    pub(crate) uuid: Uuid,
    pub(crate) serial: String,
    pub(crate) model: String,
    pub(crate) firmware: String,
    /// What to do about it.
    pub(crate) advice: String,
}

/// Why most devices are gone.
pub(crate) const REMOVED: &str = "it was removed";

impl Shared {
    /// An SSD is not there any more, and nothing is kept of it: its slot may be taken again.
    pub(crate) fn removed(&self, address: &str) {
        for uuid in self.on(address, None) {
            self.gone(uuid, REMOVED, false);
        }
        let mut left = Vec::new();
        {
            let mut inner = self.lock();
            let Inner { devices, slots, .. } = &mut *inner;
            for device in devices {
                let on = device.opened.ssd.as_mut();
                let Some(on) = on.filter(|on| on.address == address) else {
                    continue;
                };
                left.extend(on.ssd.take());
                if let Err(error) = self.registry.withdraw(&device.opened.plugged.name) {
                    tracing::error!(%error, "a device that was removed was not found");
                }
            }
            if !left.is_empty() {
                let occupant = self.bays.occupant(address);
                slots.insert(address.to_owned(), Slot::Leaving(occupant));
            }
        }
        // Waits for the thread that looked after it.
        drop(left);
    }

    /// Whether somebody is in the slots of SSDs that are gone.
    pub(crate) fn look_into_slots(&self) {
        let mut coming = Vec::new();
        for (address, slot) in &mut self.lock().slots {
            let occupant = self.bays.occupant(address);
            let is_new = match slot {
                Slot::Coming | Slot::Stranger(_) if occupant.is_some() => false,
                Slot::Coming => false,
                Slot::Leaving(before) => occupant.is_some() && occupant != *before,
                Slot::Empty | Slot::Refused(_) | Slot::Stranger(_) => occupant.is_some(),
            };
            if is_new {
                if !matches!(slot, Slot::Refused(_)) {
                    tracing::info!(ssd = address, "an SSD was put into the slot");
                }
                coming.push((address.clone(), slot.clone()));
                *slot = Slot::Coming;
            } else if occupant.is_none() && *slot != Slot::Coming {
                *slot = Slot::Empty;
            }
        }
        for (address, before) in coming {
            self.attach(address, before);
        }
    }

    /// Attaches whoever is in a slot, on a thread of its own: that may take as long as the SSD says that it takes.
    fn attach(&self, address: String, before: Slot) {
        let (bays, asks, slot) = (Arc::clone(&self.bays), self.asks(), address.clone());
        let told = match before {
            Slot::Refused(why) => Some(why),
            _ => None,
        };
        let attach = move || {
            let result = bays.attach(&slot, asks.clone());
            // The book may be closed by now.
            let _ = asks.send(Ask::Attached(slot, result, told));
        };
        let thread = std::thread::Builder::new().name("keel_attach".to_owned());
        if let Err(error) = thread.spawn(attach) {
            self.refuse(&address, error.to_string(), None);
        }
    }

    /// An SSD came up in a slot, or did not.
    pub(crate) fn attached(
        &self,
        address: &str,
        result: Result<Arc<NvmeDevice>, String>,
        told: Option<String>,
    ) {
        let ssd = match result {
            Ok(ssd) => ssd,
            Err(why) => return self.refuse(address, why, told),
        };
        let mut back = 0;
        for uuid in self.on(address, None) {
            match self.take_back(uuid, &ssd) {
                Ok(()) => back += 1,
                Err(why) => tracing::error!(ssd = address, %uuid, "not taken back: {why}"),
            }
        }
        if back > 0 {
            self.lock().slots.remove(address);
        } else {
            self.leave_alone(address, &ssd);
        }
    }

    /// A device is there again, if this SSD has it.
    fn take_back(&self, uuid: Uuid, ssd: &Arc<NvmeDevice>) -> Result<(), String> {
        let (name, namespace, serial) = {
            let inner = self.lock();
            let mut devices = inner.devices.iter();
            let device = devices.find(|d| d.opened.plugged.uuid == uuid);
            let device = device.ok_or("it is not in the configuration")?;
            let namespace = device.opened.ssd.as_ref().map_or(0, |on| on.namespace);
            let plugged = &device.opened.plugged;
            (plugged.name.clone(), namespace, plugged.serial.clone())
        };
        let bdev = ssd
            .bdev(&name, namespace)
            .map_err(|error| error.to_string())?;
        if bdev.uuid() != uuid || ssd.serial() != serial {
            return Err(format!(
                "namespace {namespace} is {} on the SSD with serial {}, and was on that with serial {serial}",
                bdev.uuid(),
                ssd.serial(),
            ));
        }
        let put_back = self.registry.put_back(Arc::clone(&bdev));
        put_back.map_err(|error| error.to_string())?;
        let who = format!(
            "device {name} (serial {serial}, {}) is back in its slot",
            ssd.address()
        );
        let text = self.let_in(uuid, &*bdev, Some(ssd), &who);
        self.ras
            .raise(DeviceEvent::Plugged, &uuid.to_string(), &text);
        Ok(())
    }

    /// Its data is there again: who needs it may have it, unless it is evicted. What to say about it.
    pub(crate) fn let_in(
        &self,
        uuid: Uuid,
        bdev: &dyn Bdev,
        ssd: Option<&Arc<NvmeDevice>>,
        who: &str,
    ) -> String {
        let health = self.registry.health(bdev.name()).unwrap_or_default();
        let mut inner = self.lock();
        let Inner { table, devices, .. } = &mut *inner;
        let reason = table.get(uuid).map(|record| record.reason.clone());
        let is_evicted = table.state(uuid, true) == State::Evicted;
        let mut devices = devices.iter_mut();
        let Some(device) = devices.find(|d| d.opened.plugged.uuid == uuid) else {
            return String::new();
        };
        device.gone = None;
        if let Some(on) = &mut device.opened.ssd {
            on.ssd = ssd.cloned();
        }
        // What failed because it was not there says nothing about it.
        let errors = Sample {
            read_errors: health.of(Op::Read).errors,
            write_errors: health.of(Op::Write).errors,
            gone: true,
            ..Sample::default()
        };
        device.monitor.look(errors);
        device.monitor.readmitted();
        device.failed = health.errors();
        let plugged = &device.opened.plugged;
        if is_evicted {
            return format!(
                "{who} and stays evicted: {}; `keel devices replace {uuid}` puts it back into use",
                reason.unwrap_or_default()
            );
        }
        if let Err(error) = self.registry.set_evicted(bdev.name(), false) {
            tracing::error!(%error, "a device that is back was not found");
        }
        format!("{who}: targets {:?} have it again", plugged.targets)
    }

    /// Another SSD is where one of ours was.
    fn leave_alone(&self, address: &str, ssd: &NvmeDevice) {
        let (names, serials) = self.expected(address);
        let advice = format!(
            "an SSD that is not in the table of devices (model {}, serial {}) is in the slot of {names} ({address}) and is left alone: put the one \
             with serial {serials} back; if that is lost with its data, set its devices faulty (`keel devices set-faulty UUID`) and restart the \
             engine, which then starts their targets empty on the new one",
            ssd.model(),
            ssd.serial(),
        );
        let first = ssd.namespaces().iter().map(|namespace| namespace.nsid);
        let uuid = first
            .filter_map(|nsid| ssd.bdev("new", nsid).ok())
            .map(|bdev| bdev.uuid())
            .next()
            .unwrap_or_default();
        let stranger = Stranger {
            uuid,
            serial: ssd.serial().to_owned(),
            model: ssd.model().to_owned(),
            firmware: ssd.firmware().to_owned(),
            advice: advice.clone(),
        };
        // In order, and before somebody else takes it.
        ssd.shut_down();
        let slot = Slot::Stranger(stranger);
        self.lock().slots.insert(address.to_owned(), slot);
        self.ras
            .raise(DeviceEvent::Plugged, &uuid.to_string(), &advice);
    }

    fn refuse(&self, address: &str, why: String, told: Option<String>) {
        let slot = Slot::Refused(why.clone());
        self.lock().slots.insert(address.to_owned(), slot);
        if told.as_ref() == Some(&why) {
            return;
        }
        let (names, _) = self.expected(address);
        let text = format!(
            "an SSD was put into the slot of {names} ({address}) and cannot be taken yet: {why}. It is tried again every few seconds"
        );
        self.ras.raise(DeviceEvent::Plugged, address, &text);
    }

    /// Names and serial numbers of what belongs into a slot.
    fn expected(&self, address: &str) -> (String, String) {
        let inner = self.lock();
        let on_it = |device: &&crate::device_book::Watched| {
            let on = device.opened.ssd.as_ref();
            on.is_some_and(|on| on.address == address)
        };
        let devices: Vec<_> = inner.devices.iter().filter(on_it).collect();
        let names: Vec<&str> = devices.iter().map(|d| &*d.opened.plugged.name).collect();
        let serials: BTreeSet<&str> = devices.iter().map(|d| &*d.opened.plugged.serial).collect();
        let list = |words: Vec<&str>| words.join(", ");
        (list(names), list(serials.into_iter().collect()))
    }
}
