//! The configured block devices, opened and dealt out to the targets.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use bdev_file::{FileBdev, FileOptions};
use bdev_malloc::MallocBdev;
use bdev_null::NullBdev;
use engine_config::{Backing, Config, Device, MIN_TARGET_SIZE};
use engine_devices::{Plugged, TableFile};
use spdk_bdev::{Bdev, Descriptor, Mode, Registry};

use crate::device_book::{Ask, DeviceBook, OnSsd, Opened};
use crate::error::BootError;
use crate::hosted::Hosted;
use crate::libspdk::Libspdk;
use crate::ras::Ras;
use crate::slow::SlowBook;
use crate::ssds::{self, Slots, Ssds};
use crate::wiring;

/// One target's part of its device.
#[derive(Clone)]
pub(crate) struct Share {
    pub(crate) descriptor: Descriptor,
    pub(crate) first_block: u64,
    pub(crate) num_blocks: u64,
}

/// All devices, and the share of each target by its number.
pub(crate) struct Devices {
    pub(crate) registry: Registry,
    pub(crate) shares: Vec<Share>,
    /// Path, PCI address or name in SPDK of each device of the registry's list, empty where it has none.
    pub(crate) paths: Vec<(String, String)>,
    /// Their states, on stable storage.
    pub(crate) book: DeviceBook,
    /// Slow I/Os, and the requests that they were done for.
    pub(crate) slow: SlowBook,
}

impl Devices {
    /// Opens and locks every device, and makes sure that each target gets the one that holds its data; on an error those already open are
    /// closed. The storage directory is locked.
    pub(crate) fn open(config: &Config, libspdk: Option<&Libspdk>) -> Result<Devices, BootError> {
        let mailbox = DeviceBook::mailbox();
        let ssds = Ssds::attach(config, &mailbox.0)?;
        let slow = SlowBook::default();
        let registry = wiring::registry(config, &slow);
        let mut descriptors = Vec::with_capacity(config.device.len());
        let mut opened = Vec::with_capacity(config.device.len());
        let mut paths = Vec::with_capacity(config.device.len());
        for device in &config.device {
            let found = open(device, &ssds, libspdk, &mailbox.0)?;
            paths.push((device.name.clone(), place(device)));
            let bdev = Arc::clone(&found.bdev);
            let described = describe(config, opened.len(), found);
            has_room(&described.plugged)?;
            opened.push(described);
            registry.register(bdev).map_err(BootError::cannot_use)?;
            descriptors.push(
                registry
                    .open(&device.name, Mode::ReadWrite, "targets")
                    .map_err(BootError::cannot_use)?,
            );
        }
        let file = TableFile::in_dir(&config.engine.storage_dir);
        let ras = Ras::new(config.drpc.control_server.clone());
        let criteria = wiring::criteria(config);
        let bays = Arc::new(Slots::of(config));
        let book = DeviceBook::open(file, &registry, opened, criteria, ras, bays, mailbox)?;
        let shares = config
            .placements()
            .iter()
            .map(|placement| {
                let descriptor = descriptors[placement.device].clone();
                let geometry = descriptor.geometry();
                // Of a device that grew the shares stay where they are.
                let known = book.bytes_of(descriptor.bdev().uuid());
                let bytes = placement.bytes(known.unwrap_or(geometry.bytes()));
                let block = u64::from(geometry.block_size);
                Share {
                    descriptor,
                    first_block: bytes.start / block,
                    num_blocks: (bytes.end - bytes.start) / block,
                }
            })
            .collect();
        Ok(Devices {
            registry,
            shares,
            paths,
            book,
            slow,
        })
    }

    /// The targets that have a share of the device.
    pub(crate) fn targets_of(&self, device: &str) -> Vec<u32> {
        let on_it = self
            .shares
            .iter()
            .enumerate()
            .filter(|(_, share)| share.descriptor.name() == device);
        on_it.map(|(target, _)| target as u32).collect()
    }
}

/// A device that SPDK has and lends.
pub(crate) struct Lent {
    pub(crate) bdev: Arc<dyn Bdev>,
    /// It may keep its data.
    pub(crate) is_kept: bool,
    /// What it is, for operators.
    pub(crate) model: String,
    /// Of the SSD under it, where there is one.
    pub(crate) serial: String,
    pub(crate) host: Arc<dyn Hosted>,
}

