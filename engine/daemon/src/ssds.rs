//! The NVMe SSDs that the configuration names: one controller each, however many of its namespaces are devices.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use bdev_nvme::{DriverOptions, NvmeDevice};
use engine_config::{Backing, Config};
use spdk_bdev::Bdev;
use spdk_env::{DeviceBacking, UioDevice, VfioDevice};

use crate::device_book::{Ask, OnSsd};
use crate::error::BootError;

/// I/Os of one target at its SSD; also bounds the commands, so that a queue never fills.
pub(crate) const DEPTH: u32 = 1023;

/// The controllers by PCI address, until their namespaces are devices.
#[derive(Default)]
pub(crate) struct Ssds {
    attached: BTreeMap<String, Arc<NvmeDevice>>,
}

impl Ssds {
    /// Takes every SSD of the configuration and brings it up, all at once: each may take seconds. After an error those that came up are
    /// shut down again.
    pub(crate) fn attach(config: &Config, book: &Sender<Ask>) -> Result<Ssds, BootError> {
        let wanted = targets_by_address(config);
        let attached = std::thread::scope(|scope| {
            let coming: Vec<_> = wanted
                .iter()
                .map(|(address, targets)| {
                    let book = book.clone();
                    scope.spawn(move || attach(address, *targets, book))
                })
                .collect();
            let came: Vec<_> = coming
                .into_iter()
                .map(|thread| {
                    let died = |_| Err(BootError::software("attaching an SSD panicked"));
                    thread.join().unwrap_or_else(died)
                })
                .collect();
            came.into_iter().collect::<Result<Vec<_>, _>>()
        })?;
        let named = wanted.into_keys().map(str::to_owned);
        Ok(Ssds {
            attached: named.zip(attached).collect(),
        })
    }

    /// The SSD at an address that the configuration names.
    pub(crate) fn at(&self, address: &str) -> Option<&Arc<NvmeDevice>> {
        self.attached.get(address)
    }
}

/// Where SSDs come and go.
pub(crate) trait Bays: Send + Sync {
    /// Who is at this address, as a number that no other has; `None`: nobody.
    fn occupant(&self, address: &str) -> Option<u64>;

    /// Brings the SSD at this address up, for as many targets as before. Takes as long as the SSD does.
    ///
    /// # Errors
    /// Why it cannot be had, and the cure.
    fn attach(&self, address: &str, book: Sender<Ask>) -> Result<Arc<NvmeDevice>, String>;
}

/// The machine's slots, with the number of targets on each.
pub(crate) struct Slots(BTreeMap<String, u16>);

impl Slots {
    pub(crate) fn of(config: &Config) -> Slots {
        let owned = |(address, targets): (&str, u16)| (address.to_owned(), targets);
        Slots(targets_by_address(config).into_iter().map(owned).collect())
    }
}

impl Bays for Slots {
    fn occupant(&self, address: &str) -> Option<u64> {
        // The folder of a device that was put in anew is another one.
        let folder = Path::new("/sys/bus/pci/devices").join(address);
        fs::metadata(folder).ok().map(|folder| folder.ino())
    }

    fn attach(&self, address: &str, book: Sender<Ask>) -> Result<Arc<NvmeDevice>, String> {
        let targets = self.0.get(address).copied().unwrap_or(1);
        attach(address, targets, book).map_err(|error| error.what)
    }
}

/// How many targets are on each SSD: each has a queue pair of its own.
pub(crate) fn targets_by_address(config: &Config) -> BTreeMap<&str, u16> {
    let mut wanted = BTreeMap::new();
    for placement in config.placements() {
        let device = config.device.get(placement.device);
        if let Some(Backing::Nvme { address, .. }) = device.and_then(|device| device.backing()) {
            *wanted.entry(address).or_insert(0) += 1;
        }
    }
    wanted
}

fn attach(address: &str, targets: u16, book: Sender<Ask>) -> Result<Arc<NvmeDevice>, BootError> {
    let options = DriverOptions {
        queue_pairs: targets,
        queue_entries: DEPTH + 1,
        depth: DEPTH,
        interrupts: true,
        ..DriverOptions::default()
    };
    let own = address.to_owned();
    let tell = move |event| {
        // After the book was closed there is nobody to tell.
        let _ = book.send(Ask::Ssd(own.clone(), event));
    };
    // As the host was prepared.
    let (ssd, vectors) = if UioDevice::is_bound(address) {
        let backing = UioDevice::open_nvme(address).map_err(BootError::cannot_use)?;
        (NvmeDevice::attach(Arc::new(backing), &options, tell), 0)
    } else {
        // Each queue pair has a vector, the admin queue vector 0.
        let backing = VfioDevice::open_nvme(address)
            .map_err(BootError::cannot_use)?
            .with_vectors(targets.saturating_add(1));
        let vectors = backing.interrupt_vectors();
        let ssd = NvmeDevice::attach(Arc::new(backing), &options, tell);
        (ssd, vectors)
    };
    let ssd = ssd.map_err(BootError::cannot_use)?;
    let granted = ssd.queue_pairs();
    if granted < usize::from(targets) {
        return Err(BootError::cannot_use(format!(
            "device {address}: {targets} targets are on it, and it grants {granted} queue pairs: put at most {granted} targets on it \
             (each has one of its own)"
        )));
    }
    tracing::info!(
        ssd = address,
        serial = ssd.serial(),
        model = ssd.model(),
        firmware = ssd.firmware(),
        queue_pairs = granted,
        interrupt_vectors = vectors,
        volatile_write_cache = ssd.has_write_cache(),
        "SSD attached"
    );
    Ok(Arc::new(ssd))
}

/// A namespace as a block device.
pub(crate) fn namespace(
    ssd: &Arc<NvmeDevice>,
    name: &str,
    number: Option<u32>,
) -> Result<(Arc<dyn Bdev>, OnSsd), BootError> {
    let number = match (number, ssd.namespaces()) {
        (Some(number), _) => number,
        (None, [only]) => only.nsid,
        (None, []) => {
            return Err(BootError::cannot_use(format!(
                "device {}: it has no namespace: make one (nvme create-ns, nvme attach-ns)",
                ssd.address()
            )));
        }
        (None, several) => {
            let numbers: Vec<String> = several.iter().map(|ns| ns.nsid.to_string()).collect();
            return Err(BootError::config(format!(
                "device {}: it has several namespaces ({}): say with `namespace` which one `{name}` is",
                ssd.address(),
                numbers.join(", ")
            )));
        }
    };
    let bdev = ssd.bdev(name, number).map_err(BootError::cannot_use)?;
    let on = OnSsd {
        address: ssd.address().to_owned(),
        ssd: Some(Arc::clone(ssd)),
        namespace: number,
        block_size: bdev.geometry().block_size,
    };
    Ok((bdev, on))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ssd_has_as_many_queue_pairs_as_targets_over_all_its_namespaces() {
        let text = r#"
            [engine]
            targets = 6
            [[device]]
            name = "a1"
            kind = "nvme"
            address = "0000:05:00.0"
            namespace = 1
            [[device]]
            name = "b"
            kind = "nvme"
            address = "0000:06:00.0"
            [[device]]
            name = "a2"
            kind = "nvme"
            address = "0000:05:00.0"
            namespace = 2
        "#;
        let config = Config::parse("six.toml", text).unwrap_or_else(|errors| panic!("{errors}"));
        let wanted: Vec<_> = targets_by_address(&config).into_iter().collect();
        assert_eq!(wanted, [("0000:05:00.0", 4), ("0000:06:00.0", 2)]);
    }
}
