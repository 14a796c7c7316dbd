//! Engines and machines that end under load.

use anyhow::{Context, Result, ensure};
use obj_load::{Load, Options};

use crate::engine::{Device, Engine, PATIENCE};
use crate::rig::Rig;

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// kill -9 of the engine.
    Kill,
    /// Power cut of the machine.
    PowerCut,
}

/// Targets over the two SSDs.
pub(crate) const TARGETS: u32 = 4;
pub(crate) const POOL: u64 = 1 << 30;

/// Gives what is under the targets to a driver.
pub(crate) type Devices = fn(&mut Rig) -> Result<Vec<Device>>;

/// A store on four targets over the rig's devices is ended under load some times; each time all that was acknowledged is there.
pub(crate) fn nothing_acknowledged_is_lost(
    rig: &mut Rig,
    devices: Devices,
    end: End,
    rounds: u64,
) -> Result<()> {
    let mut load = Load::new(rounds, options());
    for round in 0..rounds {
        let found = devices(rig)?;
        let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
        let address = rig.vm()?.rpc_address();
        if round == 0 {
            load.prepare(&address, POOL)?;
        }
        load.verify(&address)?;
        load.until_end(&address, |_| match end {
            End::Kill => engine.kill().map(drop),
            End::PowerCut => rig.cut_power_and_boot(),
        })?;
    }
    let found = devices(rig)?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    let address = rig.vm()?.rpc_address();
    load.verify(&address)?;
    let tally = load.tally;
    println!("{rounds} x {end:?}: {tally:?}");
    ensure!(
        tally.acknowledged >= rounds,
        "nothing was at stake: {tally:?}"
    );
    load.remove_all(&address)?;
    engine.stop().context("after the load")
}

/// Smaller than on a real machine, where a round writes hundreds of MiB.
pub(crate) fn options() -> Options {
    Options {
        workers: 4,
        names: 6,
        largest: (1 << 20) + 17,
        acknowledgements: 60,
        patience: PATIENCE,
        ..Options::default()
    }
}