/// A device of the configuration, opened.
struct Found {
    bdev: Arc<dyn Bdev>,
    is_kept: bool,
    model: String,
    serial: String,
    ssd: Option<OnSsd>,
    hosted: Option<Arc<dyn Hosted>>,
}

/// What the book is told of a device.
fn describe(config: &Config, index: usize, found: Found) -> Opened {
    let Found {
        bdev,
        is_kept,
        model,
        serial,
        ssd,
        hosted,
    } = found;
    let placements = config.placements();
    let on_it = placements
        .iter()
        .filter(|placement| placement.device == index);
    let is_ssd = hosted.as_ref().is_some_and(|host| host.ssd().is_some());
    Opened {
        plugged: Plugged {
            uuid: bdev.uuid(),
            name: bdev.name().to_owned(),
            serial,
            model,
            targets: on_it.map(|placement| placement.target).collect(),
            bytes: bdev.geometry().bytes(),
            lasting: bdev.driver() == "nvme" || is_ssd,
        },
        is_kept,
        ssd,
        hosted,
    }
}

/// What only shows when a device is open: of files, sizes were compared when the configuration was read.
fn has_room(plugged: &Plugged) -> Result<(), BootError> {
    let Plugged {
        name,
        bytes,
        targets,
        ..
    } = plugged;
    if *bytes >= MIN_TARGET_SIZE.0 * targets.len() as u64 {
        return Ok(());
    }
    Err(BootError::cannot_use(format!(
        "device {name} has {bytes} bytes, too small for the targets {targets:?} on it: each needs at least {MIN_TARGET_SIZE}"
    )))
}

/// Where a device is, for operators.
fn place(device: &Device) -> String {
    match device.backing() {
        Some(Backing::Nvme { address, .. }) => address.to_owned(),
        Some(Backing::File { path, .. }) => path.display().to_string(),
        Some(Backing::Spdk { bdev }) => bdev.to_owned(),
        Some(Backing::Malloc { .. } | Backing::Null { .. }) | None => String::new(),
    }
}

fn open(
    device: &Device,
    ssds: &Ssds,
    libspdk: Option<&Libspdk>,
    book: &Sender<Ask>,
) -> Result<Found, BootError> {
    let block = device.block_size();
    let blocks = |bytes: u64| bytes / u64::from(block);
    let backing = device.backing().ok_or_else(|| {
        BootError::config(format!(
            "device `{}` lacks an address, a path, a size or a name",
            device.name
        ))
    })?;
    let found = |bdev: Arc<dyn Bdev>, is_kept| Found {
        bdev,
        is_kept,
        model: String::new(),
        serial: String::new(),
        ssd: None,
        hosted: None,
    };
    Ok(match backing {
        Backing::Nvme { address, namespace } => {
            let ssd = ssds
                .at(address)
                .ok_or_else(|| BootError::software(format!("SSD {address} was not attached")))?;
            let (bdev, on) = ssds::namespace(ssd, &device.name, namespace)?;
            Found {
                model: ssd.model().to_owned(),
                serial: ssd.serial().to_owned(),
                ssd: Some(on),
                ..found(bdev, true)
            }
        }
        Backing::File { path, create } => {
            let options = FileOptions {
                block_size: block,
                create_size: create.map(|size| size.0),
                ..FileOptions::default()
            };
            let file = FileBdev::open(&device.name, path, &options);
            found(Arc::new(file.map_err(BootError::cannot_use)?), true)
        }
        Backing::Malloc { size } => {
            let memory = MallocBdev::new(&device.name, block, blocks(size.0));
            found(Arc::new(memory.map_err(BootError::system)?), false)
        }
        Backing::Null { size } => {
            let null = NullBdev::new(&device.name, block, blocks(size.0));
            found(Arc::new(null), false)
        }
        Backing::Spdk { bdev } => {
            let libspdk = libspdk.ok_or_else(|| BootError::software("SPDK was not started"))?;
            let lent = libspdk.open(&device.name, bdev, book)?;
            Found {
                model: lent.model,
                serial: lent.serial,
                hosted: Some(lent.host),
                ..found(lent.bdev, lent.is_kept)
            }
        }
    })
}
