//! [`Options`]: what whoever attaches a controller may choose.

/// One millisecond in the driver's unit of time.
pub(crate) const MS: u64 = 1_000_000;

/// Choices for a controller. All times are nanoseconds of the clock that [`crate::Controller::poll`] is given.
#[derive(Debug, Clone)]
pub struct Options {
    /// I/O queue pairs to create; the controller may grant fewer.
    pub queue_pairs: u16,
    /// Entries of each I/O queue, 2 to 65,536; the controller may allow fewer.
    pub queue_entries: u32,
    /// I/Os of each queue pair that may be submitted and not completed. Commands at the device are bounded by the queue's
    /// entries, less one, and by this.
    pub depth: u32,
    /// Longest transfer of one command in bytes, at most 2 MiB (one PRP list page); the controller's MDTS may be less.
    pub max_transfer: u32,
    /// A command that takes longer is aborted.
    pub io_timeout: u64,
    /// An abort that has not helped after this leads to a reset.
    pub abort_timeout: u64,
    /// An admin command that takes longer fails, and the controller is reset.
    pub admin_timeout: u64,
    /// How often one command is tried again after errors that may pass, and after resets.
    pub retries: u8,
    /// Resets in a row that may fail before the controller is given up.
    pub reset_attempts: u32,
    /// Completions on one queue pair that make no sense before the controller is reset.
    pub nonsense_limit: u64,
    /// Use SGLs where the controller has them.
    pub sgl: bool,
    /// Use shadow doorbells where the controller has them.
    pub shadow_doorbells: bool,
    /// Give queue pairs an interrupt vector where the backing can mask it, so that an idle thread can sleep.
    pub interrupts: bool,
}

impl Default for Options {
    /// One queue pair of 256 entries; 30 s for an I/O (Linux: `nvme_core.io_timeout`), 4 retries (SPDK:
    /// `transport_retry_count`).
    fn default() -> Options {
        Options {
            queue_pairs: 1,
            queue_entries: 256,
            depth: 255,
            max_transfer: 1 << 20,
            io_timeout: 30_000 * MS,
            abort_timeout: 5_000 * MS,
            admin_timeout: 10_000 * MS,
            retries: 4,
            reset_attempts: 3,
            nonsense_limit: 16,
            sgl: true,
            shadow_doorbells: true,
            interrupts: false,
        }
    }
}

/// Bytes that one page of PRP entries can describe beside the first page.
pub(crate) const LARGEST_TRANSFER: u32 = 2 << 20;
