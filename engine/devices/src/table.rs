//! [`DeviceTable`]: the records, and every change that they may undergo.

use daos_errno::Der;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Kept, State};

/// Records at most. When one more comes, the oldest without targets goes; with none such, the change is refused.
pub const MAX_RECORDS: usize = 256;

/// A device that targets were put on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who it is; never changes.
    pub uuid: Uuid,
    /// Its name in the configuration when it was last plugged.
    pub name: String,
    /// Serial number; empty where it has none.
    pub serial: String,
    /// Model; empty where it has none.
    pub model: String,
    /// Targets whose data it holds, ascending.
    pub targets: Vec<u32>,
    /// Bytes that it had when the targets were put on it: their shares are parts of these, whatever it grows to. 0 in tables of before.
    #[serde(default)]
    pub bytes: u64,
    /// Its state.
    pub state: Kept,
    /// Why it is faulty; empty while it is normal.
    pub reason: String,
}

/// A device that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugged {
    /// Who it is.
    pub uuid: Uuid,
    /// Its name in the configuration.
    pub name: String,
    /// Serial number; empty where it has none.
    pub serial: String,
    /// Model; empty where it has none.
    pub model: String,
    /// Targets that the configuration puts on it.
    pub targets: Vec<u32>,
    /// Its size in bytes.
    pub bytes: u64,
    /// True when its uuid is its own for life (NVMe). That of a file is made of file system and inode numbers and may change: then the
    /// device of the same name is taken to be the same.
    pub lasting: bool,
}

/// Why the engine must not start on the devices that are there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignError {
    /// A target's data is on another device.
    #[error(
        "the data of target {target} is on device `{recorded_name}` ({recorded}{serial}), and the configuration puts the target on `{configured}`: \
         give it that device again, or, if the device is lost with its data, say so with `keel devices set-faulty {recorded} --storage-dir DIR`"
    )]
    Elsewhere {
        /// The target.
        target: u32,
        /// Where its data is.
        recorded: Uuid,
        /// Name of that device when it was last there.
        recorded_name: String,
        /// `, serial X`, where it has one.
        serial: String,
        /// The device that the configuration names.
        configured: String,
    },
    /// Two plugged devices say that they are the same.
    #[error(
        "devices `{first}` and `{second}` have the same uuid {uuid}: one of them is a copy, or configured twice"
    )]
    Twins {
        /// Both their uuid.
        uuid: Uuid,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// A device has fewer bytes than its targets' shares were cut from.
    #[error(
        "device `{name}` ({uuid}) has {bytes} bytes and had {recorded} when targets were put on it: their data may lie beyond its end; give it its size again, or, \
         if the data is lost, say so with `keel devices set-faulty {uuid} --storage-dir DIR`"
    )]
    Shrunk {
        /// Which.
        uuid: Uuid,
        /// Its name.
        name: String,
        /// Bytes now.
        bytes: u64,
        /// Bytes then.
        recorded: u64,
    },
    /// [`MAX_RECORDS`].
    #[error("the table of devices is full ({MAX_RECORDS} records, all with targets)")]
    Full,
}

/// Why a change was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Not in the table.
    #[error("there is no device {0} in the table of devices")]
    Unknown(Uuid),
    /// Replacing something that works.
    #[error(
        "device {0} is in use and not faulty: set it faulty first (`keel devices set-faulty {0}`)"
    )]
    InUse(Uuid),
    /// The new device is not there.
    #[error("device {0} is not plugged: add it to the configuration and restart the engine")]
    NotPlugged(Uuid),
    /// The new device has targets of its own.
    #[error("device {0} holds the data of targets of its own")]
    Taken(Uuid),
}

impl ChangeError {
    /// DAOS's number for it.
    #[must_use]
    pub fn der(&self) -> Der {
        match self {
            ChangeError::Unknown(_) => Der::NONEXIST,
            ChangeError::InUse(_) | ChangeError::NotPlugged(_) | ChangeError::Taken(_) => {
                Der::INVAL
            }
        }
    }
}

/// The records of an engine's devices.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeviceTable {
    records: Vec<Record>,
}

impl DeviceTable {
    /// All records, oldest first.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The record of a device.
    #[must_use]
    pub fn get(&self, uuid: Uuid) -> Option<&Record> {
        self.records.iter().find(|record| record.uuid == uuid)
    }

    /// The state that operators see.
    #[must_use]
    pub fn state(&self, uuid: Uuid, plugged: bool) -> State {
        State::of(self.get(uuid).map(|record| record.state), plugged)
    }

    fn owner(&self, target: u32) -> Option<&Record> {
        self.records
            .iter()
            .find(|record| record.targets.contains(&target))
    }

    /// At start: checks that every target gets the device that holds its data, and takes down who is new. A target whose device is faulty
    /// may start on another one, without its data; a device that is kept as normal is never exchanged for another. True when something
    /// changed, and the table has to be saved before the devices are used.
    ///
    /// # Errors
    /// [`AssignError`]; nothing changed.
    pub fn reconcile(&mut self, plugged: &[Plugged]) -> Result<bool, AssignError> {
        for (at, device) in plugged.iter().enumerate() {
            if let Some(twin) = plugged[..at].iter().find(|other| other.uuid == device.uuid) {
                return Err(AssignError::Twins {
                    uuid: device.uuid,
                    first: twin.name.clone(),
                    second: device.name.clone(),
                });
            }
        }
        let mut next = self.clone();
        for device in plugged.iter().filter(|device| !device.lasting) {
            next.recognise(device, plugged);
        }
        for device in plugged {
            for target in &device.targets {
                next.assign(*target, device)?;
            }
            next.refresh(device)?;
        }
        let changed = next != *self;
        *self = next;
        Ok(changed)
    }

