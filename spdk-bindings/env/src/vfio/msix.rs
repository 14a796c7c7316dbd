//! [`Msix`]: interrupt vectors of a device, and the bits in its table that mask them.
//!
//! The kernel sets vectors up and lets eventfds ring; it has no call to mask one. The table that does lies in a BAR, which VFIO maps (the IOMMU
//! remaps interrupts, so writing to it harms no one), and masking is one register write.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use super::sys;
use crate::mmio::{MmioWindow, RegisterWindow};

/// PCI configuration space: status, with the bit that says that there are capabilities; where the first one is.
const STATUS: u64 = 6;
const HAS_CAPABILITIES: u16 = 1 << 4;
const CAPABILITIES: u64 = 0x34;
/// MSI-X.
const MSIX: u8 = 0x11;
/// Capabilities fit 48 times into the space that they may lie in: a longer chain is a loop.
const LONGEST_CHAIN: usize = 48;

/// An entry of the table: address, data, and a word whose lowest bit masks.
const ENTRY_BYTES: usize = 16;
const VECTOR_CONTROL: usize = 12;

pub(super) struct Msix {
    vectors: u16,
    /// Where the table begins in BAR 0.
    table: usize,
    /// The kernel has set the vectors up.
    is_set_up: AtomicBool,
}

impl Msix {
    /// What the device has of `wanted` vectors; `None` without vectors, or when their table does not lie in BAR 0.
    pub(super) fn find(device: &File, config: u64, wanted: u16, bar0: &MmioWindow) -> Option<Msix> {
        let (bar, table) = table(device, config).ok().flatten()?;
        let count = sys::irq_count(device.as_fd(), sys::IRQ_MSIX).ok()?;
        let vectors = wanted.min(u16::try_from(count).unwrap_or(u16::MAX));
        let end = table.checked_add(usize::from(vectors) * ENTRY_BYTES)?;
        if bar != sys::BAR0 || vectors == 0 || end > bar0.len() {
            return None;
        }
        Some(Msix {
            vectors,
            table,
            is_set_up: AtomicBool::new(false),
        })
    }

    pub(super) fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Switches one on. The first sets up all: older kernels cannot add to what is set up.
    pub(super) fn enable(&self, device: &File, vector: u16) -> io::Result<OwnedFd> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        if !self.is_set_up.load(Ordering::Relaxed) {
            let none = vec![None; usize::from(self.vectors)];
            sys::set_irqs(device.as_fd(), sys::IRQ_MSIX, 0, &none)?;
            self.is_set_up.store(true, Ordering::Relaxed);
        }
        let one = [Some(bell.as_fd())];
        sys::set_irqs(device.as_fd(), sys::IRQ_MSIX, vector.into(), &one)?;
        Ok(bell)
    }

    /// Masks a vector or lets it through; what came meanwhile is delivered then. False when there is no such vector.
    pub(super) fn mask(&self, bar0: &MmioWindow, vector: u16, masked: bool) -> bool {
        if vector >= self.vectors {
            return false;
        }
        let at = self.table + usize::from(vector) * ENTRY_BYTES + VECTOR_CONTROL;
        bar0.write32(at, masked.into());
        true
    }
}

/// BAR and offset of the table (PCI Express Base, section 7.7.2).
fn table(device: &File, config: u64) -> io::Result<Option<(u32, usize)>> {
    let byte = |at: u64| -> io::Result<u8> {
        let mut byte = [0];
        device.read_exact_at(&mut byte, config + at)?;
        Ok(byte[0])
    };
    let mut status = [0; 2];
    device.read_exact_at(&mut status, config + STATUS)?;
    if u16::from_le_bytes(status) & HAS_CAPABILITIES == 0 {
        return Ok(None);
    }
    let mut at = u64::from(byte(CAPABILITIES)? & !3);
    for _ in 0..LONGEST_CHAIN {
        if at == 0 {
            break;
        }
        if byte(at)? == MSIX {
            let mut word = [0; 4];
            device.read_exact_at(&mut word, config + at + 4)?;
            let word = u32::from_le_bytes(word);
            let bar = word & 7;
            return Ok((bar < sys::BARS).then_some((bar, (word & !7) as usize)));
        }
        at = u64::from(byte(at + 1)? & !3);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_space(bytes: &[(u64, &[u8])]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(256).unwrap();
        for (at, bytes) in bytes {
            file.write_all_at(bytes, *at).unwrap();
        }
        file
    }

    #[test]
    fn the_table_is_found_at_the_end_of_the_chain() {
        let file = config_space(&[
            (STATUS, &[0x10, 0]),
            (CAPABILITIES, &[0x40]),
            (0x40, &[0x01, 0x60]),
            (0x60, &[MSIX, 0, 0x40, 0, 0x03, 0x20, 0, 0]),
        ]);
        assert_eq!(table(&file, 0).unwrap(), Some((3, 0x2000)));
    }

    #[test]
    fn no_capabilities_a_loop_and_a_bar_that_cannot_be_are_no_table() {
        let none = config_space(&[(CAPABILITIES, &[0x40]), (0x40, &[MSIX, 0])]);
        assert_eq!(table(&none, 0).unwrap(), None);
        let round = config_space(&[
            (STATUS, &[0x10, 0]),
            (CAPABILITIES, &[0x40]),
            (0x40, &[0x01, 0x40]),
        ]);
        assert_eq!(table(&round, 0).unwrap(), None);
        let bad = config_space(&[
            (STATUS, &[0x10, 0]),
            (CAPABILITIES, &[0x40]),
            (0x40, &[MSIX, 0, 0, 0, 0x07]),
        ]);
        assert_eq!(table(&bad, 0).unwrap(), None);
    }
}
