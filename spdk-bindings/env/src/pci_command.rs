//! The PCI command register, through any file that has the device's configuration space (PCI Local Bus 3.0, section 6.2.2).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where it is, and its bits.
const COMMAND: u64 = 4;
/// Registers answer.
pub(crate) const MEMORY_SPACE: u16 = 1 << 1;
/// The device may write to memory.
pub(crate) const BUS_MASTER: u16 = 1 << 2;

/// Reads it; `config` is where configuration space begins in the file.
pub(crate) fn command(file: &File, config: u64) -> io::Result<u16> {
    let mut bytes = [0; 2];
    file.read_exact_at(&mut bytes, config + COMMAND)?;
    Ok(u16::from_le_bytes(bytes))
}

/// Sets and clears bits.
pub(crate) fn set_command(file: &File, config: u64, set: u16, clear: u16) -> io::Result<()> {
    let command = command(file, config)? & !clear | set;
    file.write_all_at(&command.to_le_bytes(), config + COMMAND)
}
