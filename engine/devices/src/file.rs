//! [`TableFile`]: the table on stable storage.
//!
//! One line with a checksum, then JSON that people can read. Written beside the old file, synced, and renamed over it: a crash
//! leaves the old table or the new one. A file whose checksum is wrong is an error, never an empty table: an empty table would let
//! targets start on any device.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::DeviceTable;

const NAME: &str = "devices.table";
const MAGIC: &str = "keel-devices 1 crc32c ";
/// Larger than the largest table; a larger file is not one.
const MAX_BYTES: u64 = 4 << 20;

/// Why the table cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("table of devices {}: {why}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, and the cure.
    pub why: String,
}

/// Where an engine keeps its table.
#[derive(Debug, Clone)]
pub struct TableFile {
    path: PathBuf,
}

impl TableFile {
    /// The table of the engine with this storage directory, which the caller has locked.
    #[must_use]
    pub fn in_dir(dir: &Path) -> TableFile {
        TableFile {
            path: dir.join(NAME),
        }
    }

    fn failed(&self, why: impl Into<String>) -> FileError {
        FileError {
            path: self.path.clone(),
            why: why.into(),
        }
    }

    /// Reads the table; an empty one where there was none yet.
    ///
    /// # Errors
    /// [`FileError`] when it cannot be read or is damaged.
    pub fn load(&self) -> Result<DeviceTable, FileError> {
        let size = match fs::metadata(&self.path) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(DeviceTable::default()),
            Err(error) => return Err(self.failed(error.to_string())),
        };
        if size > MAX_BYTES {
            return Err(self.failed(format!("{size} bytes are too many for a table")));
        }
        let text = fs::read(&self.path).map_err(|error| self.failed(error.to_string()))?;
        parse(&text).map_err(|why| {
            self.failed(format!(
                "{why}; restore it from a backup, or, if every device in the configuration is where it was, remove it: it is made anew"
            ))
        })
    }

    /// Replaces the table. On return it survives a power cut.
    ///
    /// # Errors
    /// [`FileError`]; the old table stays.
    pub fn save(&self, table: &DeviceTable) -> Result<(), FileError> {
        let json =
            serde_json::to_string_pretty(table).map_err(|error| self.failed(error.to_string()))?;
        let text = format!("{MAGIC}{:08x}\n{json}\n", crc32c::crc32c(json.as_bytes()));
        let beside = self.path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)?;
            // The rename itself.
            match self.path.parent() {
                Some(dir) => File::open(dir)?.sync_all(),
                None => Ok(()),
            }
        };
        write().map_err(|error| self.failed(format!("cannot write it: {error}")))
    }
}

fn parse(text: &[u8]) -> Result<DeviceTable, String> {
    let text = core::str::from_utf8(text).map_err(|_| "it is not text".to_owned())?;
    let (first, rest) = text.split_once('\n').ok_or("it has no first line")?;
    let sum = first
        .strip_prefix(MAGIC)
        .ok_or_else(|| format!("its first line is not `{MAGIC}...`"))?;
    let json = rest.strip_suffix('\n').ok_or("its end is missing")?;
    if u32::from_str_radix(sum, 16) != Ok(crc32c::crc32c(json.as_bytes())) {
        return Err("its checksum is wrong".into());
    }
    serde_json::from_str(json).map_err(|error| error.to_string())
}
