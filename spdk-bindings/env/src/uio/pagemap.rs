//! Physical addresses of this process's memory, from `/proc/self/pagemap` (Linux `Documentation/admin-guide/mm/pagemap.rst`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::PAGE;

const ENTRY: usize = size_of::<u64>();
/// The page is in memory.
const PRESENT: u64 = 1 << 63;
/// Bits 0 to 54: number of the page frame; 0 for whoever may not know.
const FRAME: u64 = (1 << 55) - 1;

/// The table of this process. Any thread.
#[derive(Debug)]
pub(super) struct Pagemap(File);

impl Pagemap {
    pub(super) fn open() -> io::Result<Pagemap> {
        Ok(Pagemap(File::open("/proc/self/pagemap")?))
    }

    /// Physical address of each page of `[start, start + len)`, both multiples of a page.
    pub(super) fn addresses(&self, start: usize, len: usize) -> io::Result<Vec<u64>> {
        let mut entries = vec![0; len / PAGE * ENTRY];
        let at = (start / PAGE * ENTRY) as u64;
        self.0.read_exact_at(&mut entries, at)?;
        entries
            .as_chunks()
            .0
            .iter()
            .map(|entry| address(u64::from_ne_bytes(*entry)))
            .collect()
    }
}

fn address(entry: u64) -> io::Result<u64> {
    if entry & PRESENT == 0 {
        return Err(io::Error::other(
            "a page that was to be given to a device is not in memory",
        ));
    }
    match entry & FRAME {
        0 => Err(io::Error::other(
            "the kernel tells physical addresses to root only (CAP_SYS_ADMIN)",
        )),
        frame => Ok(frame * PAGE as u64),
    }
}

/// Whether pages follow each other in physical memory.
pub(super) fn is_contiguous(addresses: &[u64]) -> bool {
    addresses
        .windows(2)
        .all(|pair| pair[0] + PAGE as u64 == pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_the_kernel_writes_them() {
        assert_eq!(address(PRESENT | 1 << 61 | 0x1234).unwrap(), 0x123_4000);
        let refused = |entry| address(entry).unwrap_err().to_string();
        assert!(refused(0x1234).contains("not in memory"));
        assert!(refused(PRESENT).contains("root only"));
    }

    #[test]
    fn runs_of_pages() {
        assert!(is_contiguous(&[]) && is_contiguous(&[0x5000]) && is_contiguous(&[0x5000, 0x6000]));
        assert!(!is_contiguous(&[0x5000, 0x6000, 0x8000]) && !is_contiguous(&[0x6000, 0x5000]));
    }

    /// As root the addresses of touched memory are there; as anybody else the error says why not.
    #[test]
    fn own_memory_is_found_or_the_reason_is_said() {
        let memory = crate::dma::Mapping::for_dma(2 * PAGE, None).unwrap();
        let start = memory.as_ptr().as_ptr().addr();
        match Pagemap::open().and_then(|map| map.addresses(start, 2 * PAGE)) {
            Ok(addresses) => assert!(addresses.len() == 2 && addresses[0] != addresses[1]),
            Err(error) => assert!(error.to_string().contains("root only"), "{error}"),
        }
    }
}
