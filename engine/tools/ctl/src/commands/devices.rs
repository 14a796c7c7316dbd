//! `keel devices [health]`.

use drpc_wire::{keel, methods};

use crate::cli::{Cli, Devices, DevicesCommand};
use crate::endpoint::Endpoint;
use crate::error::CliError;
use crate::output::{bytes, show, table};

pub(crate) fn run(cli: &Cli, devices: &Devices) -> Result<(), CliError> {
    let list: keel::Devices = Endpoint::connect(cli)?.keel(methods::DEVICES, &())?;
    match devices.command {
        None => show(cli.output, &list, devices_text),
        Some(DevicesCommand::Health) => show(cli.output, &list, health_text),
    }
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
