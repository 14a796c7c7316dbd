//! What the NVMe controller under a device of SPDK's says of itself.

use std::time::Duration;

use nvme_spec::log::{self, ErrorLogEntry, FirmwareSlots, SmartLog};
use nvme_spec::{ALL_NAMESPACES, Command, IDENTIFY_BYTES, IdentifyController, identify_cns};
use spdk_sys::Bdev;

/// A controller that does not answer says nothing.
const PATIENCE: Duration = Duration::from_secs(2);
/// Entries of the error log that are asked for.
const ERRORS: usize = 16;

/// The SSD under a device, as it was when the device was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ssd {
    /// Serial number.
    pub serial: String,
    /// Model.
    pub model: String,
    /// Firmware revision.
    pub firmware: String,
}

/// How it is.
#[derive(Debug, Clone)]
pub struct SsdHealth {
    /// Its SMART page.
    pub smart: SmartLog,
    /// The newest errors.
    pub errors: Vec<ErrorLogEntry>,
    /// Its firmware slots, where it says them.
    pub firmware: Option<FirmwareSlots>,
}

fn ask(bdev: &Bdev, command: Command, length: usize) -> Option<Vec<u8>> {
    let answer = bdev.ask_controller(command.words, length, PATIENCE);
    answer
        .inspect_err(|error| tracing::debug!(device = bdev.name(), %error, "the SSD does not say"))
        .ok()
}

fn log_page<const N: usize>(bdev: &Bdev, id: u8) -> Option<[u8; N]> {
    let command = Command::get_log(id, ALL_NAMESPACES, 0, N as u32, false);
    ask(bdev, command, N)?.try_into().ok()
}

/// Who it is; `None`: there is no controller under it, or it does not answer.
pub(crate) fn identify(bdev: &Bdev) -> Option<Ssd> {
    if !bdev.facts().takes_admin {
        return None;
    }
    let command = Command::identify(identify_cns::CONTROLLER, 0);
    let page: [u8; IDENTIFY_BYTES] = ask(bdev, command, IDENTIFY_BYTES)?.try_into().ok()?;
    let IdentifyController {
        serial,
        model,
        firmware,
        ..
    } = IdentifyController::parse(&page);
    Some(Ssd {
        serial,
        model,
        firmware,
    })
}

pub(crate) fn health(bdev: &Bdev) -> Option<SsdHealth> {
    if !bdev.facts().takes_admin {
        return None;
    }
    let smart = SmartLog::parse(&log_page(bdev, log::SMART)?);
    let errors: Option<[u8; ERRORS * log::ERROR_ENTRY_BYTES]> = log_page(bdev, log::ERRORS);
    let entries = errors.as_ref().map(|page| page.as_chunks().0);
    let entries = entries.into_iter().flatten().map(ErrorLogEntry::parse);
    Some(SsdHealth {
        smart,
        errors: entries.filter(|entry| entry.count > 0).collect(),
        firmware: log_page(bdev, log::FIRMWARE_SLOTS).map(|page| FirmwareSlots::parse(&page)),
    })
}
