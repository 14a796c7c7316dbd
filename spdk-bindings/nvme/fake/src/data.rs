//! Moving a command's data: PRP entries and lists, SGL data blocks.

use nvme_spec::{Command, Status, status};
use spdk_env::IoSpace;

const PAGE: u64 = 4096;

/// SGL descriptor type invalid (Base 3.3.3.2.1, generic 11h).
const SGL_TYPE_INVALID: Status = Status::new(0, 0x11);
/// Data SGL length invalid (generic 0Fh).
const SGL_LENGTH_INVALID: Status = Status::new(0, 0x0f);
/// PRP offset invalid (generic 13h).
const PRP_OFFSET_INVALID: Status = Status::new(0, 0x13);

/// Where the data of a command lies: runs of I/O addresses.
pub(crate) fn segments(
    space: &IoSpace,
    command: &Command,
    len: usize,
) -> Result<Vec<(u64, usize)>, Status> {
    if command.has_sgl() {
        let sgl = command.sgl();
        if sgl.kind != 0 {
            return Err(SGL_TYPE_INVALID);
        }
        if (sgl.len as usize) < len {
            return Err(SGL_LENGTH_INVALID);
        }
        return Ok(vec![(sgl.address, len)]);
    }
    let (prp1, prp2) = command.prps();
    let first = (PAGE - prp1 % PAGE).min(len as u64) as usize;
    let mut runs = vec![(prp1, first)];
    let mut left = len - first;
    if left == 0 {
        return Ok(runs);
    }
    if left <= PAGE as usize {
        runs.push((page(prp2)?, left));
        return Ok(runs);
    }
    let mut list = prp2;
    while left > 0 {
        let in_page = ((PAGE - list % PAGE) / 8) as usize;
        let pages = left.div_ceil(PAGE as usize);
        let mut bytes = vec![0; 8 * in_page.min(pages)];
        space
            .read(list, &mut bytes)
            .map_err(|_| status::DATA_TRANSFER_ERROR)?;
        let entries: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|entry| u64::from_le_bytes(entry.try_into().unwrap_or_default()))
            .collect();
        // A list that does not fit its page goes on where its last entry points.
        let chained = pages > in_page;
        let here = if chained { in_page - 1 } else { entries.len() };
        for entry in &entries[..here] {
            let run = left.min(PAGE as usize);
            runs.push((page(*entry)?, run));
            left -= run;
        }
        if chained {
            list = entries[in_page - 1];
        }
    }
    Ok(runs)
}

fn page(prp: u64) -> Result<u64, Status> {
    if prp.is_multiple_of(PAGE) {
        Ok(prp)
    } else {
        Err(PRP_OFFSET_INVALID)
    }
}

/// Driver to device.
pub(crate) fn fetch(space: &IoSpace, command: &Command, to: &mut [u8]) -> Result<(), Status> {
    let mut at = 0;
    for (iova, len) in segments(space, command, to.len())? {
        space
            .read(iova, &mut to[at..at + len])
            .map_err(|_| status::DATA_TRANSFER_ERROR)?;
        at += len;
    }
    Ok(())
}

/// Device to driver.
pub(crate) fn deliver(space: &IoSpace, command: &Command, from: &[u8]) -> Result<(), Status> {
    let mut at = 0;
    for (iova, len) in segments(space, command, from.len())? {
        space
            .write(iova, &from[at..at + len])
            .map_err(|_| status::DATA_TRANSFER_ERROR)?;
        at += len;
    }
    Ok(())
}
