//! Files in and out, in parts.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use test_vm_agent::MAX_DATA;

pub(crate) fn put(path: &str, mode: u32, offset: u64, data: &[u8]) -> Result<(), String> {
    let write = || {
        if let Some(folder) = Path::new(path).parent() {
            fs::create_dir_all(folder)?;
        }
        let mut options = File::options();
        options
            .write(true)
            .create(true)
            .truncate(offset == 0)
            .mode(mode);
        let mut file = options.open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(data)
    };
    write().map_err(|error: std::io::Error| format!("{path}: {error}"))
}

pub(crate) fn get(path: &str, offset: u64) -> Result<Vec<u8>, String> {
    let read = || {
        let mut file = File::open(path)?;
        if offset > 0 {
            file.seek(SeekFrom::Start(offset))?;
        }
        let mut data = Vec::new();
        file.take(MAX_DATA as u64).read_to_end(&mut data)?;
        Ok(data)
    };
    read().map_err(|error: std::io::Error| format!("{path}: {error}"))
}
