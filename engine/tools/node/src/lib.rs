//! Makes a host ready for SSDs that the engine drives itself, says what is missing, and undoes what it did.
//!
//! * [`examine`]: read-only; [`Finding`]s with a stable [`Code`], a cause and the command that cures it. `keel node doctor` prints them, and
//!   the engine asks the same questions before it opens its devices ([`at_start`]).
//! * [`Preparation`]: huge pages, driver binding, access and persistence as [`Step`]s, carried out by [`Hands`]; what was changed stands in
//!   [`Record`], so that [`Release`] undoes exactly that.
//! * [`status`]: what is bound to what, which huge pages are free.
//!
//! Everything is read and written below a [`Root`], so that tests build machines out of files. Neighbours: `engine_config` says what is
//! needed, `spdk_env` drives what was prepared; the command line and the daemon are above.
//!
//! Thread rule: plain data and blocking file access; start-up and tools only.
//!
//! | module | holds |
//! |---|---|
//! | `root`, `address`, `pci`, `account` | a machine's files, PCI devices, users |
//! | `usage` | who uses a device: mounts, swap, LVM, md, processes |
//! | `hugepages`, `need` | what there is, what a configuration needs |
//! | `code`, `finding` | the table of codes |
//! | `doctor` | the checks |
//! | `step`, `hands` | one change, who makes it |
//! | `record`, `prepare`, `release`, `unit` | what was changed; doing, undoing, doing it again at each boot |
//! | `status` | the state for operators |

mod account;
mod address;
mod code;
mod doctor;
mod finding;
mod hands;
mod hugepages;
mod need;
mod pci;
mod prepare;
mod record;
mod release;
mod root;
mod status;
mod step;
mod unit;
mod usage;

pub use account::{Account, UnknownAccount};
pub use address::{Address, BadAddress};
pub use code::{CODES, Code, Severity};
pub use doctor::{Questions, at_start, examine};
pub use finding::{Finding, worst};
pub use hands::{Hands, ThisMachine};
pub use hugepages::{NodePages, PageSize};
pub use need::{MODULE_BUFFERS, Need};
pub use pci::{PciDevice, all_nvme};
pub use prepare::{Preparation, Refusal, Wish};
pub use record::{Record, RecordError};
pub use release::Release;
pub use root::Root;
pub use status::{DeviceStatus, NodeStatus, PagesNeeded, status};
pub use step::{Step, StepFailed};
pub use usage::{Use, uses};
