//! C SPDK under the engine: `provider = "libspdk"`. One SPDK for the process, started before devices are opened and stopped after xstreams
//! have ended.

use std::fs;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bdev_nvme::{DeviceHealth, Troubles};
use engine_config::{Config, Provider};
use spdk_bdev::{Bdev, Registry};
use spdk_env::reserved_dma;
use spdk_provider::{
    OpenError, Options, Registered, Spdk, SpdkBdev, SpdkThreads, SsdHealth, StartError, WeakSpdk,
};
use spdk_ring::oneshot;
use uuid::Uuid;

use crate::device_book::Ask;
use crate::devices::Lent;
use crate::error::BootError;
use crate::hosted::{Hosted, HostedSsd};

/// What this engine can run on.
pub(crate) const PROVIDERS: &[Provider] = &[Provider::Native, Provider::Libspdk];

/// The running SPDK.
pub(crate) struct Libspdk {
    /// Given back before SPDK ends.
    registered: Vec<Registered>,
    spdk: Spdk,
}

impl Libspdk {
    /// Starts SPDK on the cores of the xstreams, if the configuration asks for it.
    pub(crate) fn start(config: &Config, cpus: &[usize]) -> Result<Option<Libspdk>, BootError> {
        if config.provider != Provider::Libspdk {
            return Ok(None);
        }
        let spdk = Spdk::start(&options(config, cpus)?).map_err(|error| explain(config, &error))?;
        tracing::info!(
            memory_mib = config.spdk.memory.0 >> 20,
            devices = ?spdk_provider::Bdev::names(&spdk),
            "SPDK runs"
        );
        Ok(Some(Libspdk {
            registered: Vec::new(),
            spdk,
        }))
    }

    /// Makes the engine's own buffers reachable for SPDK's drivers. After they were set aside.
    pub(crate) fn register_memory(&mut self) -> Result<(), BootError> {
        if !self.spdk.has_pci() {
            return Ok(());
        }
        for memory in reserved_dma() {
            let registered = Registered::new(&self.spdk, memory).map_err(|error| {
                BootError::system(format!(
                    "SPDK does not take {} MiB of the engine's huge pages for its drivers: {error}",
                    memory.len() >> 20
                ))
            })?;
            self.registered.push(registered);
        }
        Ok(())
    }

    /// Who carries the xstreams' threads.
    pub(crate) fn threads(&self) -> Arc<dyn spdk_thread::Provider> {
        SpdkThreads::new(&self.spdk)
    }

    /// SPDK's block device `bdev` as the engine's `name`; the book hears when it changes.
    pub(crate) fn open(
        &self,
        name: &str,
        bdev: &str,
        book: &Sender<Ask>,
    ) -> Result<Lent, BootError> {
        let mut host = Host {
            spdk: self.spdk.downgrade(),
            name: name.to_owned(),
            bdev: bdev.to_owned(),
            book: book.clone(),
            ssd: None,
            now: Mutex::default(),
        };
        let opened = host.open(&self.spdk, bdev).map_err(|error| {
            let text = format!("device {name}: {error}");
            match error {
                OpenError::NotFound { .. } => BootError::config(format!(
                    "{text}; SPDK's JSON configuration (spdk.json) makes devices"
                )),
                _ => BootError::cannot_use(text),
            }
        })?;
        let module = opened.module().to_owned();
        // Everything else may have a medium below.
        let is_kept = !matches!(&*module, "malloc" | "null");
        if is_kept && !opened.passes_flushes() {
            tracing::warn!(
                device = name,
                module,
                "SPDK passes no flushes on: what was acknowledged is lost with the power if a medium below has a volatile write cache"
            );
        }
        let (mut model, mut serial) = (format!("SPDK {module}"), String::new());
        if let Some(ssd) = opened.ssd() {
            model.clone_from(&ssd.model);
            serial.clone_from(&ssd.serial);
            host.ssd = Some(HostedSsd {
                firmware: ssd.firmware.clone(),
                namespace: ssd.namespace,
                write_cache: opened.geometry().volatile_write_cache,
            });
        }
        Ok(Lent {
            bdev: host.remember(opened),
            is_kept,
            model,
            serial,
            host: Arc::new(host),
        })
    }

    /// Ends SPDK. After the last channel.
    pub(crate) fn stop(self, registry: &Registry) {
        for bdev in registry
            .list()
            .iter()
            .filter(|bdev| bdev.driver() == "spdk")
        {
            if let Err(error) = registry.withdraw(bdev.name()) {
                tracing::warn!(%error, "a device of SPDK's is not let go of");
            }
        }
        drop(self.registered);
        match self.spdk.stop() {
            Ok(()) => tracing::info!("SPDK has ended"),
            Err(held) => tracing::warn!("{held}: it ends with the process"),
        }
    }
}

