//! The store over C SPDK's NVMe driver: the same tests on the same machines as over our own and the kernel's.

use anyhow::{Context, Result, ensure};
use obj_load::{Load, Options};

use super::ends::{self, End, POOL, TARGETS};
use crate::engine::{Device, Engine};
use crate::rig::Rig;

/// Acknowledgements that show that the engine goes on.
const ALIVE: u32 = 20;

fn devices(rig: &mut Rig) -> Result<Vec<Device>> {
    let vm = rig.vm()?;
    Ok(vec![Device::spdk(vm, "n0")?, Device::spdk(vm, "n1")?])
}

pub(crate) fn killed(rig: &mut Rig) -> Result<()> {
    ends::nothing_acknowledged_is_lost(rig, devices, End::Kill, 3)
}

pub(crate) fn power_cut(rig: &mut Rig) -> Result<()> {
    ends::nothing_acknowledged_is_lost(rig, devices, End::PowerCut, 2)
}

/// Gives the devices to a driver.
type Bind = fn(&mut Rig) -> Result<Vec<Device>>;

/// The same device, the same blocks, whoever drives it.
pub(crate) fn all_drivers(rig: &mut Rig) -> Result<()> {
    let mut load = Load::new(1, ends::options());
    let drivers: [Bind; 5] = [
        devices,
        super::user_driver::devices,
        devices,
        super::kernel_driver::devices,
        devices,
    ];
    for (round, driver) in drivers.into_iter().enumerate() {
        let found = driver(rig)?;
        let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
        let address = rig.vm()?.rpc_address();
        if round == 0 {
            load.prepare(&address, POOL)?;
        }
        load.verify(&address)?;
        load.until_end(&address, |_| engine.stop())?;
    }
    let found = super::kernel_driver::devices(rig)?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    let address = rig.vm()?.rpc_address();
    load.verify(&address)?;
    println!("through all drivers: {:?}", load.tally);
    load.remove_all(&address)?;
    engine.stop()
}

/// The kernel wants an SSD back and SPDK lets go of it: its targets are down, the others serve on; after a restart its data is there.
pub(crate) fn removed(rig: &mut Rig) -> Result<()> {
    let found = devices(rig)?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    let vm = rig.vm()?;
    let address = vm.rpc_address();
    // Objects of one piece are on one target each.
    let options = Options {
        largest: 100 << 10,
        failures: true,
        ..ends::options()
    };
    let mut load = Load::new(3, options);
    load.prepare(&address, POOL)?;
    load.until_end(&address, |progress| {
        vm.pull("n0")?;
        engine.wait_log("it was removed; targets [0, 1] are down")?;
        progress.forget();
        progress.wait(ALIVE).context("the other SSD's targets")?;
        engine.stop()
    })?;
    let pulled = load.tally;
    ensure!(pulled.failed > 0, "nothing failed with the SSD: {pulled:?}");
    rig.vm()?.plug("n0")?;
    let found = devices(rig)?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    load.verify(&address)?;
    println!("pulled and put back: {pulled:?}");
    load.remove_all(&address)?;
    engine.stop()
}
