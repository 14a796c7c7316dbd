//! What the NVMe controller under a device of SPDK's says of itself.

use std::io;
use std::time::Duration;

use nvme_spec::log::{self, ErrorLogEntry, FirmwareSlots, SmartLog};
use nvme_spec::{
    ALL_NAMESPACES, Command, IDENTIFY_BYTES, IdentifyController, IdentifyNamespace, NamespaceIds,
    NamespaceName, identify_cns,
};
use spdk_sys::{Bdev, Facts};

/// A controller that does not answer says nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// The controller refuses.
const EIO: i32 = 5;
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
    /// The namespace's number on it.
    pub namespace: u32,
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

fn ask(bdev: &Bdev, command: Command, length: usize) -> io::Result<Vec<u8>> {
    bdev.ask_controller(command.words, length, PATIENCE)
}

fn identify_page(bdev: &Bdev, cns: u8, nsid: u32) -> io::Result<[u8; IDENTIFY_BYTES]> {
    let page = ask(bdev, Command::identify(cns, nsid), IDENTIFY_BYTES)?;
    let short = |_| io::Error::from(io::ErrorKind::UnexpectedEof);
    page.try_into().map_err(short)
}

fn log_page<const N: usize>(bdev: &Bdev, id: u8) -> Option<[u8; N]> {
    let command = Command::get_log(id, ALL_NAMESPACES, 0, N as u32, false);
    let page = ask(bdev, command, N)
        .inspect_err(|error| tracing::debug!(device = bdev.name(), %error, "the SSD does not say"));
    page.ok()?.try_into().ok()
}

/// Who it is, and who the namespace is that the device is; `None`: it is none.
pub(crate) fn identify(bdev: &Bdev) -> io::Result<Option<(Ssd, NamespaceName)>> {
    let Facts {
        takes_admin, nsid, ..
    } = *bdev.facts();
    if !takes_admin || nsid == 0 {
        return Ok(None);
    }
    let controller = identify_page(bdev, identify_cns::CONTROLLER, 0)?;
    let IdentifyController {
        serial,
        model,
        firmware,
        ..
    } = IdentifyController::parse(&controller);
    let data = IdentifyNamespace::parse(&identify_page(bdev, identify_cns::NAMESPACE, nsid)?);
    let ids = match identify_page(bdev, identify_cns::NAMESPACE_DESCRIPTORS, nsid) {
        Ok(page) => NamespaceIds::parse(&page),
        // Before NVMe 1.3 there are none.
        Err(error) if error.raw_os_error() == Some(EIO) => NamespaceIds::default(),
        Err(error) => return Err(error),
    };
    let name = NamespaceName::of(ids.uuid, data.nguid, data.eui64, (&serial, nsid));
    let ssd = Ssd {
        serial,
        model,
        firmware,
        namespace: nsid,
    };
    Ok(Some((ssd, name)))
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
