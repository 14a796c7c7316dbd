//! Log pages (Base 5.16.1).

use crate::bytes::{put, put_text, text_at, u16_at, u32_at, u64_at, u128_at};

/// Error information.
pub const ERRORS: u8 = 0x01;
/// SMART / health information.
pub const SMART: u8 = 0x02;
/// Firmware slot information.
pub const FIRMWARE_SLOTS: u8 = 0x03;
/// Changed namespace list.
pub const CHANGED_NAMESPACES: u8 = 0x04;
/// Telemetry, host-initiated.
pub const TELEMETRY_HOST: u8 = 0x07;
/// Telemetry, controller-initiated.
pub const TELEMETRY_CONTROLLER: u8 = 0x08;

/// Bytes of the SMART page.
pub const SMART_BYTES: usize = 512;
/// Bytes of an entry of the error page.
pub const ERROR_ENTRY_BYTES: usize = 64;
/// Bytes of the firmware page.
pub const FIRMWARE_BYTES: usize = 512;
/// Entries of the changed namespace list.
pub const CHANGED_ENTRIES: usize = 1024;
/// Bytes of a block of a telemetry page; the header is the first.
pub const TELEMETRY_BLOCK: usize = 512;

/// SMART / health information (Base 5.16.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SmartLog {
    /// Critical warnings: bit 0 spare, 1 temperature, 2 reliability, 3 read only, 4 backup failed, 5 PMR.
    pub critical_warning: u8,
    /// Composite temperature in kelvin.
    pub temperature: u16,
    /// Spare capacity left, percent.
    pub available_spare: u8,
    /// Spare below this is a warning, percent.
    pub spare_threshold: u8,
    /// Life used, percent; may exceed 100.
    pub percentage_used: u8,
    /// Thousands of 512-byte units read.
    pub data_units_read: u128,
    /// Thousands of 512-byte units written.
    pub data_units_written: u128,
    /// Read commands.
    pub host_reads: u128,
    /// Write commands.
    pub host_writes: u128,
    /// Minutes busy.
    pub busy_minutes: u128,
    /// Power cycles.
    pub power_cycles: u128,
    /// Hours powered.
    pub power_on_hours: u128,
    /// Times that power went without a shutdown.
    pub unsafe_shutdowns: u128,
    /// Unrecovered data integrity errors.
    pub media_errors: u128,
    /// Entries ever made in the error log.
    pub error_log_entries: u128,
    /// Minutes above the warning temperature.
    pub warning_temp_minutes: u32,
    /// Minutes above the critical temperature.
    pub critical_temp_minutes: u32,
}

impl SmartLog {
    /// From the page.
    #[must_use]
    pub fn parse(page: &[u8; SMART_BYTES]) -> SmartLog {
        SmartLog {
            critical_warning: page[0],
            temperature: u16_at(page, 1),
            available_spare: page[3],
            spare_threshold: page[4],
            percentage_used: page[5],
            data_units_read: u128_at(page, 32),
            data_units_written: u128_at(page, 48),
            host_reads: u128_at(page, 64),
            host_writes: u128_at(page, 80),
            busy_minutes: u128_at(page, 96),
            power_cycles: u128_at(page, 112),
            power_on_hours: u128_at(page, 128),
            unsafe_shutdowns: u128_at(page, 144),
            media_errors: u128_at(page, 160),
            error_log_entries: u128_at(page, 176),
            warning_temp_minutes: u32_at(page, 192),
            critical_temp_minutes: u32_at(page, 196),
        }
    }

    /// As the page.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SMART_BYTES] {
        let mut page = [0; SMART_BYTES];
        page[0] = self.critical_warning;
        put(&mut page, 1, &self.temperature.to_le_bytes());
        page[3] = self.available_spare;
        page[4] = self.spare_threshold;
        page[5] = self.percentage_used;
        let counters = [
            self.data_units_read,
            self.data_units_written,
            self.host_reads,
            self.host_writes,
            self.busy_minutes,
            self.power_cycles,
            self.power_on_hours,
            self.unsafe_shutdowns,
            self.media_errors,
            self.error_log_entries,
        ];
        for (i, counter) in counters.iter().enumerate() {
            put(&mut page, 32 + 16 * i, &counter.to_le_bytes());
        }
        put(&mut page, 192, &self.warning_temp_minutes.to_le_bytes());
        put(&mut page, 196, &self.critical_temp_minutes.to_le_bytes());
        page
    }
}

/// An entry of the error log (Base 5.16.1.2); unused ones have a count of 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErrorLogEntry {
    /// Number of the error, from 1.
    pub count: u64,
    /// Submission queue of the command; 0xffff for none.
    pub queue: u16,
    /// The command; 0xffff for none.
    pub cid: u16,
    /// Status field of the completion, with the phase tag in bit 0.
    pub status: u16,
    /// First block that failed.
    pub lba: u64,
    /// Namespace.
    pub nsid: u32,
}

