//! `keel devices [health|set-faulty|replace]`.

use std::fs::File;
use std::path::Path;

use drpc_wire::{keel, methods};
use engine_devices::TableFile;
use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use crate::cli::{Cli, Devices, DevicesCommand};
use crate::endpoint::Endpoint;
use crate::error::{CliError, Exit};
use crate::output::{bytes, show, table};

pub(crate) fn run(cli: &Cli, devices: &Devices) -> Result<(), CliError> {
    match &devices.command {
        None => show(cli.output, &list(cli)?, devices_text),
        Some(DevicesCommand::Health) => show(cli.output, &list(cli)?, health_text),
        Some(DevicesCommand::SetFaulty {
            uuid,
            storage_dir: Some(dir),
        }) => set_faulty_offline(dir, *uuid),
        Some(DevicesCommand::SetFaulty { uuid, .. }) => {
            let request = keel::DeviceSetFaulty {
                uuid: uuid.to_string(),
            };
            Endpoint::connect(cli)?.keel_ack(methods::DEVICE_SET_FAULTY, &request)
        }
        Some(DevicesCommand::Replace { old, new }) => {
            let request = keel::DeviceReplace {
                old_uuid: old.to_string(),
                new_uuid: new.unwrap_or(*old).to_string(),
            };
            Endpoint::connect(cli)?.keel_ack(methods::DEVICE_REPLACE, &request)
        }
    }
}

fn list(cli: &Cli) -> Result<keel::Devices, CliError> {
    Endpoint::connect(cli)?.keel(methods::DEVICES, &())
}

/// In the table of an engine that does not run: for a device that is lost and keeps the engine from starting.
fn set_faulty_offline(dir: &Path, uuid: Uuid) -> Result<(), CliError> {
    let failed = |why: String| CliError::new(Exit::Failed, why);
    let path = dir.join("engine.lock");
    let lock = File::open(&path).map_err(|error| {
        failed(format!(
            "{}: {error}: it is not the storage directory of an engine",
            path.display()
        ))
    })?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(failed(format!("an engine runs on {}", dir.display()))
            .cure("leave --storage-dir out: the engine changes its table itself"));
    }
    let file = TableFile::in_dir(dir);
    let mut table = file.load().map_err(|error| failed(error.to_string()))?;
    table
        .set_faulty(uuid, "set faulty by an operator while the engine was down")
        .map_err(|error| failed(error.to_string()))?;
    file.save(&table).map_err(|error| failed(error.to_string()))
}

fn devices_text(list: &keel::Devices) -> String {
    let row = |d: &keel::Device| {
        let targets: Vec<String> = d.targets.iter().map(u32::to_string).collect();
        let size = bytes(d.num_blocks * u64::from(d.block_size));
        vec![
            d.name.clone(),
            d.driver.clone(),
            d.state.clone(),
            size,
            d.block_size.to_string(),
            targets.join(","),
            d.serial.clone(),
            d.uuid.clone(),
            d.path.clone(),
        ]
    };
    table(
        &[
            "NAME", "DRIVER", "STATE", "SIZE", "BLOCK", "TARGETS", "SERIAL", "UUID", "PATH",
        ],
        &list.devices.iter().map(row).collect::<Vec<_>>(),
    ) + &notes(list)
}

/// What is wrong, below the table.
fn notes(list: &keel::Devices) -> String {
    let wrong = list.devices.iter().filter(|d| !d.reason.is_empty());
    wrong
        .map(|d| format!("{}: {}: {}\n", d.name, d.state, d.reason))
        .collect()
}

fn health_text(list: &keel::Devices) -> String {
    let rows = list.devices.iter().flat_map(|d| {
        let counters = d
            .counters
            .iter()
            .map(|c| (c.name.clone(), c.value.to_string()));
        let said = ssd(d)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        said.chain(counters)
            .map(|(name, value)| vec![d.name.clone(), d.state.clone(), name, value])
            .collect::<Vec<_>>()
    });
    table(
        &["NAME", "STATE", "COUNTER", "VALUE"],
        &rows.collect::<Vec<_>>(),
    ) + &error_logs(list)
        + &notes(list)
}

