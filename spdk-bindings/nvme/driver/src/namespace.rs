//! [`Namespace`]: what the driver knows about one, and whether it can be used.

use nvme_spec::{IdentifyNamespace, NamespaceIds};

use crate::options::LARGEST_TRANSFER;

/// A namespace that is active on the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its number on the controller.
    pub nsid: u32,
    /// Blocks in all.
    pub blocks: u64,
    /// A block has `1 << block_shift` bytes.
    pub block_shift: u8,
    /// The longest transfer in blocks that is one command; longer I/O is split.
    pub max_blocks: u32,
    /// I/O should not cross multiples of this many blocks and is split there; 0 for none (NOIOB).
    pub boundary: u32,
    /// I/O of multiples of this many blocks does best.
    pub optimal_blocks: u32,
    /// Deallocated blocks read as zeroes.
    pub deallocated_zeroes: bool,
    /// Namespace UUID, where it has one.
    pub uuid: Option<[u8; 16]>,
    /// NGUID; zeroes for none.
    pub nguid: [u8; 16],
    /// EUI-64; zeroes for none.
    pub eui64: [u8; 8],
    /// Why the driver does not use it, with the cure.
    pub refused: Option<String>,
}

impl Namespace {
    /// Bytes of a block.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        1 << self.block_shift
    }

    /// What the I/O path needs.
    #[must_use]
    pub fn target(&self) -> IoTarget {
        IoTarget {
            blocks: self.blocks,
            nsid: self.nsid,
            max_blocks: self.max_blocks,
            boundary: self.boundary,
            block_shift: self.block_shift,
        }
    }

    /// From what the controller says; `max_transfer` is the longest transfer in bytes.
    pub(crate) fn new(
        nsid: u32,
        data: &IdentifyNamespace,
        ids: NamespaceIds,
        max_transfer: u32,
    ) -> Namespace {
        let format = data.format();
        let refused = refusal(data, ids, max_transfer);
        let shift = if refused.is_none() {
            format.data_shift
        } else {
            format.data_shift.min(31)
        };
        let max_blocks = (max_transfer.min(LARGEST_TRANSFER) >> shift).clamp(1, 65_536);
        let granularity = u32::from(data.write_granularity) + 1;
        Namespace {
            nsid,
            blocks: data.blocks,
            block_shift: shift,
            max_blocks,
            boundary: u32::from(data.optimal_boundary),
            optimal_blocks: if data.features & 1 << 4 != 0 {
                granularity
            } else {
                1
            },
            deallocated_zeroes: data.deallocated & 7 == 1,
            uuid: ids.uuid,
            nguid: data.nguid,
            eui64: data.eui64,
            refused,
        }
    }
}

fn refusal(data: &IdentifyNamespace, ids: NamespaceIds, max_transfer: u32) -> Option<String> {
    let format = data.format();
    let shift = format.data_shift;
    if ids.command_set != 0 {
        return Some(format!(
            "its command set is {} (zoned or key-value); only the NVM command set is supported",
            ids.command_set
        ));
    }
    if data.blocks == 0 {
        return Some("it has no blocks".into());
    }
    if !(9..=16).contains(&shift) {
        return Some(format!(
            "its blocks have 2^{shift} bytes; 512 to 65,536 are supported: format it (nvme format)"
        ));
    }
    if data
        .blocks
        .checked_shl(u32::from(shift))
        .is_none_or(|bytes| bytes >> shift != data.blocks || bytes > 1 << 63)
    {
        return Some(format!(
            "it claims {} blocks of {} bytes, more than 8 EiB",
            data.blocks,
            1u64 << shift
        ));
    }
    if format.metadata != 0 || data.protection & 7 != 0 {
        return Some(format!(
            "it is formatted with {} bytes of metadata for each block (protection type {}), which is not supported: \
             format it without (nvme format --lbaf=N with ms:0)",
            format.metadata,
            data.protection & 7
        ));
    }
    if 1u64 << shift > u64::from(max_transfer) {
        return Some(format!(
            "its blocks have {} bytes and the controller moves at most {max_transfer} at a time: format it with smaller ones",
            1u64 << shift
        ));
    }
    None
}

/// A namespace as the I/O path sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoTarget {
    pub(crate) blocks: u64,
    pub(crate) nsid: u32,
    pub(crate) max_blocks: u32,
    pub(crate) boundary: u32,
    pub(crate) block_shift: u8,
}
