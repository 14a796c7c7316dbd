//! The devices of a process by name, and who has them open.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spdk_thread::Thread;

use crate::health::HealthBook;
use crate::life::{Life, Withdrawn};
use crate::{Bdev, BdevError, BdevErrorKind, Channel, Geometry, Health, Op, SlowIos};

/// How a device is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reads and flushes. Any number of holders.
    ReadOnly,
    /// Everything the device supports. One holder at a time, beside any number of readers.
    ReadWrite,
}

/// The block devices of a process (SPDK: `spdk_bdev_register`, `spdk_bdev_open_ext`). `Clone + Send + Sync`; all clones are
/// one registry. Not for the data path: it locks.
#[derive(Clone, Default)]
pub struct Registry {
    devices: Arc<Mutex<BTreeMap<String, Arc<Entry>>>>,
    slow: Option<SlowIos>,
}

pub(crate) struct Entry {
    name: Arc<str>,
    /// Of the first life: later ones continue it ([`Geometry::continues`]).
    pub(crate) geometry: Geometry,
    /// Of all lives.
    health: Arc<HealthBook>,
    life: Mutex<Life>,
    holders: Mutex<Holders>,
}

#[derive(Default)]
struct Holders {
    writer: Option<String>,
    readers: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Registry {
        Registry::default()
    }

    /// An empty registry whose devices tell of their slow I/Os.
    #[must_use]
    pub fn telling(slow: SlowIos) -> Registry {
        Registry {
            slow: Some(slow),
            ..Registry::default()
        }
    }

    /// Makes a device known by its name.
    ///
    /// # Errors
    /// [`BdevErrorKind::Exists`], [`BdevErrorKind::Geometry`].
    pub fn register(&self, bdev: Arc<dyn Bdev>) -> Result<(), BdevError> {
        let name = bdev.name().to_owned();
        let geometry = bdev.geometry();
        geometry.check().map_err(|why| BdevErrorKind::Geometry {
            name: name.clone(),
            why,
        })?;
        let mut devices = lock(&self.devices);
        if devices.contains_key(&name) {
            return Err(BdevErrorKind::Exists { name }.into());
        }
        let health = Arc::new(HealthBook::new(self.slow.clone()));
        let shared = name.as_str().into();
        let entry = Entry {
            life: Mutex::new(Life::begin(&shared, &health, bdev)),
            name: shared,
            geometry,
            health,
            holders: Mutex::default(),
        };
        devices.insert(name, Arc::new(entry));
        Ok(())
    }

    /// Opens a device; `holder` says who does, for the messages that others get.
    ///
    /// # Errors
    /// [`BdevErrorKind::NotFound`]; for [`Mode::ReadWrite`] also [`BdevErrorKind::HasWriter`], naming the first, and
    /// [`BdevErrorKind::CannotWrite`].
    pub fn open(&self, name: &str, mode: Mode, holder: &str) -> Result<Descriptor, BdevError> {
        let devices = lock(&self.devices);
        let Some(entry) = devices.get(name) else {
            return Err(not_found(name, &devices));
        };
        let mut holders = lock(&entry.holders);
        match mode {
            Mode::ReadOnly => holders.readers.push(holder.to_owned()),
            Mode::ReadWrite => {
                if !entry.geometry.supports.contains(Op::Write) {
                    return Err(BdevErrorKind::CannotWrite {
                        name: name.to_owned(),
                    }
                    .into());
                }
                if let Some(first) = &holders.writer {
                    return Err(BdevErrorKind::HasWriter {
                        name: name.to_owned(),
                        holder: first.clone(),
                    }
                    .into());
                }
                holders.writer = Some(holder.to_owned());
            }
        }
        drop(holders);
        let opened = Opened {
            entry: Arc::clone(entry),
            mode,
            holder: holder.to_owned(),
        };
        Ok(Descriptor {
            opened: Arc::new(opened),
        })
    }

