//! The book's thread: looks at devices, hears of what happens to SSDs, changes the table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bdev_nvme::{DeviceHealth, Event, Namespace, NvmeDevice};
use daos_errno::Der;
use drpc_wire::keel;
use engine_devices::{ChangeError, DeviceTable, Kept, Monitor, Sample, State};
use spdk_bdev::Op;
use uuid::Uuid;

use crate::device_book::{Ask, Inner, OnSsd, Shared, Watched, refused};
use crate::device_health;
use crate::ras::DeviceEvent;

impl Shared {
    pub(crate) fn watch(&self, asked: &Receiver<Ask>) {
        loop {
            let period = Duration::from_secs(Monitor::period(self.is_calm()));
            // Whoever asked may have gone away meanwhile.
            match asked.recv_timeout(period) {
                Ok(Ask::SetFaulty(uuid, answer)) => {
                    drop(answer.send(self.set_faulty(uuid, "set faulty by an operator")))
                }
                Ok(Ask::Replace(old, new, answer)) => drop(answer.send(self.replace(old, new))),
                Ok(Ask::Look(answer)) => {
                    self.look();
                    let _ = answer.send(());
                }
                Ok(Ask::Ssd(address, event)) => self.hear(&address, &event),
                Ok(Ask::Attached(address, result, told)) => self.attached(&address, result, told),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Ok(Ask::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn is_calm(&self) -> bool {
        let inner = self.lock();
        let is_normal = |record: &engine_devices::Record| record.state == Kept::Normal;
        inner.table.records().iter().all(is_normal)
            && inner.devices.iter().all(|device| device.gone.is_none())
    }

    /// Looks at every device that is in use.
    fn look(&self) {
        self.look_into_slots();
        self.look_at_hosts();
        let health = self.ask_ssds();
        let damaged = device_health::checksum_errors(&engine_telemetry::render());
        let (mut verdicts, mut went) = (Vec::new(), Vec::new());
        let mut inner = self.lock();
        let Inner { table, devices, .. } = &mut *inner;
        for device in devices.iter_mut().filter(|device| device.opened.is_kept) {
            let own = device.opened.ssd.as_ref();
            let own = match own {
                Some(on) => health.get(&on.address),
                None => health.get(&device.opened.plugged.name),
            };
            if own.is_some_and(|health| health.removed) && device.gone.is_none() {
                went.extend(device.opened.ssd.as_ref().map(|on| on.address.clone()));
                continue;
            }
            let Some(sample) = self.sample(device, own, &damaged) else {
                continue;
            };
            let plugged = &device.opened.plugged;
            if let Some(why) = device.monitor.look(sample)
                && table.state(plugged.uuid, true) == State::Normal
            {
                verdicts.push((plugged.uuid, why.to_string()));
            }
        }
        drop(inner);
        went.dedup();
        for address in went {
            self.removed(&address);
        }
        for (uuid, why) in verdicts {
            let done = self.set_faulty(uuid, &why);
            if done.status != 0 {
                tracing::error!(%uuid, "a faulty device stays in use: {}", done.error);
            }
        }
    }

    /// How each SSD is, by its address, or the name of the device where somebody else drives it. Waits for their answers, so nothing is
    /// locked meanwhile.
    fn ask_ssds(&self) -> BTreeMap<String, DeviceHealth> {
        let mut ssds: BTreeMap<String, Arc<NvmeDevice>> = BTreeMap::new();
        let mut hosts = Vec::new();
        for device in self.lock().devices.iter().filter(|d| d.gone.is_none()) {
            ssds.extend(device.opened.ssd.as_ref().and_then(OnSsd::there));
            let host = device.opened.hosted.as_ref();
            hosts.extend(host.map(|host| (device.opened.plugged.name.clone(), Arc::clone(host))));
        }
        let ask = |(address, ssd): (String, Arc<NvmeDevice>)| (address, ssd.health());
        let hosted = hosts.into_iter();
        let hosted = hosted.filter_map(|(name, host)| Some((name, host.health()?)));
        ssds.into_iter().map(ask).chain(hosted).collect()
    }

    /// What was counted on a device, remembered for operators; new failures are an event.
    fn sample(
        &self,
        device: &mut Watched,
        own: Option<&DeviceHealth>,
        damaged: &BTreeMap<u32, u64>,
    ) -> Option<Sample> {
        let plugged = &device.opened.plugged;
        let health = self.registry.health(&plugged.name).ok()?;
        let targets = plugged.targets.iter();
        let checksum_errors = targets.filter_map(|target| damaged.get(target)).sum();
        let mut sample = Sample {
            read_errors: health.of(Op::Read).errors,
            write_errors: health.of(Op::Write).errors,
            checksum_errors,
            gone: device.gone.is_some(),
            ..Sample::default()
        };
        let counter = |name: &str, value| keel::Counter {
            name: name.to_owned(),
            value,
        };
        device.counters = vec![counter("checksum_errors", checksum_errors)];
        if let Some(own) = own {
            sample.stalled = own.troubles.lost + u64::from(own.failed.is_some());
            // One that does not answer said this when it last did.
            if let Some(smart) = &own.smart {
                device.health = Some(device_health::message(smart));
                device.pages = device_health::pages(own);
            }
            // Others count their troubles themselves.
            let driven = device.opened.ssd.iter();
            device.counters.extend(driven.flat_map(|_| {
                [
                    counter("retries", own.troubles.retries),
                    counter("timeouts", own.troubles.timeouts),
                    counter("timeouts_lost", own.troubles.lost),
                    counter("nonsense", own.troubles.nonsense),
                ]
            }));
        }
        let failed = health.errors() + checksum_errors;
        if failed > device.failed && !sample.gone {
            let text = format!(
                "device {}: {} more I/Os failed since the last look (in all: {} reads, {} writes, {checksum_errors} with damaged data)",
                plugged.name,
                failed - device.failed,
                sample.read_errors,
                sample.write_errors,
            );
            self.ras
                .raise(DeviceEvent::MediaError, &plugged.uuid.to_string(), &text);
        }
        device.failed = failed;
        Some(sample)
    }

    /// Something happened to an SSD.
    fn hear(&self, address: &str, event: &Event) {
        match event {
            Event::Removed => self.removed(address),
            Event::NamespaceRemoved(namespace) => {
                for uuid in self.on(address, Some(*namespace)) {
                    self.gone(uuid, "its namespace was deleted", true);
                }
            }
            Event::NamespaceChanged(now) => self.namespace_changed(address, now),
            Event::NamespaceAdded(new) => {
                tracing::info!(ssd = address, "namespace {} was added", new.nsid);
            }
            Event::Failed(error) => {
                tracing::error!(ssd = address, "given up: {error}");
                self.look();
            }
            Event::Health(_, smart) => {
                let warnings = device_health::warnings(smart.critical_warning);
                tracing::error!(
                    ssd = address,
                    "it warns of its health: {}; `keel devices health` has the figures",
                    warnings.join(", ")
                );
                self.look();
            }
            Event::ResetStarted(reason) => {
                tracing::warn!(ssd = address, ?reason, "reset: I/O waits");
            }
            Event::ResetDone => tracing::info!(ssd = address, "reset done: I/O goes on"),
            Event::DeviceError(what) => {
                tracing::error!(ssd = address, ?what, "it reports an error of its own");
            }
            Event::Notice(what) => tracing::info!(ssd = address, ?what, "notice"),
            Event::ShutDown => tracing::debug!(ssd = address, "shut down"),
        }
    }

    /// Devices of an SSD, or only that on one namespace.
    pub(crate) fn on(&self, address: &str, namespace: Option<u32>) -> Vec<Uuid> {
        let inner = self.lock();
        let is_on = |device: &&Watched| {
            device.opened.ssd.as_ref().is_some_and(|on| {
                on.address == address && namespace.is_none_or(|nr| nr == on.namespace)
            })
        };
        let devices = inner.devices.iter().filter(is_on);
        devices.map(|device| device.opened.plugged.uuid).collect()
    }

    fn namespace_changed(&self, address: &str, now: &Namespace) {
        for uuid in self.on(address, Some(now.nsid)) {
            let (name, was) = {
                let inner = self.lock();
                let Some(device) = inner.devices.iter().find(|d| d.opened.plugged.uuid == uuid)
                else {
                    continue;
                };
                let block_size = device.opened.ssd.as_ref().map_or(0, |on| on.block_size);
                let plugged = &device.opened.plugged;
                (plugged.name.clone(), (plugged.bytes, block_size))
            };
            let bytes = now.blocks.saturating_mul(now.block_size().into());
            if now.block_size() != was.1 || now.refused.is_some() {
                self.gone(uuid, "its namespace was formatted anew", true);
            } else if bytes < was.0 {
                let why = format!("its namespace shrank from {} to {bytes} bytes", was.0);
                self.gone(uuid, &why, true);
            } else if bytes > was.0 {
                tracing::info!(
                    ssd = address,
                    device = name,
                    "the namespace grew from {} to {bytes} bytes: targets that are on it keep the shares that they have",
                    was.0
                );
            }
        }
    }

    /// A device is not there any more: its targets are down, the others serve on. `refuse`: it would still take I/O, which must not happen.
    pub(crate) fn gone(&self, uuid: Uuid, why: &str, refuse: bool) {
        let (name, text) = {
            let mut inner = self.lock();
            let mut devices = inner.devices.iter_mut();
            let Some(device) = devices.find(|d| d.opened.plugged.uuid == uuid && d.gone.is_none())
            else {
                return;
            };
            device.gone = Some(why.to_owned());
            let plugged = &device.opened.plugged;
            let address = device.opened.ssd.as_ref().map_or("", |on| &on.address);
            let which = match &*plugged.serial {
                "" => String::new(),
                serial => format!(" (serial {serial}, {address})"),
            };
            let text = format!(
                "device {}{which}: {why}; targets {:?} are down",
                plugged.name, plugged.targets
            );
            (plugged.name.clone(), text)
        };
        if refuse && let Err(error) = self.registry.set_evicted(&name, true) {
            tracing::error!(%error, "a device that is gone was not found");
        }
        self.ras
            .raise(DeviceEvent::Unplugged, &uuid.to_string(), &text);
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
