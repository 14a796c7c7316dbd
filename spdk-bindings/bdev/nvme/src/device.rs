//! [`NvmeDevice`]: an attached controller, for whoever configures and watches devices.

use core::time::Duration;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nvme_spec::log::{ErrorLogEntry, FirmwareSlots, SmartLog, TelemetryHeader};
use spdk_bdev::Bdev;
use spdk_env::{Clock, DeviceBacking};
use spdk_nvme::{
    Controller, ControllerState, Event, Namespace, NvmeError, NvmeErrorKind, Troubles,
};

use crate::DriverOptions;
use crate::bounce::Bounce;
use crate::manager::{Ask, Pages, look_after};
use crate::namespace::{NvmeBdev, geometry, identity};

/// Between polls of a controller that comes up.
const ATTACH_PAUSE: Duration = Duration::from_micros(50);
/// For an answer of the controller's thread: longer than an admin command may take.
const ANSWER: Duration = Duration::from_secs(15);

/// What is known of a device's health.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceHealth {
    /// The SMART page, while the controller answers.
    pub smart: Option<SmartLog>,
    /// Its error log, as far as a page reaches (64 entries), newest first.
    pub errors: Vec<ErrorLogEntry>,
    /// Firmware slots.
    pub firmware: Option<FirmwareSlots>,
    /// What telemetry it has; `None` where it collects none.
    pub telemetry: Option<TelemetryHeader>,
    /// Retries, time-outs and nonsense since attach.
    pub troubles: Troubles,
    /// Why it does not take I/O, if it does not.
    pub failed: Option<String>,
    /// It is gone: that is why.
    pub removed: bool,
}

type MakeBdev = dyn Fn(&str, &Namespace) -> Arc<dyn Bdev> + Send + Sync;

