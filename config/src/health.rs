//! `[health]`: when a device is taken out of use by itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a device is taken out of use by itself.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Evict a device that fails too often: its targets are down until `keel devices replace`. Without it only an operator evicts.
    pub auto_evict: bool,

    /// Failed reads and writes of one device, since it was taken into use, beyond which it is evicted; 0 is no limit (DAOS:
    /// `max_io_errs`).
    #[schemars(range(min = 0, max = 4_294_967_295u32))]
    pub max_io_errors: u32,

    /// Reads of one device that met damaged data, since it was taken into use, beyond which it is evicted; 0 is no limit (DAOS:
    /// `max_csum_errs`).
    #[schemars(range(min = 0, max = 4_294_967_295u32))]
    pub max_checksum_errors: u32,
}

impl Default for Health {
    fn default() -> Health {
        Health {
            auto_evict: true,
            max_io_errors: 10,
            max_checksum_errors: 0,
        }
    }
}
