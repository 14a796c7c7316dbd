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
            d.uuid.clone(),
            d.path.clone(),
        ]
    };
    table(
        &[
            "NAME", "DRIVER", "STATE", "SIZE", "BLOCK", "TARGETS", "UUID", "PATH",
        ],
        &list.devices.iter().map(row).collect::<Vec<_>>(),
    )
}

fn health_text(list: &keel::Devices) -> String {
    let rows = list.devices.iter().flat_map(|d| {
        d.counters.iter().map(|c| {
            vec![
                d.name.clone(),
                d.state.clone(),
                c.name.clone(),
                c.value.to_string(),
            ]
        })
    });
    table(
        &["NAME", "STATE", "COUNTER", "VALUE"],
        &rows.collect::<Vec<_>>(),
    )
}