impl ErrorLogEntry {
    /// From an entry of the page.
    #[must_use]
    pub fn parse(entry: &[u8; ERROR_ENTRY_BYTES]) -> ErrorLogEntry {
        ErrorLogEntry {
            count: u64_at(entry, 0),
            queue: u16_at(entry, 8),
            cid: u16_at(entry, 10),
            status: u16_at(entry, 12),
            lba: u64_at(entry, 16),
            nsid: u32_at(entry, 24),
        }
    }

    /// As an entry of the page.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ERROR_ENTRY_BYTES] {
        let mut entry = [0; ERROR_ENTRY_BYTES];
        put(&mut entry, 0, &self.count.to_le_bytes());
        put(&mut entry, 8, &self.queue.to_le_bytes());
        put(&mut entry, 10, &self.cid.to_le_bytes());
        put(&mut entry, 12, &self.status.to_le_bytes());
        put(&mut entry, 16, &self.lba.to_le_bytes());
        put(&mut entry, 24, &self.nsid.to_le_bytes());
        entry
    }
}

/// Firmware slots (Base 5.16.1.4).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirmwareSlots {
    /// The slot that runs, 1 to 7.
    pub active: u8,
    /// The slot that runs after the next reset; 0 when it stays.
    pub next: u8,
    /// Revision in each slot; empty for an empty slot.
    pub revisions: [String; 7],
}

impl FirmwareSlots {
    /// From the page.
    #[must_use]
    pub fn parse(page: &[u8; FIRMWARE_BYTES]) -> FirmwareSlots {
        let revision = |slot: usize| text_at(page, 8 + 8 * slot, 8);
        FirmwareSlots {
            active: page[0] & 7,
            next: page[0] >> 4 & 7,
            revisions: core::array::from_fn(revision),
        }
    }

    /// As the page.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; FIRMWARE_BYTES] {
        let mut page = [0; FIRMWARE_BYTES];
        page[0] = self.active | self.next << 4;
        for (slot, revision) in self.revisions.iter().enumerate() {
            if !revision.is_empty() {
                put_text(&mut page, 8 + 8 * slot, 8, revision);
            }
        }
        page
    }
}

/// Header of a telemetry page (Base 5.16.1.8): how much there is, in blocks of 512 bytes after the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TelemetryHeader {
    /// Last block of the small, medium and large data area.
    pub last_block: [u16; 3],
    /// Whether the controller has data of its own making.
    pub controller_data: bool,
    /// Changes with each collection by the controller.
    pub generation: u8,
}

impl TelemetryHeader {
    /// From the first block of the page.
    #[must_use]
    pub fn parse(page: &[u8; TELEMETRY_BLOCK]) -> TelemetryHeader {
        TelemetryHeader {
            last_block: [u16_at(page, 8), u16_at(page, 10), u16_at(page, 12)],
            controller_data: page[382] != 0,
            generation: page[383],
        }
    }

    /// As the first block of the page.
    #[must_use]
    pub fn to_bytes(&self, log: u8) -> [u8; TELEMETRY_BLOCK] {
        let mut page = [0; TELEMETRY_BLOCK];
        page[0] = log;
        for (i, last) in self.last_block.iter().enumerate() {
            put(&mut page, 8 + 2 * i, &last.to_le_bytes());
        }
        page[382] = u8::from(self.controller_data);
        page[383] = self.generation;
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_back_as_they_went_in() {
        let smart = SmartLog {
            critical_warning: 4,
            temperature: 310,
            available_spare: 99,
            media_errors: 1 << 70,
            critical_temp_minutes: 3,
            ..SmartLog::default()
        };
        assert_eq!(SmartLog::parse(&smart.to_bytes()), smart);
        let error = ErrorLogEntry {
            count: 9,
            queue: 1,
            cid: 2,
            status: 3,
            lba: 4,
            nsid: 5,
        };
        assert_eq!(ErrorLogEntry::parse(&error.to_bytes()), error);
        let mut slots = FirmwareSlots {
            active: 2,
            next: 1,
            ..FirmwareSlots::default()
        };
        slots.revisions[1] = "1.0b".into();
        assert_eq!(FirmwareSlots::parse(&slots.to_bytes()), slots);
        let header = TelemetryHeader {
            last_block: [1, 2, 3],
            controller_data: true,
            generation: 8,
        };
        assert_eq!(
            TelemetryHeader::parse(&header.to_bytes(TELEMETRY_HOST)),
            header
        );
    }
}
