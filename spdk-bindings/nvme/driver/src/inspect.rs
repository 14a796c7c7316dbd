//! What the owner of a controller may ask it: health, errors, firmware, telemetry.

use nvme_spec::log::{self, ErrorLogEntry, FirmwareSlots, SmartLog, TelemetryHeader};
use nvme_spec::{ALL_NAMESPACES, Command};
use spdk_env::DeviceBacking;

use crate::controller::Inner;
use crate::error::NvmeErrorKind;

type Result<T> = core::result::Result<T, NvmeErrorKind>;

/// Bytes of one step of a long log page.
const STEP: usize = 4096;

fn head<const N: usize>(page: &[u8; 4096]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&page[..N]);
    bytes
}

impl<B: DeviceBacking> Inner<B> {
    async fn log(&self, what: &'static str, id: u8, bytes: usize) -> Result<Box<[u8; 4096]>> {
        // Telemetry is there for who collects it: looking at its header must not take it away (Base 5.16.1.9, RAE).
        let retain = id == log::TELEMETRY_CONTROLLER;
        self.page(
            what,
            Command::get_log(id, ALL_NAMESPACES, 0, bytes as u32, retain),
        )
        .await
    }

    pub(crate) async fn smart(&self) -> Result<SmartLog> {
        let page = self
            .log("get log page (health)", log::SMART, log::SMART_BYTES)
            .await?;
        Ok(SmartLog::parse(&head(&page)))
    }

    /// The newest entries, at most a page of them.
    pub(crate) async fn errors(&self) -> Result<Vec<ErrorLogEntry>> {
        let limit = self
            .identity
            .borrow()
            .as_ref()
            .map_or(1, |id| usize::from(id.error_log_entries) + 1);
        let bytes = (limit * log::ERROR_ENTRY_BYTES).min(STEP);
        let page = self
            .log("get log page (errors)", log::ERRORS, bytes)
            .await?;
        let entries = page[..bytes].as_chunks::<{ log::ERROR_ENTRY_BYTES }>().0;
        Ok(entries
            .iter()
            .map(ErrorLogEntry::parse)
            .filter(|entry| entry.count > 0)
            .collect())
    }

    pub(crate) async fn firmware(&self) -> Result<FirmwareSlots> {
        let page = self
            .log(
                "get log page (firmware)",
                log::FIRMWARE_SLOTS,
                log::FIRMWARE_BYTES,
            )
            .await?;
        Ok(FirmwareSlots::parse(&head(&page)))
    }

    pub(crate) async fn telemetry(&self) -> Result<Option<TelemetryHeader>> {
        if !self
            .identity
            .borrow()
            .as_ref()
            .is_some_and(|id| id.has_telemetry())
        {
            return Ok(None);
        }
        let page = self
            .log(
                "get log page (telemetry)",
                log::TELEMETRY_CONTROLLER,
                log::TELEMETRY_BLOCK,
            )
            .await?;
        Ok(Some(TelemetryHeader::parse(&head(&page))))
    }
}