impl Libspdk {
    /// Leaves SPDK to the end of the process: something still does I/O.
    pub(crate) fn leave(self) {
        #[expect(clippy::mem_forget, reason = "memory under I/O must stay registered")]
        std::mem::forget(self);
    }
}

fn options(config: &Config, cpus: &[usize]) -> Result<Options, BootError> {
    let spdk = &config.spdk;
    let json = match &spdk.json {
        None => String::new(),
        Some(path) => fs::read_to_string(path).map_err(|error| {
            BootError::config(format!(
                "SPDK's configuration {} cannot be read: {error}",
                path.display()
            ))
        })?,
    };
    Ok(Options {
        cores: cpus.to_vec(),
        memory_mib: u32::try_from(spdk.memory.0 >> 20).unwrap_or(u32::MAX),
        no_huge: !spdk.hugepages,
        interrupt_mode: spdk.interrupt_mode,
        pci_allowed: spdk.pci_allowed.clone(),
        json,
        rpc_socket: spdk
            .rpc_socket
            .as_ref()
            .map(|path| path.display().to_string()),
        ..Options::default()
    })
}

/// With the keys of the configuration, and the exit code that fits.
fn explain(config: &Config, error: &StartError) -> BootError {
    let keys = |text: &str| format!("{error}\n  in the configuration: {text}");
    match error {
        StartError::HugePages { .. } => BootError::cannot_use(keys(
            "spdk.memory is what SPDK takes, spdk.hugepages = false takes ordinary pages",
        )),
        StartError::Config { .. } => {
            let file = config.spdk.json.as_ref();
            let file = file.map_or_else(String::new, |file| format!(" ({})", file.display()));
            BootError::config(keys(&format!(
                "spdk.json{file} is what SPDK was told, spdk.memory ({}) what it has for it",
                config.spdk.memory
            )))
        }
        StartError::Rpc { .. } => BootError::cannot_use(keys("spdk.rpc_socket")),
        StartError::Option(_) | StartError::Cores { .. } => BootError::config(error),
        StartError::Twice | StartError::Spoiled | StartError::OtherOptions { .. } => {
            BootError::software(error)
        }
        StartError::Version { .. } | StartError::Library(_) => BootError::system(error),
        _ => BootError::system(keys("spdk.memory, spdk.hugepages, spdk.pci_allowed")),
    }
}

/// A device in SPDK.
struct Host {
    spdk: WeakSpdk,
    name: String,
    bdev: String,
    book: Sender<Ask>,
    /// A namespace is known whatever SPDK calls it.
    ssd: Option<HostedSsd>,
    now: Mutex<Weak<SpdkBdev>>,
}

impl Host {
    fn open(&self, spdk: &Spdk, bdev: &str) -> Result<SpdkBdev, OpenError> {
        let book = Mutex::new(self.book.clone());
        let look = move |_| {
            // Nobody waits for the answer, and after the end nobody looks.
            let (answer, _) = oneshot::channel();
            let book = book.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = book.send(Ask::Look(answer));
        };
        SpdkBdev::open(spdk, &self.name, bdev, look)
    }

    fn remember(&self, bdev: SpdkBdev) -> Arc<dyn Bdev> {
        let bdev = Arc::new(bdev);
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&bdev);
        bdev
    }
}

impl Hosted for Host {
    fn bytes(&self) -> Option<u64> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.upgrade()?.bytes_now()
    }

    fn ssd(&self) -> Option<&HostedSsd> {
        self.ssd.as_ref()
    }

    fn health(&self) -> Option<DeviceHealth> {
        let now = self
            .now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .upgrade();
        let SsdHealth {
            smart,
            errors,
            firmware,
        } = now?.health()?;
        Some(DeviceHealth {
            smart: Some(smart),
            errors,
            firmware,
            telemetry: None,
            troubles: Troubles::default(),
            failed: None,
            removed: false,
        })
    }

    fn reopen(&self, uuid: Uuid) -> Option<Result<Arc<dyn Bdev>, String>> {
        let spdk = self.spdk.upgrade()?;
        let by_name = || {
            let is_it = |name: &String| *name == self.bdev;
            spdk_provider::Bdev::names(&spdk).into_iter().find(is_it)
        };
        let found = match self.ssd {
            Some(_) => SpdkBdev::find(&spdk, uuid).or_else(by_name)?,
            None => by_name()?,
        };
        let opened = self.open(&spdk, &found).map_err(|error| error.to_string());
        Some(opened.and_then(|bdev| {
            let found = bdev.uuid();
            if found == uuid {
                Ok(self.remember(bdev))
            } else {
                Err(format!("another SSD is in its place ({found})"))
            }
        }))
    }
}
