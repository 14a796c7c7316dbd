//! Bounds of a scheduler.

/// Bounds; the defaults are DAOS's where it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Weights that one cycle kicks at most (DAOS: `MAX_KICKED_REQ_CNT`, what a DMA buffer of 100 MiB holds in 16 KiB pieces).
    pub kick_limit: u32,
    /// Queued updates and fetches, beyond which requests are refused (DAOS: 2^20).
    pub max_queued: u32,
    /// Weights of kicked requests that are not finished; what is over waits here, where it is fair, and not in a device's
    /// queue, where it is not. 0: no bound. No equivalent in DAOS.
    pub max_in_service: u32,
    /// Pools with a record of their own; more share one.
    pub max_pools: u32,
    /// A request without a usable deadline, and a slice, is kicked after so long, whatever the limits, milliseconds.
    pub max_wait_ms: u32,
    /// Entries made at the start (DAOS: 8192); later by 1024.
    pub prepared: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            kick_limit: 6400,
            max_queued: 1 << 20,
            max_in_service: 512,
            max_pools: 4096,
            max_wait_ms: 10_000,
            prepared: 8192,
        }
    }
}

/// Entries beyond `max_queued`, for requests that are not updates or fetches and for those that are never refused.
pub(crate) const SPARE_ENTRIES: u32 = 1 << 16;
/// Share of the deadline that is left for doing it, milliseconds (DAOS: `MAX_CYCLE_TIME`, 6400 x 20 us).
pub(crate) const MAX_CYCLE_MS: u64 = 128;
/// Weights that a pool may kick before the next pool's turn comes.
pub(crate) const QUANTUM: i32 = 64;
/// Weights of background work that one cycle kicks at most while clients wait: bounds what an update finds before it.
pub(crate) const SYS_BURST: u32 = 16;
/// The same in a pool that runs out of space.
pub(crate) const PRESSED_BURST: u32 = 64;
/// Pools that one cycle looks at in vain; it goes on with the next pool in the next cycle.
pub(crate) const MAX_VAIN_VISITS: u32 = 512;
/// Requests that one cycle kicks at most because their deadline is near or they must not wait.
pub(crate) const MAX_URGENT: u32 = 6400;
