//! The configured block devices, opened and dealt out to the targets.

use std::sync::Arc;

use bdev_file::{FileBdev, FileOptions};
use bdev_malloc::MallocBdev;
use bdev_null::NullBdev;
use bdev_nvme::NvmeDevice;
use engine_config::{Backing, Config, Device};
use engine_devices::{Plugged, TableFile};
use spdk_bdev::{Bdev, Descriptor, Mode, Registry};

use crate::device_book::{DeviceBook, OnSsd, Opened};
use crate::error::BootError;
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
    /// Path or PCI address of each device of the registry's list, empty where it has none.
    pub(crate) paths: Vec<(String, String)>,
    /// Their states, on stable storage.
    pub(crate) book: DeviceBook,
    /// Slow I/Os, and the requests that they were done for.
    pub(crate) slow: SlowBook,
}

impl Devices {
    /// Opens and locks every device, and makes sure that each target gets the one that holds its data; on an error those already open are
    /// closed. The storage directory is locked.
    pub(crate) fn open(config: &Config) -> Result<Devices, BootError> {
        let mailbox = DeviceBook::mailbox();
        let ssds = Ssds::attach(config, &mailbox.0)?;
        let slow = SlowBook::default();
        let registry = wiring::registry(config, &slow);
        let mut descriptors = Vec::with_capacity(config.device.len());
        let mut opened = Vec::with_capacity(config.device.len());
        let mut paths = Vec::with_capacity(config.device.len());
        for device in &config.device {
            let (bdev, on_ssd) = open(device, &ssds)?;
            paths.push((device.name.clone(), place(device)));
            opened.push(describe(config, opened.len(), &*bdev, on_ssd));
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

/// What the book is told of a device.
fn describe(config: &Config, index: usize, bdev: &dyn Bdev, ssd: Option<OnSsd>) -> Opened {
    let placements = config.placements();
    let on_it = placements
        .iter()
        .filter(|placement| placement.device == index);
    let there = ssd.as_ref().and_then(|on| on.ssd.as_ref());
    let said = |what: fn(&NvmeDevice) -> &str| there.map_or("", |ssd| what(ssd)).to_owned();
    Opened {
        plugged: Plugged {
            uuid: bdev.uuid(),
            name: bdev.name().to_owned(),
            serial: said(NvmeDevice::serial),
            model: said(NvmeDevice::model),
            targets: on_it.map(|placement| placement.target).collect(),
            bytes: bdev.geometry().bytes(),
            lasting: bdev.driver() == "nvme",
        },
        is_kept: matches!(bdev.driver(), "file" | "nvme"),
        ssd,
    }
}

/// Where a device is, for operators.
fn place(device: &Device) -> String {
    match device.backing() {
        Some(Backing::Nvme { address, .. }) => address.to_owned(),
        Some(Backing::File { path, .. }) => path.display().to_string(),
        Some(Backing::Malloc { .. } | Backing::Null { .. }) | None => String::new(),
    }
}

fn open(device: &Device, ssds: &Ssds) -> Result<(Arc<dyn Bdev>, Option<OnSsd>), BootError> {
    let block = device.block_size();
    let blocks = |bytes: u64| bytes / u64::from(block);
    let backing = device.backing().ok_or_else(|| {
        BootError::config(format!(
            "device `{}` lacks an address, a path or a size",
            device.name
        ))
    })?;
    let bdev: Arc<dyn Bdev> = match backing {
        Backing::Nvme { address, namespace } => {
            let ssd = ssds
                .at(address)
                .ok_or_else(|| BootError::software(format!("SSD {address} was not attached")))?;
            let (bdev, on) = ssds::namespace(ssd, &device.name, namespace)?;
            return Ok((bdev, Some(on)));
        }
        Backing::File { path, create } => {
            let options = FileOptions {
                block_size: block,
                create_size: create.map(|size| size.0),
                ..FileOptions::default()
            };
            Arc::new(FileBdev::open(&device.name, path, &options).map_err(BootError::cannot_use)?)
        }
        Backing::Malloc { size } => Arc::new(
            MallocBdev::new(&device.name, block, blocks(size.0)).map_err(BootError::system)?,
        ),
        Backing::Null { size } => Arc::new(NullBdev::new(&device.name, block, blocks(size.0))),
    };
    Ok((bdev, None))
}
