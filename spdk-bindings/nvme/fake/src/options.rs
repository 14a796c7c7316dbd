//! What the emulated controller is.

/// A namespace.
#[derive(Debug, Clone)]
pub struct NamespaceOptions {
    /// Blocks in all.
    pub blocks: u64,
    /// Bytes of a block as a power of two: 9 to 16.
    pub block_shift: u8,
    /// Bytes of metadata for each block.
    pub metadata: u16,
    /// DPS: end-to-end protection; 0 is off.
    pub protection: u8,
    /// I/O should not cross multiples of this many blocks; 0 for none.
    pub optimal_boundary: u16,
    /// Keep no contents: writes vanish, reads leave the buffer alone. For measurements.
    pub discard: bool,
    /// Command set; 0 is NVM, 2 zoned.
    pub command_set: u8,
}

impl NamespaceOptions {
    /// A namespace of `blocks` blocks of `1 << block_shift` bytes.
    #[must_use]
    pub fn new(blocks: u64, block_shift: u8) -> NamespaceOptions {
        NamespaceOptions {
            blocks,
            block_shift,
            metadata: 0,
            protection: 0,
            optimal_boundary: 0,
            discard: false,
            command_set: 0,
        }
    }
}

/// In which order finished commands complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompletionOrder {
    /// As they came.
    Submission,
    /// Those of a step last come, first completed.
    Reversed,
}

/// A controller.
#[derive(Debug, Clone)]
pub struct FakeOptions {
    /// What messages call it.
    pub address: String,
    /// Serial number.
    pub serial: String,
    /// CAP.MQES + 1: the most entries of an I/O queue, 2 to 65,536.
    pub max_queue_entries: u32,
    /// I/O queue pairs that it grants.
    pub queue_pairs: u16,
    /// MDTS; 0 is no limit.
    pub mdts: u8,
    /// CAP.DSTRD.
    pub dstrd: u8,
    /// CAP.MPSMIN.
    pub mpsmin: u8,
    /// CAP.TO in units of 500 ms.
    pub timeout_units: u8,
    /// ONCS.
    pub oncs: u16,
    /// SGLs are supported.
    pub sgl: bool,
    /// Shadow doorbells are supported.
    pub shadow_doorbells: bool,
    /// A volatile write cache is present.
    pub write_cache: bool,
    /// A controller memory buffer is present.
    pub memory_buffer: bool,
    /// MSI-X vectors; 0 for none.
    pub interrupts: u16,
    /// Steps that CSTS.RDY takes to follow CC.EN.
    pub ready_steps: u32,
    /// Commands fetched from each queue in a step.
    pub burst: u32,
    /// Order of completions.
    pub order: CompletionOrder,
    /// Namespaces 1, 2, ...
    pub namespaces: Vec<NamespaceOptions>,
}

impl Default for FakeOptions {
    /// One namespace of 64 MiB in blocks of 512 bytes, 8 queue pairs of up to 1,024 entries, everything optional supported.
    fn default() -> FakeOptions {
        FakeOptions {
            address: "fake0".into(),
            serial: "FAKE0001".into(),
            max_queue_entries: 1024,
            queue_pairs: 8,
            mdts: 5,
            dstrd: 0,
            mpsmin: 0,
            timeout_units: 2,
            oncs: 0b1101,
            sgl: false,
            shadow_doorbells: false,
            write_cache: false,
            memory_buffer: false,
            interrupts: 0,
            ready_steps: 1,
            burst: u32::MAX,
            order: CompletionOrder::Submission,
            namespaces: vec![NamespaceOptions::new(131_072, 9)],
        }
    }
}
