//! `[watchdog]`: what counts as stuck, and what happens then.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What counts as stuck, and what happens then.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Watchdog {
    /// A ULT, poller or message that runs longer without giving way is named in the log with its module and a back-trace, once in
    /// two seconds for the same one; 0 never. Nothing else runs on that xstream meanwhile.
    #[schemars(range(min = 0, max = 60_000), extend("x-unit" = "milliseconds"))]
    pub ult_runtime_max_ms: u32,

    /// An xstream that makes no progress for longer is reported with a back-trace; 0 never.
    #[schemars(range(min = 0, max = 86_400), extend("x-unit" = "seconds"))]
    pub xstream_stall_max_s: u32,

    /// A stalled xstream ends the engine: it writes a dump and aborts, which leaves a core file where the system keeps them
    /// (`core_pattern`), and systemd starts it again. Acknowledged data is safe.
    pub stall_is_fatal: bool,
}

impl Default for Watchdog {
    fn default() -> Watchdog {
        Watchdog {
            ult_runtime_max_ms: 32,
            xstream_stall_max_s: 300,
            stall_is_fatal: false,
        }
    }
}
