//! Telling the device where a command's data lies: PRP entries and lists (Base 4.1.1), or an SGL (Base 4.1.2).

use nvme_spec::{Command, SglDescriptor};
use spdk_env::{DeviceBacking, DmaBuf, DmaMemory, PAGE};

/// Transfers of up to so many bytes need no list: SGLs gain nothing.
const TWO_PAGES: usize = 2 * PAGE;

/// Adds the data pointer for `len` bytes of `buf` from `offset`; a list is written at `list_at` of `list`. `None` when the device does not
/// reach the buffer.
#[inline]
pub(crate) fn describe<B: DeviceBacking>(
    backing: &B,
    command: Command,
    buf: &DmaBuf,
    offset: usize,
    len: usize,
    sgl: bool,
    list: (&DmaMemory, usize),
) -> Option<Command> {
    let run = backing.translate(buf, offset)?;
    let first = PAGE - run.iova as usize % PAGE;
    if len <= first {
        return Some(command.with_prps(run.iova, 0));
    }
    if sgl && len > TWO_PAGES && len <= run.len {
        return Some(command.with_sgl(SglDescriptor::data_block(run.iova, len as u32)));
    }
    if len <= first + PAGE {
        let second = if run.len > first {
            run.iova + first as u64
        } else {
            backing.translate(buf, offset + first)?.iova
        };
        return Some(command.with_prps(run.iova, second));
    }
    let prp2 = write_list(backing, buf, offset + first, len - first, list)?;
    Some(command.with_prps(run.iova, prp2))
}

/// Writes the entries of all pages after the first.
fn write_list<B: DeviceBacking>(
    backing: &B,
    buf: &DmaBuf,
    mut offset: usize,
    len: usize,
    (list, at): (&DmaMemory, usize),
) -> Option<u64> {
    let end = offset + len;
    let mut entry = at;
    while offset < end {
        let run = backing.translate(buf, offset)?;
        let mut page = run.iova;
        let run_end = end.min(offset + run.len);
        while offset < run_end {
            list.write_u64(entry, page);
            entry += 8;
            page += PAGE as u64;
            offset += PAGE;
        }
    }
    Some(list.iova() + at as u64)
}
