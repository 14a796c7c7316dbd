//! [`Record`]: what was asked for and what was changed for it, kept where it survives a reboot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::hands;
use crate::prepare::Wish;
use crate::root::Root;

const PATH: &str = "/var/lib/keel-node/record.json";
const LOCK: &str = "/var/lib/keel-node/lock";

/// A record that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file system refuses.
    #[error("{PATH}: {0}")]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error(
        "{PATH} is damaged ({0}): bind the devices by hand (docs/operating/doctor.md), then remove it"
    )]
    Damaged(#[from] serde_json::Error),
    /// Two at a time.
    #[error("another `keel node prepare` or `release` runs; wait for it")]
    Busy,
}

/// How a device was before it was touched.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Before {
    pub(crate) driver: Option<String>,
    pub(crate) driver_override: Option<String>,
    /// Owner of the file that a process opens, if it was there already.
    pub(crate) owner: Option<(u32, u32)>,
}

/// What was asked for, and what there was before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Record {
    /// Everything that was asked for, over all calls: what is done again at the next boot.
    pub wish: Wish,
    /// The boot in which what follows was changed; a reboot undid it.
    boot: String,
    pub(crate) devices: BTreeMap<Address, Before>,
    /// What the kernel's files with numbers of huge pages said.
    pub(crate) pages: BTreeMap<String, u64>,
    pub(crate) modules: BTreeSet<String>,
    /// Files that are ours, whatever the boot.
    pub(crate) files: BTreeSet<String>,
}

impl Record {
    /// What is recorded; empty if nothing is. What a reboot undid is left out.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn load(root: &Root) -> Result<Record, RecordError> {
        let mut record = match fs::read_to_string(root.path(PATH)) {
            Ok(text) => serde_json::from_str(&text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(error) => return Err(error.into()),
        };
        let boot = root
            .read("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default();
        if record.boot != boot {
            record.boot = boot;
            record.devices.clear();
            record.pages.clear();
            record.modules.clear();
        }
        Ok(record)
    }

    /// Whether there is nothing to undo.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Record {
            wish,
            devices,
            pages,
            modules,
            files,
            boot: _,
        } = self;
        wish.devices.is_empty()
            && devices.is_empty()
            && pages.is_empty()
            && modules.is_empty()
            && files.is_empty()
    }

    /// Keeps it; an empty one leaves no file.
    pub(crate) fn save(&self, root: &Root) -> Result<(), RecordError> {
        if self.is_empty() {
            return Ok(hands::remove(&root.path(PATH))?);
        }
        let text = serde_json::to_string_pretty(self)?;
        Ok(hands::file(&root.path(PATH), &text)?)
    }

    /// Keeps others from changing the host meanwhile; the file's end gives it back.
    pub(crate) fn lock(root: &Root) -> Result<File, RecordError> {
        let path = root.path(LOCK);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = File::create(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(RecordError::Busy),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }
}
