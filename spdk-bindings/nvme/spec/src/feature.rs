//! Features (Base 5.27.1) and asynchronous events (Base 5.2).

/// Volatile write cache; bit 0 is enable.
pub const VOLATILE_WRITE_CACHE: u8 = 0x06;
/// Number of I/O queues: submission queues in 15:0, completion queues in 31:16, both counted from 0.
pub const NUMBER_OF_QUEUES: u8 = 0x07;
/// Asynchronous event configuration.
pub const ASYNC_EVENTS: u8 = 0x0b;

/// Events to switch on: all SMART warnings (7:0), namespace attributes (8), firmware activation (9).
pub const ASYNC_EVENTS_WANTED: u32 = 0x1f | 1 << 8 | 1 << 9;

/// Value of [`NUMBER_OF_QUEUES`] for `queues` (1 to 65,535) pairs.
#[must_use]
pub const fn queue_count(queues: u16) -> u32 {
    (queues as u32 - 1) << 16 | (queues as u32 - 1)
}

/// Pairs that a controller grants: the smaller of both counts of [`NUMBER_OF_QUEUES`].
#[must_use]
pub const fn queues_granted(value: u32) -> u32 {
    let (sq, cq) = (value & 0xffff, value >> 16);
    (if sq < cq { sq } else { cq }) + 1
}

/// An asynchronous event, from dword 0 of its completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsyncEvent {
    /// Type: 0 error, 1 SMART / health, 2 notice, 6 command set, 7 vendor.
    pub kind: u8,
    /// What happened, by type.
    pub info: u8,
    /// The log page that has more, and whose reading lets the next event of the type through.
    pub log: u8,
}

impl AsyncEvent {
    /// From dword 0.
    #[must_use]
    pub const fn from_dword(dword: u32) -> AsyncEvent {
        AsyncEvent {
            kind: dword as u8 & 7,
            info: (dword >> 8) as u8,
            log: (dword >> 16) as u8,
        }
    }

    /// As dword 0.
    #[must_use]
    pub const fn dword(self) -> u32 {
        self.kind as u32 | (self.info as u32) << 8 | (self.log as u32) << 16
    }

    /// Notice: namespace attributes changed.
    pub const NAMESPACE_CHANGED: AsyncEvent = AsyncEvent {
        kind: 2,
        info: 0,
        log: crate::log::CHANGED_NAMESPACES,
    };
    /// Notice: firmware activation starts.
    pub const FIRMWARE_ACTIVATION: AsyncEvent = AsyncEvent {
        kind: 2,
        info: 1,
        log: crate::log::FIRMWARE_SLOTS,
    };
    /// Health: spare below threshold.
    pub const SPARE_BELOW_THRESHOLD: AsyncEvent = AsyncEvent {
        kind: 1,
        info: 2,
        log: crate::log::SMART,
    };
    /// Health: reliability degraded.
    pub const RELIABILITY: AsyncEvent = AsyncEvent {
        kind: 1,
        info: 0,
        log: crate::log::SMART,
    };
    /// Error: write to an invalid doorbell.
    pub const INVALID_DOORBELL: AsyncEvent = AsyncEvent {
        kind: 0,
        info: 0,
        log: crate::log::ERRORS,
    };
    /// Error: invalid doorbell value.
    pub const INVALID_DOORBELL_VALUE: AsyncEvent = AsyncEvent {
        kind: 0,
        info: 1,
        log: crate::log::ERRORS,
    };
}
