//! Engines and machines that end under load.

use anyhow::{Context, Result, ensure};
use obj_load::{Load, Options};
use test_vm::Vm;

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

/// Acknowledgements that show that the engine goes on.
pub(crate) const ALIVE: u32 = 20;
pub(crate) const KEEL_HEALTH: &str = "keel --socket /run/keel/engine.sock devices health";

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

/// Through one driver after the other, each of which finds what those before it wrote: the same device, the same blocks. The last only reads.
pub(crate) fn through(rig: &mut Rig, drivers: &[Devices]) -> Result<()> {
    let mut load = Load::new(1, options());
    for (round, driver) in drivers.iter().enumerate() {
        let found = driver(rig)?;
        let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
        let address = rig.vm()?.rpc_address();
        if round == 0 {
            load.prepare(&address, POOL)?;
        }
        load.verify(&address)?;
        if round + 1 < drivers.len() {
            load.until_end(&address, |_| engine.stop())?;
            continue;
        }
        println!("through {} drivers: {:?}", drivers.len(), load.tally);
        load.remove_all(&address)?;
        engine.stop()?;
    }
    Ok(())
}

/// The kernel has counted interrupts of SSDs that are driven from user space.
pub(crate) fn vectors_have_rung(vm: &Vm) -> Result<()> {
    let counted = vm.ok(
        "grep vfio-msix /proc/interrupts | awk '{for (i = 2; $i ~ /^[0-9]+$/; i++) sum += $i} END {print sum + 0}'",
    )?;
    let counted: u64 = counted.trim().parse()?;
    ensure!(counted > 0, "no interrupt came");
    println!("interrupts: {counted}");
    Ok(())
}

/// One of two SSDs is pulled under load: its targets are down, the others serve on. After `put_back` the log says `back`, and its targets serve
/// again with all their data: without a restart, and after one.
pub(crate) fn pulled_and_put_back(
    rig: &mut Rig,
    devices: Devices,
    put_back: impl Fn(&mut Vm) -> Result<()>,
    back: &str,
) -> Result<()> {
    let found = devices(rig)?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    let vm = rig.vm()?;
    let address = vm.rpc_address();
    // Objects of one piece are on one target each.
    let options = Options {
        largest: 100 << 10,
        failures: true,
        ..options()
    };
    let mut load = Load::new(3, options);
    load.prepare(&address, POOL)?;
    load.until_end(&address, |progress| {
        vm.pull("n0")?;
        engine.wait_log("it was removed; targets [0, 1] are down")?;
        progress.forget();
        progress.wait(ALIVE).context("the other SSD's targets")?;
        put_back(vm)?;
        engine.wait_log(back)?;
        engine.wait_log("target 0 is back: ")?;
        engine.wait_log("target 1 is back: ")?;
        progress.forget();
        progress.wait(ALIVE).context("with the SSD back")
    })?;
    load.verify(&address)?;
    let pulled = load.tally;
    println!("pulled and put back: {pulled:?}");
    ensure!(pulled.failed > 0, "nothing failed with the SSD: {pulled:?}");
    load.until_end(&address, |progress| {
        progress.wait(ALIVE)?;
        engine.stop()
    })?;
    let tally = load.tally;
    ensure!(tally.failed == pulled.failed, "it fails still: {tally:?}");
    let found = devices(rig)?;
    let engine = Engine::start(rig.vm()?, TARGETS, &found)?;
    load.verify(&address)?;
    load.remove_all(&address)?;
    engine.stop()
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