/// A controller with the thread that looks after it. `Send + Sync`. Dropping it shuts the controller down and waits for that.
pub struct NvmeDevice {
    address: String,
    serial: String,
    model: String,
    firmware: String,
    namespaces: Vec<Namespace>,
    queue_pairs: usize,
    write_cache: bool,
    make: Box<MakeBdev>,
    troubles: Box<dyn Fn() -> Troubles + Send + Sync>,
    asks: Mutex<Option<Sender<Ask>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread found when it brought the controller up.
struct Found<B: DeviceBacking> {
    serial: String,
    model: String,
    firmware: String,
    oncs: u16,
    write_cache: bool,
    namespaces: Vec<Namespace>,
    pairs: spdk_nvme::QueuePairs<B>,
}

impl NvmeDevice {
    /// Brings a controller up, on a thread of its own that stays with it. `tell` hears its events, on that thread.
    ///
    /// # Errors
    /// Why it did not come up.
    pub fn attach<B: DeviceBacking>(
        backing: Arc<B>,
        options: &DriverOptions,
        tell: impl FnMut(Event) + Send + 'static,
    ) -> Result<NvmeDevice, NvmeError> {
        let address = backing.address().to_owned();
        let failed = |why: String| NvmeError {
            device: address.clone(),
            kind: NvmeErrorKind::Backing(why),
        };
        let bounce = Bounce::new(&*backing).map_err(failed)?;
        let (report, found) = sync_channel(1);
        let (asks, asked) = channel();
        let (driver, device) = (options.clone(), Arc::clone(&backing));
        let thread = std::thread::Builder::new()
            .name("keel_nvme".to_owned())
            .spawn(move || match bring_up(device, driver) {
                Ok((controller, found)) => {
                    // The one who waits for this holds `asks`.
                    let _ = report.send(Ok(found));
                    look_after(controller, &asked, tell);
                }
                Err(error) => {
                    let _ = report.send(Err(error));
                }
            })
            .map_err(|error| failed(format!("cannot start its thread: {error}")))?;
        let found = found
            .recv()
            .map_err(|_| failed("its thread ended".into()))??;
        let pairs = found.pairs.clone();
        let (oncs, write_cache, serial) = (found.oncs, found.write_cache, found.serial.clone());
        let make = move |name: &str, namespace: &Namespace| -> Arc<dyn Bdev> {
            Arc::new(NvmeBdev {
                name: name.into(),
                uuid: identity(namespace, &serial),
                geometry: geometry(namespace, oncs, write_cache),
                target: namespace.target(),
                backing: Arc::clone(&backing),
                pairs: found.pairs.clone(),
                bounce: bounce.clone(),
            })
        };
        Ok(NvmeDevice {
            address,
            serial: found.serial,
            model: found.model,
            firmware: found.firmware,
            namespaces: found.namespaces,
            queue_pairs: pairs.count(),
            write_cache,
            make: Box::new(make),
            troubles: Box::new(move || pairs.troubles()),
            asks: Mutex::new(Some(asks)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Serial number.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Firmware revision.
    #[must_use]
    pub fn firmware(&self) -> &str {
        &self.firmware
    }

    /// The namespaces that were there at attach, those that cannot be used included.
    #[must_use]
    pub fn namespaces(&self) -> &[Namespace] {
        &self.namespaces
    }

    /// How many channels, over all namespaces, can be open at once.
    #[must_use]
    pub fn queue_pairs(&self) -> usize {
        self.queue_pairs
    }

    /// Completed writes may be lost with the power until they are flushed.
    #[must_use]
    pub fn has_write_cache(&self) -> bool {
        self.write_cache
    }

    /// A namespace as a block device with a name of the caller's.
    ///
    /// # Errors
    /// When there is no such namespace, or it cannot be used, with the reason.
    pub fn bdev(&self, name: &str, nsid: u32) -> Result<Arc<dyn Bdev>, NvmeError> {
        let refused = |why: String| NvmeError {
            device: self.address.clone(),
            kind: NvmeErrorKind::Unsupported(why),
        };
        let Some(namespace) = self.namespaces.iter().find(|ns| ns.nsid == nsid) else {
            let known: Vec<String> = self
                .namespaces
                .iter()
                .map(|ns| ns.nsid.to_string())
                .collect();
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            return Err(refused(format!(
                "it has no namespace {nsid} (there are: {known})"
            )));
        };
        if let Some(why) = &namespace.refused {
            return Err(refused(format!("namespace {nsid}: {why}")));
        }
        Ok((self.make)(name, namespace))
    }

    /// Asks the device how it is. Waits for its answer (up to 15 s while it is being reset): not on an xstream.
    #[must_use]
    pub fn health(&self) -> DeviceHealth {
        let state = self.ask(Ask::State);
        let removed = matches!(&state, Some(ControllerState::Failed(error)) if matches!(error.kind, NvmeErrorKind::Gone));
        let failed = match state {
            Some(ControllerState::Failed(error)) => Some(error.to_string()),
            Some(ControllerState::ShutDown) | None => {
                Some("the controller was shut down".to_owned())
            }
            Some(_) => None,
        };
        let pages = if failed.is_none() {
            self.ask(Ask::Pages).unwrap_or_default()
        } else {
            Pages::default()
        };
        DeviceHealth {
            smart: pages.smart,
            errors: pages.errors,
            firmware: pages.firmware,
            telemetry: pages.telemetry,
            troubles: (self.troubles)(),
            failed,
            removed,
        }
    }

    /// Resets the controller; I/O that is out is submitted again.
    pub fn reset(&self) {
        if let Some(asks) = &*self.asks.lock().unwrap_or_else(PoisonError::into_inner) {
            // A thread that is gone has nothing left to reset.
            let _ = asks.send(Ask::Reset);
        }
    }

    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Ask) -> Option<T> {
        let (sender, answer) = channel();
        let asks = self
            .asks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()?;
        asks.send(question(sender)).ok()?;
        answer.recv_timeout(ANSWER).ok()
    }

    /// Shuts the controller down in order and waits for it. I/O that is out fails, and so does all later I/O.
    pub fn shut_down(&self) {
        let asks = self
            .asks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(asks) = asks else {
            return;
        };
        let (sender, done) = channel();
        if asks.send(Ask::ShutDown(sender)).is_ok() {
            let _ = done.recv();
        }
        if let Some(thread) = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            // A panic was printed where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for NvmeDevice {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn bring_up<B: DeviceBacking>(
    backing: Arc<B>,
    options: DriverOptions,
) -> Result<(Controller<B>, Found<B>), NvmeError> {
    let clock = Clock::tsc();
    let mut controller = Controller::new(backing, options)?;
    controller.attach(|| {
        std::thread::sleep(ATTACH_PAUSE);
        clock.now()
    })?;
    let pairs = controller.queue_pairs()?;
    let identity = controller.identity().unwrap_or_default();
    let found = Found {
        serial: identity.serial,
        model: identity.model,
        firmware: identity.firmware,
        oncs: identity.oncs,
        write_cache: identity.vwc & 1 != 0,
        namespaces: controller.namespaces(),
        pairs,
    };
    Ok((controller, found))
}