    /// All devices, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<dyn Bdev>> {
        lock(&self.devices)
            .values()
            .map(|entry| entry.bdev())
            .collect()
    }

    /// One device, open or not.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<dyn Bdev>> {
        lock(&self.devices).get(name).map(|entry| entry.bdev())
    }

    /// The counters of a device.
    ///
    /// # Errors
    /// [`BdevErrorKind::NotFound`].
    pub fn health(&self, name: &str) -> Result<Health, BdevError> {
        let devices = lock(&self.devices);
        devices
            .get(name)
            .map(|entry| entry.health.read())
            .ok_or_else(|| not_found(name, &devices))
    }

    /// Takes a device out of use, or puts it back. What was opened before refuses every new I/O from then on, also after the device
    /// is back ([`Reject::Evicted`](crate::Reject::Evicted), [`Channel::watch_end`]); what is out ends as it would. While it is
    /// out there are no new channels. DAOS: a blobstore in state OUT.
    ///
    /// # Errors
    /// [`BdevErrorKind::NotFound`].
    pub fn set_evicted(&self, name: &str, evicted: bool) -> Result<(), BdevError> {
        let entry = self.entry(name)?;
        let mut life = lock(&entry.life);
        if evicted {
            life.end.end();
        } else if life.end.is_over() {
            *life = Life::begin(&entry.name, &entry.health, Arc::clone(&life.bdev));
        }
        Ok(())
    }

    /// A device was removed: as if evicted, and the registry keeps nothing of it but its name, its numbers and its counters.
    ///
    /// # Errors
    /// [`BdevErrorKind::NotFound`].
    pub fn withdraw(&self, name: &str) -> Result<(), BdevError> {
        let entry = self.entry(name)?;
        let mut life = lock(&entry.life);
        life.end.end();
        let stands_in = Arc::new(Withdrawn::of(&*life.bdev));
        *life = Life::begin(&entry.name, &entry.health, stands_in);
        life.end.end();
        Ok(())
    }

    /// The device of this name is there again, as `bdev`. It stays out of use until [`Registry::set_evicted`] lets it in; descriptors
    /// are descriptors of this one from now on.
    ///
    /// # Errors
    /// [`BdevErrorKind::NotFound`]; [`BdevErrorKind::NotGone`]; [`BdevErrorKind::Geometry`] when it is not as it was.
    pub fn put_back(&self, bdev: Arc<dyn Bdev>) -> Result<(), BdevError> {
        let entry = self.entry(bdev.name())?;
        let mut life = lock(&entry.life);
        if !life.end.is_over() {
            let device = bdev.name().to_owned();
            return Err(BdevErrorKind::NotGone { device }.into());
        }
        let continues = bdev.geometry().continues(&entry.geometry);
        continues.map_err(|why| BdevErrorKind::Geometry {
            name: bdev.name().to_owned(),
            why,
        })?;
        life.bdev = bdev;
        Ok(())
    }

    fn entry(&self, name: &str) -> Result<Arc<Entry>, BdevError> {
        let devices = lock(&self.devices);
        let entry = devices.get(name).ok_or_else(|| not_found(name, &devices))?;
        Ok(Arc::clone(entry))
    }

    /// Forgets a device that nobody has open.
    ///
    /// # Errors
    /// [`BdevErrorKind::NotFound`]; [`BdevErrorKind::InUse`], naming the holders.
    pub fn remove(&self, name: &str) -> Result<Arc<dyn Bdev>, BdevError> {
        let mut devices = lock(&self.devices);
        let Some(entry) = devices.get(name) else {
            return Err(not_found(name, &devices));
        };
        let holders: Vec<String> = {
            let held = lock(&entry.holders);
            held.writer
                .iter()
                .chain(&held.readers)
                .map(|holder| format!("`{holder}`"))
                .collect()
        };
        if !holders.is_empty() {
            return Err(BdevErrorKind::InUse {
                name: name.to_owned(),
                holders: holders.join(", "),
            }
            .into());
        }
        let bdev = entry.bdev();
        devices.remove(name);
        Ok(bdev)
    }
}

impl Entry {
    fn bdev(&self) -> Arc<dyn Bdev> {
        Arc::clone(&lock(&self.life).bdev)
    }
}

fn not_found(name: &str, devices: &BTreeMap<String, Arc<Entry>>) -> BdevError {
    let known: Vec<&str> = devices.keys().map(String::as_str).collect();
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    BdevErrorKind::NotFound {
        name: name.to_owned(),
        known,
    }
    .into()
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(lock(&self.devices).keys()).finish()
    }
}

/// The right to use a device, from [`Registry::open`] until the last clone and the last channel made from it are gone
/// (SPDK: `struct spdk_bdev_desc`). `Clone + Send + Sync`.
#[derive(Clone)]
pub struct Descriptor {
    opened: Arc<Opened>,
}

pub(crate) struct Opened {
    pub(crate) entry: Arc<Entry>,
    pub(crate) mode: Mode,
    holder: String,
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut holders = lock(&self.entry.holders);
        match self.mode {
            Mode::ReadWrite => holders.writer = None,
            Mode::ReadOnly => {
                if let Some(at) = holders
                    .readers
                    .iter()
                    .position(|reader| *reader == self.holder)
                {
                    holders.readers.swap_remove(at);
                }
            }
        }
    }
}

impl Descriptor {
    /// The device, as it is now.
    #[must_use]
    pub fn bdev(&self) -> Arc<dyn Bdev> {
        self.opened.entry.bdev()
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.opened.entry.name
    }

    /// Size, shape and abilities.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.opened.entry.geometry
    }

    /// How it was opened.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.opened.mode
    }

    /// The device's counters, over all threads and holders.
    #[must_use]
    pub fn health(&self) -> Health {
        self.opened.entry.health.read()
    }

    /// The channel of `thread`, which must be the calling one. The first call on a thread makes it; later ones share it;
    /// it goes when its last holder does and its I/O has come back.
    ///
    /// # Errors
    /// [`BdevErrorKind::Channel`]; [`BdevErrorKind::Gone`] while the device is evicted or removed.
    pub fn get_channel(&self, thread: &Thread) -> Result<Channel, BdevError> {
        let io_device = {
            let life = lock(&self.opened.entry.life);
            if life.end.is_over() {
                let device = self.name().to_owned();
                return Err(BdevErrorKind::Gone { device }.into());
            }
            life.io_device.clone()
        };
        let channel = thread
            .get_io_channel(&io_device)
            .map_err(|why| BdevError::channel(self.name(), why.to_string()))?;
        Ok(Channel::new(channel, Arc::clone(&self.opened)))
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Descriptor({:?}, {:?}, held by {:?})",
            self.name(),
            self.mode(),
            self.opened.holder
        )
    }
}
