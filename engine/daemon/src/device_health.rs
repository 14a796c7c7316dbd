//! What SSDs and the object store say about health, in the words of operators.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bdev_nvme::{DeviceHealth, ErrorLogEntry, NvmeStatus, SmartLog};
use drpc_wire::keel;

/// A data unit of the SMART page: a thousand 512-byte units.
const DATA_UNIT: u128 = 512_000;

/// The SMART page as it travels.
pub(crate) fn message(smart: &SmartLog) -> keel::DeviceHealth {
    let count = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    keel::DeviceHealth {
        read_at: now.map_or(0, |since| since.as_secs()),
        critical_warning: smart.critical_warning.into(),
        temperature: smart.temperature.into(),
        available_spare: smart.available_spare.into(),
        spare_threshold: smart.spare_threshold.into(),
        percentage_used: smart.percentage_used.into(),
        bytes_read: count(smart.data_units_read.saturating_mul(DATA_UNIT)),
        bytes_written: count(smart.data_units_written.saturating_mul(DATA_UNIT)),
        host_reads: count(smart.host_reads),
        host_writes: count(smart.host_writes),
        busy_minutes: count(smart.busy_minutes),
        power_cycles: count(smart.power_cycles),
        power_on_hours: count(smart.power_on_hours),
        unsafe_shutdowns: count(smart.unsafe_shutdowns),
        media_errors: count(smart.media_errors),
        error_log_entries: count(smart.error_log_entries),
        warning_temp_minutes: smart.warning_temp_minutes,
        critical_temp_minutes: smart.critical_temp_minutes,
    }
}

/// Entries of an SSD's error log that operators are shown.
const ERRORS_SHOWN: usize = 16;

/// What an SSD said beside its SMART page.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pages {
    pub(crate) errors: Vec<keel::DeviceErrorEntry>,
    pub(crate) firmware: Vec<keel::FirmwareSlot>,
    pub(crate) telemetry: Option<keel::DeviceTelemetry>,
}

/// As they travel.
pub(crate) fn pages(health: &DeviceHealth) -> Pages {
    let mut errors: Vec<&ErrorLogEntry> = health.errors.iter().collect();
    errors.sort_by_key(|entry| core::cmp::Reverse(entry.count));
    let error = |entry: &ErrorLogEntry| keel::DeviceErrorEntry {
        count: entry.count,
        queue: entry.queue.into(),
        command: entry.cid.into(),
        // Above the phase tag.
        status: NvmeStatus(entry.status >> 1).to_string(),
        lba: entry.lba,
        namespace: entry.nsid,
    };
    let slots = health.firmware.iter().flat_map(|slots| {
        let slot = |(slot, revision): (u32, &String)| keel::FirmwareSlot {
            slot,
            revision: revision.clone(),
            active: u32::from(slots.active) == slot,
            next: u32::from(slots.next) == slot,
        };
        let held = (1..).zip(&slots.revisions);
        held.filter(|(_, revision)| !revision.is_empty()).map(slot)
    });
    Pages {
        errors: errors.into_iter().take(ERRORS_SHOWN).map(error).collect(),
        firmware: slots.collect(),
        telemetry: health.telemetry.map(|header| keel::DeviceTelemetry {
            last_blocks: header.last_block.map(u32::from).to_vec(),
            controller_data: header.controller_data,
            generation: header.generation.into(),
        }),
    }
}

/// The critical warnings by name (NVMe Base 5.16.1.3).
pub(crate) fn warnings(bits: u8) -> Vec<&'static str> {
    let names = [
        "spare blocks are running out",
        "temperature",
        "unreliable: too many media errors",
        "read-only",
        "the backup of its volatile memory failed",
        "its persistent memory region is unreliable",
    ];
    let set = names.into_iter().enumerate();
    set.filter(|(bit, _)| bits & 1 << bit != 0)
        .map(|(_, name)| name)
        .collect()
}

/// Reads that met damaged data, by target, from the metrics: any module may count them in `checksum_errors`.
pub(crate) fn checksum_errors(metrics: &str) -> BTreeMap<u32, u64> {
    let mut counted = BTreeMap::new();
    for line in metrics.lines() {
        let Some((name, rest)) = line.split_once("{target=\"") else {
            continue;
        };
        let Some((target, value)) = rest.split_once("\"} ") else {
            continue;
        };
        if name.starts_with("keel_") && name.ends_with("_checksum_errors") {
            let (target, value) = (target.parse().ok(), value.trim().parse::<u64>().ok());
            if let (Some(target), Some(value)) = (target, value) {
                *counted.entry(target).or_insert(0) += value;
            }
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_do_not_fit_are_the_largest_that_do() {
        let smart = SmartLog {
            data_units_written: u128::MAX,
            data_units_read: 2,
            temperature: 323,
            ..SmartLog::default()
        };
        let said = message(&smart);
        assert_eq!(
            (said.bytes_written, said.bytes_read, said.temperature),
            (u64::MAX, 1_024_000, 323)
        );
        assert_eq!(warnings(0b1010), ["temperature", "read-only"]);
    }

    #[test]
    fn the_newest_errors_and_the_slots_with_a_firmware_are_shown() {
        let entry = |count| ErrorLogEntry {
            count,
            queue: 3,
            cid: 7,
            // Unrecovered read error, with the phase tag.
            status: 0x281 << 1 | 1,
            lba: 99,
            nsid: 1,
        };
        let mut slots = bdev_nvme::FirmwareSlots {
            active: 2,
            next: 1,
            ..bdev_nvme::FirmwareSlots::default()
        };
        slots.revisions[0] = "OLD".into();
        slots.revisions[1] = "NEW".into();
        let health = DeviceHealth {
            smart: None,
            errors: (1..40).map(entry).collect(),
            firmware: Some(slots),
            telemetry: Some(bdev_nvme::TelemetryHeader {
                last_block: [1, 2, 3],
                controller_data: true,
                generation: 4,
            }),
            troubles: bdev_nvme::Troubles::default(),
            failed: None,
            removed: false,
        };
        let said = pages(&health);
        assert_eq!((said.errors.len(), said.errors[0].count), (16, 39));
        assert!(said.errors[0].status.contains("unrecovered read error"));
        let shown: Vec<_> = said
            .firmware
            .iter()
            .map(|s| (s.slot, s.active, s.next))
            .collect();
        assert_eq!(shown, [(1, false, true), (2, true, false)]);
        assert_eq!(said.telemetry.unwrap().last_blocks, [1, 2, 3]);
    }

    #[test]
    fn damaged_data_is_counted_by_target_over_all_modules() {
        let text = "# TYPE keel_obj_checksum_errors counter\n\
            keel_obj_checksum_errors{target=\"0\"} 3\nkeel_obj_checksum_errors{target=\"1\"} 0\n\
            keel_mine_checksum_errors{target=\"0\"} 4\nkeel_obj_gets{target=\"0\"} 9\n";
        let counted: Vec<_> = checksum_errors(text).into_iter().collect();
        assert_eq!(counted, [(0, 7), (1, 0)]);
    }
}
