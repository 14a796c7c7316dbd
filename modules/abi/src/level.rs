//! The levels of the ABI: which modules an engine of this level can load.
//!
//! A level only adds: functions at the end of [`dss_host`](crate::dss_host), new types, new constants. What a module of an earlier
//! level uses stands where it stood, which its fingerprint, computed for its level, proves.

use crate::{DSS_ABI_FINGERPRINT, DSS_ABI_LEVEL, dss_module};

/// What a descriptor of one level looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbiLevel {
    /// `sm_level`.
    pub level: u32,
    /// `sm_fingerprint`.
    pub fingerprint: u64,
    /// `sm_size`.
    pub module_size: usize,
}

/// All levels that this engine can load, oldest first. None of them has another descriptor than the latest.
pub const ABI_LEVELS: [AbiLevel; 3] = [
    AbiLevel {
        level: 1,
        fingerprint: 0xa728_f244_d723_9591,
        module_size: size_of::<dss_module>(),
    },
    AbiLevel {
        level: 2,
        fingerprint: 0x2c8d_b88f_9088_1df9,
        module_size: size_of::<dss_module>(),
    },
    AbiLevel {
        level: DSS_ABI_LEVEL,
        fingerprint: DSS_ABI_FINGERPRINT,
        module_size: size_of::<dss_module>(),
    },
];