/// The newest entries of SSDs' error logs, which an SSD shares among its namespaces.
fn error_logs(list: &keel::Devices) -> String {
    let none = |number: u32| {
        if number == 0xffff {
            "-".to_owned()
        } else {
            number.to_string()
        }
    };
    let rows = list.devices.iter().flat_map(|d| {
        d.newest_errors.iter().map(move |entry| {
            vec![
                d.name.clone(),
                entry.count.to_string(),
                none(entry.queue),
                none(entry.command),
                entry.namespace.to_string(),
                entry.lba.to_string(),
                entry.status.clone(),
            ]
        })
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return String::new();
    }
    let header = ["NAME", "ERROR", "SQID", "CID", "NAMESPACE", "LBA", "STATUS"];
    format!("\nnewest errors of SSDs:\n{}", table(&header, &rows))
}

/// Slots with a firmware, which of them runs, and which will.
fn firmware(d: &keel::Device) -> String {
    let slot = |slot: &keel::FirmwareSlot| {
        let runs = if slot.active { " (runs)" } else { "" };
        let next = if slot.next { " (after a reset)" } else { "" };
        format!("{}: {}{runs}{next}", slot.slot, slot.revision)
    };
    let slots: Vec<String> = d.firmware_slots.iter().map(slot).collect();
    slots.join(", ")
}

fn telemetry(d: &keel::Device) -> String {
    let Some(telemetry) = &d.telemetry else {
        return "none".to_owned();
    };
    // The areas contain each other.
    let blocks = telemetry.last_blocks.iter().max().copied().unwrap_or(0);
    let own = if telemetry.controller_data {
        format!(
            ", collected by itself (generation {})",
            telemetry.generation
        )
    } else {
        String::new()
    };
    format!("{}{own}", bytes(u64::from(blocks) * 512))
}

/// What an SSD is and says about itself.
fn ssd(d: &keel::Device) -> Vec<(&'static str, String)> {
    // One that somebody else drives has a number there, too.
    if d.driver != "nvme" && d.namespace == 0 {
        return Vec::new();
    }
    let mut rows = vec![
        ("model", d.model.clone()),
        ("serial", d.serial.clone()),
        ("firmware", d.firmware.clone()),
        ("firmware_slots", firmware(d)),
        ("telemetry", telemetry(d)),
        ("namespace", d.namespace.to_string()),
        (
            "volatile_write_cache",
            if d.volatile_write_cache { "yes" } else { "no" }.to_owned(),
        ),
    ];
    let Some(smart) = &d.health else { return rows };
    let celsius = i64::from(smart.temperature) - 273;
    rows.extend([
        ("critical_warning", warnings(smart.critical_warning)),
        ("temperature", format!("{celsius} C")),
        (
            "available_spare",
            format!(
                "{} % (threshold {} %)",
                smart.available_spare, smart.spare_threshold
            ),
        ),
        ("percentage_used", format!("{} %", smart.percentage_used)),
        ("bytes_read", bytes(smart.bytes_read)),
        ("bytes_written", bytes(smart.bytes_written)),
        ("host_reads", smart.host_reads.to_string()),
        ("host_writes", smart.host_writes.to_string()),
        ("busy_minutes", smart.busy_minutes.to_string()),
        ("power_cycles", smart.power_cycles.to_string()),
        ("power_on_hours", smart.power_on_hours.to_string()),
        ("unsafe_shutdowns", smart.unsafe_shutdowns.to_string()),
        ("media_errors", smart.media_errors.to_string()),
        ("error_log_entries", smart.error_log_entries.to_string()),
        (
            "warning_temp_minutes",
            smart.warning_temp_minutes.to_string(),
        ),
        (
            "critical_temp_minutes",
            smart.critical_temp_minutes.to_string(),
        ),
    ]);
    rows
}

/// The bits of the critical warning (NVMe Base 5.16.1.3).
fn warnings(bits: u32) -> String {
    let names = [
        "spare",
        "temperature",
        "unreliable",
        "read-only",
        "backup",
        "pmr",
    ];
    let set = names.iter().enumerate();
    let set: Vec<&str> = set
        .filter(|(bit, _)| bits & 1 << bit != 0)
        .map(|(_, name)| *name)
        .collect();
    if set.is_empty() {
        return "none".to_owned();
    }
    set.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ssd_shows_what_it_says_and_why_it_is_down() {
        let device = keel::Device {
            name: "ssd0".into(),
            driver: "nvme".into(),
            state: "unplugged".into(),
            reason: "it was removed".into(),
            model: "M".into(),
            serial: "S1".into(),
            namespace: 1,
            health: Some(keel::DeviceHealth {
                critical_warning: 0b110,
                temperature: 323,
                ..keel::DeviceHealth::default()
            }),
            newest_errors: vec![keel::DeviceErrorEntry {
                count: 12,
                queue: 3,
                command: 0xffff,
                status: "unrecovered read error (type 2, code 0x81)".into(),
                lba: 4711,
                namespace: 1,
            }],
            firmware_slots: vec![keel::FirmwareSlot {
                slot: 2,
                revision: "1.7".into(),
                active: true,
                next: false,
            }],
            telemetry: Some(keel::DeviceTelemetry {
                last_blocks: vec![1, 2, 8],
                controller_data: true,
                generation: 5,
            }),
            ..keel::Device::default()
        };
        let list = keel::Devices {
            devices: vec![device],
        };
        let health = health_text(&list);
        for line in [
            "ssd0  unplugged  temperature",
            "ssd0  unplugged  critical_warning",
            "ssd0: unplugged: it was removed",
            "newest errors of SSDs:",
            "ssd0     12     3  -            1  4711  unrecovered read error (type 2, code 0x81)",
            "2: 1.7 (runs)",
            "4.0 KiB, collected by itself (generation 5)",
        ] {
            assert!(health.contains(line), "{health}");
        }
        assert!(health.contains(" 50 C") && health.contains("temperature, unreliable"));
        assert!(devices_text(&list).contains("ssd0: unplugged: it was removed"));
    }
}
