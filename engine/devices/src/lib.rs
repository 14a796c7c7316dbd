//! Which device holds which targets' data, in which state, and when a device is faulty.
//!
//! * [`DeviceTable`]: a record for each device that targets were put on: uuid, serial, targets, state. Reconciled with the devices
//!   that are plugged at each start, so that no target ever starts on a device that is not its own. DAOS: SMD, `src/bio/smd`.
//! * [`TableFile`]: the table on stable storage: checksummed, replaced in one step.
//! * [`Monitor`]: counters in, verdict out: the criteria of `src/bio/bio_monitor.c`.
//!
//! No device and no clock: what is plugged, what was counted and the time are arguments. Neighbours: below it nothing of ours but
//! `daos_errno`; above it the daemon, which opens devices, and `keel`, which changes the table of an engine that does not run.
//!
//! Thread rule: plain values; the file is written by whoever holds the engine's storage directory.
#![forbid(unsafe_code)]

mod file;
mod monitor;
mod state;
mod table;

pub use file::{FileError, TableFile};
pub use monitor::{Criteria, Faulty, Monitor, Sample};
pub use state::{Kept, State};
pub use table::{AssignError, ChangeError, DeviceTable, MAX_RECORDS, Plugged, Record};