    /// A device whose uuid may change goes on under its new one.
    fn recognise(&mut self, device: &Plugged, plugged: &[Plugged]) {
        if self.get(device.uuid).is_some() {
            return;
        }
        let is_elsewhere = |uuid| plugged.iter().any(|other| other.uuid == uuid);
        let same = self
            .records
            .iter_mut()
            .find(|record| record.name == device.name && !is_elsewhere(record.uuid));
        if let Some(record) = same {
            record.uuid = device.uuid;
        }
    }

    fn assign(&mut self, target: u32, device: &Plugged) -> Result<(), AssignError> {
        if let Some(owner) = self.owner(target) {
            if owner.uuid == device.uuid {
                return Ok(());
            }
            if owner.state == Kept::Normal {
                let serial = if owner.serial.is_empty() {
                    String::new()
                } else {
                    format!(", serial {}", owner.serial)
                };
                return Err(AssignError::Elsewhere {
                    target,
                    recorded: owner.uuid,
                    recorded_name: owner.name.clone(),
                    serial,
                    configured: device.name.clone(),
                });
            }
            self.records
                .iter_mut()
                .for_each(|record| record.targets.retain(|other| *other != target));
        }
        let record = self.record_of(device)?;
        if record.targets.is_empty() {
            record.bytes = device.bytes;
        }
        record.targets.push(target);
        record.targets.sort_unstable();
        Ok(())
    }

    fn record_of(&mut self, device: &Plugged) -> Result<&mut Record, AssignError> {
        if let Some(at) = self
            .records
            .iter()
            .position(|record| record.uuid == device.uuid)
        {
            return Ok(&mut self.records[at]);
        }
        if self.records.len() >= MAX_RECORDS {
            let oldest = self
                .records
                .iter()
                .position(|record| record.targets.is_empty())
                .ok_or(AssignError::Full)?;
            self.records.remove(oldest);
        }
        self.records.push(Record {
            uuid: device.uuid,
            name: device.name.clone(),
            serial: device.serial.clone(),
            model: device.model.clone(),
            targets: Vec::new(),
            bytes: device.bytes,
            state: Kept::Normal,
            reason: String::new(),
        });
        let last = self.records.len() - 1;
        Ok(&mut self.records[last])
    }

    fn refresh(&mut self, device: &Plugged) -> Result<(), AssignError> {
        if let Some(record) = self
            .records
            .iter_mut()
            .find(|record| record.uuid == device.uuid)
        {
            record.name.clone_from(&device.name);
            record.serial.clone_from(&device.serial);
            record.model.clone_from(&device.model);
            if record.bytes == 0 {
                record.bytes = device.bytes;
            }
            if device.bytes < record.bytes && record.state == Kept::Normal {
                return Err(AssignError::Shrunk {
                    uuid: device.uuid,
                    name: device.name.clone(),
                    bytes: device.bytes,
                    recorded: record.bytes,
                });
            }
        }
        Ok(())
    }

    /// Takes a device out of use (DAOS: `DEV_SET_FAULTY`, and automatic faulting). False when it was faulty before: the first reason stands.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`].
    pub fn set_faulty(&mut self, uuid: Uuid, reason: &str) -> Result<bool, ChangeError> {
        let record = self
            .records
            .iter_mut()
            .find(|record| record.uuid == uuid)
            .ok_or(ChangeError::Unknown(uuid))?;
        if record.state == Kept::Faulty {
            return Ok(false);
        }
        record.state = Kept::Faulty;
        reason.clone_into(&mut record.reason);
        Ok(true)
    }

    /// Puts the targets of a faulty device on another one, or, with twice the same device, the device back into use (DAOS: `DEV_REPLACE`).
    ///
    /// # Errors
    /// [`ChangeError`]; nothing changed.
    pub fn replace(&mut self, old: Uuid, new: &Plugged) -> Result<(), ChangeError> {
        let record = self.get(old).ok_or(ChangeError::Unknown(old))?;
        if record.state != Kept::Faulty {
            return Err(ChangeError::InUse(old));
        }
        if old != new.uuid
            && self
                .get(new.uuid)
                .is_some_and(|other| !other.targets.is_empty())
        {
            return Err(ChangeError::Taken(new.uuid));
        }
        let mut next = self.clone();
        let mut targets = Vec::new();
        for record in next.records.iter_mut().filter(|record| record.uuid == old) {
            targets = core::mem::take(&mut record.targets);
        }
        // There is room: the old one has no targets now.
        if let Ok(record) = next.record_of(new) {
            if old != new.uuid {
                record.bytes = new.bytes;
            }
            record.targets = targets;
            record.state = Kept::Normal;
            record.reason.clear();
            *self = next;
        }
        Ok(())
    }
}
